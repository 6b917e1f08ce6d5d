"""A circuit breaker that a record's steps can be played on, and what can be read from it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from resilient import CircuitBreaker, CircuitOpen, Pipeline
from resilient.call import Call
from resilient.core.outcome import Outcome, outcome_of_status
from resilient.events import CircuitChanged
from resilient.runtime import drive
from resilient.testing import FakeClock, RecordingListener

__all__ = ["Circuit", "outcome_of"]

WORDS = {
    "success": Outcome.SUCCESS,
    "failure": Outcome.FAILURE,
    "ignored": Outcome.IGNORED,
    "excluded": Outcome.IGNORED,
    "S": Outcome.SUCCESS,
    "F": Outcome.FAILURE,
    "X": Outcome.IGNORED,
}
STATES = {"half-open": "half_open"}


def outcome_of(word: str) -> Outcome:
    """`success`, `F`, `status 502`."""
    return outcome_of_status(int(word.removeprefix("status "))) if word.startswith("status ") else WORDS[word]


class Circuit:
    """One breaker in virtual time; what is asked of it is named as in the records.

    Args:
        settings: of the `CircuitBreaker`.
    """

    def __init__(self, **settings: Any) -> None:
        self.clock = FakeClock()
        self.breaker = CircuitBreaker(**settings)
        self.pipeline = Pipeline(self.breaker, clock=self.clock)
        self.listener = RecordingListener()
        self.pipeline.outbox.add(self.listener)
        self.began = self.clock.now()
        self.out: dict[str, Call] = {}
        # One that was admitted before anything else happened, to come late.
        self.stale = self._begin() if self.breaker.current_state == "closed" else None
        self.refusal: CircuitOpen | None = None
        self.refused = 0

    @property
    def now(self) -> float:
        return self.clock.now() - self.began

    def at(self, seconds: float | None) -> None:
        """Let time pass until then; a record without times leaves it where it is."""
        if seconds is not None and self.began + seconds > self.clock.now():
            self.clock.advance(self.began + seconds - self.clock.now())

    def _begin(self) -> Call | None:
        self.refusal = None
        call = self.pipeline.begin(int, (), {}, sync=True)
        try:
            drive(self.pipeline.open(call))
        except CircuitOpen as refusal:
            self.refusal = refusal
            return None
        return call

    def _end(self, call: Call, outcome: Outcome) -> None:
        error = RuntimeError("scripted") if outcome.failed else None
        self.pipeline.close(call, outcome, error)

    def _ask(self) -> Call | None:
        """Begin a call, and count the refusals since the last transition."""
        changes = len(self.changes)
        call = self._begin()
        if len(self.changes) > changes:
            self.refused = 0
        self.refused += call is None
        return call

    @property
    def changes(self) -> list[CircuitChanged]:
        self.pipeline.outbox.flush()
        return self.listener.of(CircuitChanged)

    # -- what steps ask for ---------------------------------------------------------------------------------------

    def call(self, outcome: Outcome, seconds: float = 0.0) -> bool:
        """A call from its beginning to its end. Returns whether it was admitted."""
        call = self._ask()
        if call is not None:
            self.clock.advance(seconds)
            self._end(call, outcome)
        return call is not None

    def record(self, outcome: Outcome, seconds: float = 0.0) -> bool:
        """The end of the call that is out, where there is one; else a call."""
        if not self.out:
            return self.call(outcome, seconds)
        _, call = self.out.popitem()
        self._end(call, outcome)
        return True

    def come_late(self, outcome: Outcome) -> None:
        """The end of a call from before all transitions."""
        assert self.stale is not None
        self._end(self.stale, outcome)
        self.stale = None

    def acquire(self, name: str) -> bool:
        call = self._ask()
        if call is not None:
            self.out[name] = call
        return call is not None

    def release(self, name: str) -> None:
        self._end(self.out.pop(name), Outcome.IGNORED)

    # -- what can be read -----------------------------------------------------------------------------------------

    def read(self, what: str, expected: Any) -> Any:
        """The value that a record calls `what`.

        Raises:
            KeyError: nobody has told what that is.
        """
        return READINGS[what](self) if what in READINGS else READINGS_OF[what](self, expected)

    @property
    def state(self) -> str:
        """A circuit whose break is over is half-open for who asks it; ours becomes so when somebody does."""
        state = self.breaker.current_state
        if state == "open" and self.breaker._core.retry_after(self.clock.now()) == 0:
            return "half_open"
        return STATES.get(state, state)

    @property
    def totals(self) -> tuple[int, int, int]:
        return self.breaker._core.totals(self.clock.now())

    @property
    def buffered(self) -> int:
        trials = self.breaker._core._round
        return self.totals[0] if trials is None else trials.successes + trials.failures

    @property
    def retry_after(self) -> float | None:
        assert self.refusal is not None
        return None if self.refusal.retry_after is None else round(self.refusal.retry_after, 9)

    def moves(self, new: str) -> int:
        return sum(change.new == new for change in self.changes)


def _manual(circuit: Circuit, new: str) -> dict[str, Any]:
    """The last transition, as Polly tells of one that was made by hand."""
    last = circuit.changes[-1]
    event: dict[str, Any] = {"opened" if new == "open" else "closed": last.new == new, "manual": last.reason == "forced"}
    if new == "open":
        event["break_duration"] = "infinite" if last.retry_after is None else last.retry_after
    return event


READINGS: dict[str, Callable[[Circuit], Any]] = {
    "allow": lambda circuit: circuit.state != "open",
    "opens": lambda circuit: circuit.state == "open",
    "reported_open": lambda circuit: circuit.state != "closed",
    "opened": lambda circuit: circuit.moves("open"),
    "half_opened": lambda circuit: circuit.moves("half-open"),
    "closed": lambda circuit: circuit.moves("closed"),
    "permits_left": lambda circuit: circuit.breaker.rules.trials - circuit.breaker._core.trials_out - circuit.buffered,
    "buffered": lambda circuit: circuit.buffered,
    "slow": lambda circuit: circuit.totals[2],
    "slow_rate_pct": lambda circuit: 100 * circuit.totals[2] / circuit.totals[0],
    "blocked_until": lambda circuit: round(circuit.now + (circuit.breaker._core.retry_after(circuit.clock.now()) or 0.0), 9),
    "not_permitted": lambda circuit: circuit.refused,
    "rate_pct": lambda circuit: _rate(circuit),  # noqa: PLW0108  # it comes below
}
READINGS_OF: dict[str, Callable[[Circuit, Any], Any]] = {
    "state": lambda circuit, expected: _isolated(circuit) if expected == "isolated" else circuit.state,
    "retry_after": lambda circuit, expected: _told(circuit.retry_after, expected),
    "reason": lambda circuit, expected: _isolated(circuit),
    "event": lambda circuit, expected: _manual(circuit, "open" if "opened" in expected else "closed"),
}


def _isolated(circuit: Circuit) -> str:
    """`isolated` where it was opened by hand for good; there the reason is told to who is refused, too."""
    assert circuit.refusal is None or circuit.refusal.reason == "forced"
    return "isolated" if circuit.breaker.current_state == "open" and circuit.breaker.reason == "forced" else circuit.state


def _rate(circuit: Circuit) -> float:
    """-1 is resilience4j's word for a rate of too few calls."""
    calls, failures, _ = circuit.totals
    return -1 if calls < circuit.breaker.rules.minimum_calls else 100 * failures / calls


def _told(value: float | None, expected: Any) -> Any:
    """`not null` is any value at all."""
    return expected if expected == "not null" and value is not None else value
