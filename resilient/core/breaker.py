"""When a dependency is left alone, and when it is asked again.

Rules of this file: one state machine, no clock, no chance, no lock; the caller holds one lock around each method and
reports the transition that it is handed after the lock is let go.

    closed ──a rule trips──> open ──its break is over──> half-open ──too many trials failed──> open, for longer
       ^                      ^                              │
       └──────────────────────┼────── the trials went well ──┘        open(), half_open(), close(), trip(): by hand

Every admitted call holds a permit: the generation it was admitted in while the circuit was closed (an int, so that
nothing is allocated), a `Trial` while it was half-open. Each transition begins a new generation, and the result of an
older one changes nothing: a call that was sent before the outage neither opens nor closes anything after it.

`core/health.py` has the rules that trip, which name the reason, `core/trials.py` the round of a half-open circuit.
Reasons of other transitions: `forced` (by hand), `break_over`, `trial` (too many trials failed), `recovered`.
"""

from __future__ import annotations

import math
from typing import Any

from .health import Health
from .outcome import IGNORED, SUCCESS, Outcome
from .permit import Permit, Transition, Trial
from .rules import Rules
from .trials import Round

__all__ = ["CLOSED", "HALF_OPEN", "OPEN", "Breaker", "Permit", "Rules", "Transition", "Trial"]

CLOSED = "closed"
OPEN = "open"
HALF_OPEN = "half-open"

FORCED = "forced"
# The permit of a breaker that is switched off: no generation has this number.
_UNCOUNTED = -1


class Breaker(Health):
    """The state of one circuit; what its calls say is its base, so that a success has one object to reach.

    Attributes:
        state: `CLOSED`, `OPEN` or `HALF_OPEN`.
        generation: how many transitions there were. While the state is `CLOSED` it is itself a valid permit.
        reason: why the circuit is not closed: the rule that tripped, kept until it closes; "" while it is closed.
        forced: it was opened by hand, and stays so until it is closed by hand.
        flights: the calls that are out with a permit of the closed circuit, oldest first, and their permits. The caller
            puts them in, which needs no lock, and takes them out; each transition forgets them.
        breaks: how many times in a row it opened without having closed.
        enabled: False admits every call and counts none.
        recovered: a transition to closed that `admit` has made, for the caller to take and report; else None.
    """

    __slots__ = (
        "_break",
        "_closed",
        "_round",
        "breaks",
        "enabled",
        "flights",
        "forced",
        "generation",
        "open_until",
        "reason",
        "recovered",
        "state",
    )

    def __init__(self, rules: Rules) -> None:
        super().__init__(rules)
        self.flights: dict[Any, int] = {}
        self.state = CLOSED
        self.generation = 0
        # The generation while the circuit is closed, else None: the permits that `record` takes. Who reads state and
        # generation without the lock may take a permit of a generation that was over in between.
        self._closed: int | None = 0
        self.reason = ""
        self.forced = False
        self.enabled = True
        # While it is half-open.
        self._round: Round | None = None
        # Length of the last break before jitter; 0 while closed.
        self._break = 0.0
        self.breaks = 0
        self.open_until = 0.0
        self.recovered: Transition | None = None

    @property
    def trial_successes(self) -> int:
        """Successes of the present round of trials."""
        return 0 if self._round is None else self._round.successes

    @property
    def trials_out(self) -> int:
        """Trials that are out now; never more than `rules.trials`."""
        return 0 if self._round is None else len(self._round.out)

    def admit(self, now: float) -> Permit | None:
        """Ask to make a call. Returns its permit, to be given to `record` exactly once; None rejects the call.

        An open circuit whose break is over becomes half-open here: `Trial.transition` tells.
        """
        if not self.enabled:
            return _UNCOUNTED
        if self.state is CLOSED:
            return self.generation
        transition = None
        if self.state is OPEN:
            if now < self.open_until:
                return None
            transition = self._move(HALF_OPEN, "break_over")
        trials = self._round
        if trials is None or not self._place_free(trials, now):
            return None
        if self._round is None:
            return self.generation
        trial = Trial(self.generation, now + self.rules.lease, transition)
        trials.out.append(trial)
        return trial

    def _place_free(self, trials: Round, now: float) -> bool:
        """Whether the round has a place, or is over: trials whose leases ended may have been all that it waited for."""
        before = trials.successes
        free = trials.make_place(now)
        if trials.successes > before:
            self.last_success = now
        if trials.complete:
            self.recovered = self._close("recovered")
            return True
        return free

    def record_success(self, generation: int, now: float) -> None:
        """`record` for a closed permit and a success whose duration is of no interest, which never trips anything."""
        if generation != self._closed:
            return
        self.last_success = now
        if self.consecutive_failures:
            self.consecutive_failures = self._outages = 0
        window = self._window
        if now >= window.ends:
            window.turn(now)
        window.calls += 1

    def record(self, permit: Permit, outcome: Outcome, now: float, duration: float | None, random: float) -> Transition | None:
        """Tell how a call ended. Returns the transition that it caused, if any.

        Args:
            permit: what the call was admitted with.
            outcome: how it ended.
            now: when.
            duration: seconds that it took; None if that says nothing (a stream whose reader was slow).
            random: in [0, 1), to spread the ends of breaks.
        """
        slow_call = self.rules.slow_call
        slow = slow_call is not None and duration is not None and duration >= slow_call
        if isinstance(permit, Trial):
            return self._record_trial(permit, outcome, slow, now, random)
        if permit != self._closed or not outcome.counted:
            return None
        if not outcome.failed and not slow:
            self.record_success(permit, now)
            return None
        self.note(outcome, slow, now, duration)
        reason = self.broken_rule(outcome, slow, now) if self.enabled else None
        return None if reason is None else self._open(reason, now, random)

    def _record_trial(self, trial: Trial, outcome: Outcome, slow: bool, now: float, random: float) -> Transition | None:
        trials = self._round
        if trials is None or not trials.end(trial):
            return None
        if (now >= trial.expires and not trial.answered) or outcome is IGNORED or not self.enabled:
            return None
        # A slow trial has failed: a circuit that opened for slowness must not close on it.
        if outcome is SUCCESS and not slow:
            self.last_success = now
            trials.successes += 1
        else:
            trials.failures += 1
            self.consecutive_failures += outcome.failed
        if trials.failures / trials.size >= self.rules.trial_failure_rate:
            return self._open("trial", now, random)
        return self._close("recovered") if trials.complete else None

    def retry_after(self, now: float) -> float | None:
        """Seconds after which another try may be admitted, for who is rejected now; None if closed or unknown (forced).

        Half-open, nobody knows when the trials end. The answer is the length of the last break, for as long again the
        circuit stays open if they fail, or the time until the first lease ends if that is sooner; 0 with a place free.
        """
        if self.state is OPEN:
            return None if self.forced else max(0.0, self.open_until - now)
        trials = self._round
        return None if trials is None else min(self._break or self.rules.break_time, trials.wait(now))

    def open(self, now: float) -> Transition | None:
        """Isolate the dependency: nothing is admitted until `close` or `half_open`."""
        self.forced = True
        self.reason = FORCED
        self.open_until = math.inf
        return None if self.state is OPEN else self._move(OPEN, FORCED)

    def half_open(self, now: float) -> Transition | None:
        """Admit a round of trials now, whatever the state."""
        self.forced = False
        self.reason = self.reason or FORCED
        return None if self.state is HALF_OPEN else self._move(HALF_OPEN, FORCED)

    def close(self, now: float) -> Transition | None:
        """Admit every call and forget all failures, also where the circuit is closed already."""
        # No success was seen that would say since when the dependency answers.
        self.last_success = -math.inf
        if self.state is not CLOSED:
            return self._close(FORCED)
        self.forget()
        return None

    def trip(self, now: float, reason: str, random: float) -> Transition | None:
        """Open the circuit for a break, for a reason that was seen elsewhere. An open one stays as it is."""
        return None if self.state is OPEN or not self.enabled else self._open(reason, now, random)

    def configure(self, rules: Rules) -> None:
        """Change the rules. What the window saw is kept if its shape is; a round of trials begins anew."""
        self.adopt(rules)
        if self._round is not None:
            self._round = Round(rules.trials)

    def lengthen(self, transition: Transition, seconds: float, now: float) -> bool:
        """Give the break that `transition` began another length. False if that break is over already."""
        if self.generation != transition.generation or self.state is not OPEN or self.forced:
            return False
        self._break = seconds
        self.open_until = now + seconds
        return True

    def _open(self, reason: str, now: float, random: float) -> Transition:
        rules = self.rules
        self._break = min(rules.max_break, max(rules.break_time, self._break * rules.growth))
        # Jitter comes on top of the cap, or at the cap all replicas would ask at the same moment.
        pause = self._break * (1 + rules.jitter * (2 * random - 1))
        self.open_until = now + pause
        self.breaks += 1
        if self.reason in ("", FORCED):
            self.reason = reason
        return self._move(OPEN, reason, pause, self.breaks)

    def _close(self, reason: str) -> Transition:
        self.forget()
        self.reason = ""
        self.forced = False
        self._break = 0.0
        self.breaks = 0
        return self._move(CLOSED, reason)

    def _move(self, state: str, reason: str, retry_after: float | None = None, number: int = 0) -> Transition:
        self.generation += 1
        transition = Transition(self.state, state, reason, retry_after, number, self.generation)
        self.state = state
        self._closed = self.generation if state is CLOSED else None
        self._round = Round(self.rules.trials) if state is HALF_OPEN else None
        # Who is still out belongs to an older generation, and would be the oldest of the next one.
        self.flights.clear()
        return transition
