"""CircuitBreaker: leave a dependency alone that is known to be failing, and notice when it is back."""

from __future__ import annotations

import functools
import random
import threading
import weakref
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pybreaker

from ..core.bounds import positive, whole
from ..core.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Rules, Transition, Trial
from ..core.outcome import Outcome
from ..errors import CircuitOpen
from ..events import CircuitChanged
from ..runtime import drive
from .kinship import Mirror, store, tell

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["CircuitBreaker"]

SUCCESS = Outcome.SUCCESS
IGNORED = Outcome.IGNORED


class CircuitBreaker(pybreaker.CircuitBreaker):
    """Reject calls while the dependency is failing; a `pybreaker.CircuitBreaker` with another engine.

    It trips on an outage (`outage_failures` connect errors, timeouts, 502, 503 or 504 in a row and no success for
    `outage_quiet`) or when `failure_rate` of at least `minimum_calls` in the last `window` seconds failed. Then calls
    are rejected for `break_time`, longer after each failed round of trials up to `max_break`; then `trials` calls are
    let through, each under a lease, and their sample decides.

    The first eight parameters are pybreaker's, in its order and with its meaning; none of them is needed.

    Args:
        fail_max: trip on so many failures in a row, of any kind, instead of by the rules above.
        reset_timeout: seconds of a break that does not grow.
        success_threshold: size of the sample of trials.
        exclude: exception classes, or functions of the exception, that say nothing of the dependency.
        listeners: `pybreaker.CircuitBreakerListener`s; called outside every lock.
        state_storage: mirrored to, in the background; the state is never read from it.
        name: for listeners and logs.
        throw_new_error_on_trip: raise CircuitOpen in place of the error that tripped it (pybreaker's default; not ours).
        outage_failures, outage_quiet: the outage rule: how many, and seconds without a success.
        failure_rate, minimum_calls, window, count_window: the rate rule, over seconds or over a number of calls.
        slow_call, slow_rate: calls of at least `slow_call` seconds are slow; trip at this rate of them. Off by default.
        break_time, max_break, jitter: seconds, seconds, and the share by which a break is varied.
        trials, trial_failure_rate, lease: how many trials in a round, at which failure rate they fail, and the seconds
            after which a trial that never ended gives its place to another.
        enforce: False counts and reports, and lets every call through.
        disabled: True takes no notice of anything.

    Raises:
        CircuitOpen: from the call; its `reason` is the rule that tripped and `retry_after` the seconds left.
    """

    def __init__(
        self,
        fail_max: int | None = None,
        reset_timeout: float | None = None,
        success_threshold: int | None = None,
        exclude: Iterable[type[BaseException] | Callable[[Any], bool]] | None = None,
        listeners: Sequence[pybreaker.CircuitBreakerListener] | None = None,
        state_storage: pybreaker.CircuitBreakerStorage | None = None,
        name: str | None = None,
        throw_new_error_on_trip: bool = False,
        *,
        enforce: bool = True,
        disabled: bool = False,
        random: Callable[[], float] = random.random,
        **rules: Any,
    ) -> None:
        unknown = set(rules) - RULES
        if unknown:
            raise TypeError(f"CircuitBreaker: unknown parameter {', '.join(sorted(unknown))}; known are {', '.join(sorted(RULES))}")
        # pybreaker's own __init__ would build its storage, its states and a re-entrant lock; its attributes are set
        # here instead, for its inherited methods.
        self._lock = threading.Lock()  # type: ignore[assignment]
        self._core = Breaker(_rules(fail_max, reset_timeout, success_threshold, rules))
        self._excluded_exceptions = list(exclude or ())
        self._listeners = list(listeners or ())
        self._name = name
        self._throw_new_error_on_trip = throw_new_error_on_trip
        self._mirror = None if state_storage is None else Mirror(functools.partial(store, state_storage), state_storage)
        self._random = random
        self._owners: tuple[weakref.ref[Pipeline], ...] = ()
        self._pipeline: Pipeline | None = None
        self.enforce = enforce
        self._core.enabled = not disabled
        self._look_closer()

    # -- the policy -----------------------------------------------------------------------------------------------

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        core = self._core
        if core.state is CLOSED and self._plain:
            call.held.append((self, (core.generation, call, 0.0)))
            return inner(call)
        return self._run(call, inner)

    def _run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        now = call.runtime.now()
        core = self._core
        with self._lock:
            permit = core.admit(now)
            retry_after = core.retry_after(now) if permit is None else None
        if isinstance(permit, Trial) and permit.transition is not None:
            self._announce(permit.transition, now)
        if permit is None:
            if self.enforce:
                raise call.reject(CircuitOpen, f"circuit open ({core.reason})", policy="breaker", reason=core.reason, retry_after=retry_after)
            call.report_rejection("breaker", core.reason, enforced=False)
            return inner(call)
        if self._listeners:
            for listener in self.listeners:
                tell(listener.before_call, self, call.fn, *call.args, **call.kwargs)
        call.held.append((self, (permit, call, now)))
        return inner(call)

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> float | None:
        permit, call, started = token
        core = self._core
        if outcome is SUCCESS and type(permit) is int and self._plain:
            with self._lock:
                core.record_success(permit, now)
            return None
        return self._settle(permit, call, outcome, now, error, now - started)

    def _settle(
        self, permit: Any, call: Call, outcome: Outcome, now: float, error: BaseException | None, duration: float
    ) -> float | None:
        if error is not None and outcome.failed and self._excluded_exceptions and not self.is_system_error(error):
            outcome = IGNORED
        core = self._core
        with self._lock:
            changed = core.record(permit, outcome, now, duration, self._random())
            until = None if core.state is CLOSED else now + (core.retry_after(now) or 0.0)
        for listener in self.listeners:
            if outcome is SUCCESS:
                call.owner.outbox.defer(functools.partial(listener.success, self))
            elif outcome.failed and error is not None:
                call.owner.outbox.defer(functools.partial(listener.failure, self, error))
        if changed is not None:
            self._announce(changed, now, call.owner)
        return until if self.enforce else None

    def _look_closer(self) -> None:
        # Whether neither listeners nor slow calls nor a switch ask for more than a count of each success.
        self._plain = not self._listeners and self._core.rules.slow_call is None and self._core.enabled

    @property
    def disabled(self) -> bool:
        """True admits every call and learns nothing."""
        return not self._core.enabled

    @disabled.setter
    def disabled(self, value: bool) -> None:
        self._core.enabled = not value
        self._look_closer()

    def add_listener(self, listener: pybreaker.CircuitBreakerListener) -> None:
        """Tell `listener` of calls and transitions, after all is settled and outside every lock."""
        super().add_listener(listener)
        self._look_closer()

    def remove_listener(self, listener: pybreaker.CircuitBreakerListener) -> None:
        super().remove_listener(listener)
        self._look_closer()

    # -- transitions ----------------------------------------------------------------------------------------------

    def join(self, owner: Pipeline) -> None:
        """Tell `owner` of transitions from now on. Pipelines that are gone are forgotten."""
        known = tuple(ref for ref in self._owners if ref() not in (None, owner))
        self._owners = (*known, weakref.ref(owner))

    def _announce(self, changed: Transition, now: float, first: Pipeline | None = None) -> None:
        """Queue the news for everybody concerned; called outside the lock."""
        owners = [owner for ref in self._owners if (owner := ref()) is not None]
        for owner in owners:
            owner.post(
                CircuitChanged(
                    at=now, dependency=owner.name, old=changed.old, new=changed.new, reason=changed.reason, retry_after=changed.retry_after
                )
            )
        if self._mirror is not None:
            self._mirror.write(changed.new)
        if self._listeners:
            old, new = pybreaker.CircuitBreakerState(self, changed.old), pybreaker.CircuitBreakerState(self, changed.new)
            for listener in self.listeners:
                told = functools.partial(listener.state_change, self, old, new)
                if first is not None or owners:
                    (first or owners[0]).outbox.defer(told)
                else:
                    tell(told)

    def _change(self, act: Callable[[float], Transition | None]) -> None:
        now = self._clock_now()
        with self._lock:
            changed = act(now)
        if changed is not None:
            self._announce(changed, now)
            for ref in self._owners:
                if (owner := ref()) is not None:
                    owner.outbox.flush()

    def _clock_now(self) -> float:
        for ref in self._owners:
            if (owner := ref()) is not None:
                return owner.clock.now()
        return self._own().clock.now()

    def open(self) -> bool:
        """Isolate: reject every call until `close` or `half_open`."""
        self._change(self._core.open)
        return self._throw_new_error_on_trip

    def trip(self, reason: str = "forced") -> None:
        """Open for one break, as if a rule had tripped; it recovers by itself."""
        self._change(lambda now: self._core.trip(now, reason, self._random()))

    def half_open(self) -> None:
        """Let a round of trials through now."""
        self._change(self._core.half_open)

    def close(self) -> None:
        """Let every call through, and forget what was learnt."""
        self._change(self._core.close)

    def reset(self) -> None:
        """As `close`, without telling anybody why: a fresh start."""
        self.close()

    def configure(self, **rules: Any) -> None:
        """Change rules at run time; the window and the state are kept."""
        changed = replace(self._core.rules, **rules)
        with self._lock:
            self._core.configure(changed)
        self._look_closer()

    # -- pybreaker's surface --------------------------------------------------------------------------------------

    @property
    def current_state(self) -> str:
        """closed, open or half-open."""
        return self._core.state

    @property
    def state(self) -> pybreaker.CircuitBreakerState:  # type: ignore[override]
        return pybreaker.CircuitBreakerState(self, self._core.state)

    @state.setter
    def state(self, state: str) -> None:
        acts: dict[str, Callable[[], Any]] = {CLOSED: self.close, OPEN: self.open, HALF_OPEN: self.half_open}
        if state not in acts:
            raise ValueError(f"state: expected one of {', '.join(acts)}, got {state!r}")
        acts[state]()

    @property
    def reason(self) -> str:
        """Why it is not closed: outage, failure_rate, slow_rate, consecutive, forced; empty when it is."""
        return "" if self._core.state is CLOSED else self._core.reason

    @property
    def fail_counter(self) -> int:
        """Failures in a row."""
        return self._core.consecutive_failures

    @property
    def success_counter(self) -> int:
        """Successful trials of the present round."""
        return self._core.trial_successes

    @property
    def fail_max(self) -> int | None:  # type: ignore[override]
        return self._core.rules.consecutive

    @fail_max.setter
    def fail_max(self, number: int) -> None:
        self.configure(consecutive=whole("fail_max", number) or number)

    @property
    def reset_timeout(self) -> float:
        return self._core.rules.break_time

    @reset_timeout.setter
    def reset_timeout(self, timeout: float) -> None:
        positive("reset_timeout", timeout)
        self.configure(break_time=timeout, max_break=timeout, growth=1.0, jitter=0.0)

    @property
    def success_threshold(self) -> int:
        return self._core.rules.trials

    @success_threshold.setter
    def success_threshold(self, threshold: int) -> None:
        self.configure(trials=threshold)

    def _own(self) -> Pipeline:
        """The pipeline behind `call`, `calling` and the decorator: one breaker, the same runner."""
        if self._pipeline is None:
            from .pipeline import Pipeline

            self._pipeline = Pipeline(self, name=self._name or "")
        return self._pipeline

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a plain function.

        Raises:
            TypeError: `func` is a coroutine function; decorate it instead, or use `Pipeline(breaker).call`.
        """
        generation = self._core.generation
        try:
            return self._own().call_sync(func, *args, **kwargs)
        except CircuitOpen:
            raise
        except Exception as error:
            if self._throw_new_error_on_trip and self._core.generation != generation and self._core.state is OPEN:
                raise CircuitOpen("circuit opened", policy="breaker", reason=self._core.reason) from error
            raise

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Guard a block of code, awaits included."""
        own = self._own()
        call = own.begin(_nothing, (), {}, sync=True)
        drive(own.open(call))
        try:
            yield
        except BaseException as error:
            own.close(call, call.outcome_of_error(error), error)
            raise
        own.close(call, SUCCESS, None)

    def __call__(self, *functions: Callable[..., Any], **options: Any) -> Any:
        """Decorate a function, plain or async; `@breaker` and `@breaker()` both work."""
        if options:
            raise TypeError("tornado coroutines are not supported: decorate an async function")
        return self._own()(functions[0]) if functions else self._own()

    def call_async(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Not supported: it needs tornado.

        Raises:
            TypeError: always.
        """
        raise TypeError("call_async needs tornado: decorate the async function, or use `await Pipeline(breaker).call(fn)`")


def _nothing() -> None:
    """What `calling` calls: its block is the call."""


RULES = frozenset(Rules.__dataclass_fields__) - {"consecutive", "growth"}


def _rules(fail_max: int | None, reset_timeout: float | None, success_threshold: int | None, rules: dict[str, Any]) -> Rules:
    if fail_max is not None:
        whole("fail_max", fail_max)
        rules["consecutive"] = fail_max
    if reset_timeout is not None:
        positive("reset_timeout", reset_timeout)
        rules.update(break_time=reset_timeout, max_break=reset_timeout, growth=1.0, jitter=0.0)
    if success_threshold is not None:
        whole("success_threshold", success_threshold)
        rules["trials"] = success_threshold
    return Rules(**rules)
