"""CircuitBreaker: leave a dependency alone that is known to be failing, and notice when it is back."""

from __future__ import annotations

import functools
import math
import random
import weakref
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

import pybreaker

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import flag
from ..core.breaker import CLOSED, OPEN, Breaker, Rules, Transition, Trial
from ..core.outcome import Outcome
from ..errors import CircuitOpen, ResilienceError
from ..events import CircuitChanged
from .guests import Audience, Mirror, store
from .kinship import Kinship, rules_of

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["CircuitBreaker"]

SUCCESS = Outcome.SUCCESS
IGNORED = Outcome.IGNORED
NOTHING: frozenset[str] = frozenset()
GRACE = 1.0  # seconds by which a trial's lease outlasts the trial's own limit, so that the verdict of a hang still counts


class CircuitBreaker(Kinship):
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
        listeners: `pybreaker.CircuitBreakerListener`s; called outside every lock. An answer that is a failure without
            being an error is told to them as a `ResilienceError`.
        state_storage: mirrored to, in the background; the state is never read from it.
        name: for listeners and logs.
        throw_new_error_on_trip: raise CircuitOpen in place of the error that tripped it (pybreaker's default; not ours).
        outage_failures, outage_quiet: the outage rule: how many, and seconds without a success.
        failure_rate, minimum_calls, window, buckets, count_window: the rate rule, over seconds (forgotten in so many
            steps) or over a number of calls.
        slow_call, slow_rate: calls of at least `slow_call` seconds are slow; trip at this rate of them. Off by default.
        break_time, max_break, jitter: seconds, seconds, and the share by which a break is varied.
        trials, trial_failure_rate: how many trials in a round, and at which failure rate they fail.
        lease: seconds after which a trial that never ended gives its place to another. By default a second more than
            the trial may take, or 30 where nothing limits it.
        enforce: False counts and reports, and lets every call through.
        disabled: True takes no notice of anything.
        random: a source of numbers in [0, 1), for the jitter.

    Raises:
        CircuitOpen: from the call; its `reason` is the rule that tripped and `retry_after` the seconds left.
        TypeError, ValueError: from the constructor and the setters, naming the parameter.
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
        flag("enforce", enforce)
        flag("disabled", disabled)
        if not callable(random):
            raise TypeError(f"random: expected a function, got {random!r}")
        super().__init__(exclude, listeners, state_storage, name, throw_new_error_on_trip)
        self._chosen = frozenset(rules) if rules else NOTHING
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._core = Breaker(rules_of(fail_max, reset_timeout, success_threshold, rules))
        self._mirror = None
        if state_storage is not None:
            self._mirror = Mirror(lambda: self.current_state, functools.partial(store, state_storage), state_storage)
        self._random = random
        self._audience = Audience()
        self._owners: tuple[weakref.ref[Pipeline], ...] = ()
        self.enforce = enforce
        self._core.enabled = not disabled
        self._look_closer()

    # -- the policy -----------------------------------------------------------------------------------------------

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        return self.link(inner)(call)

    def link(self, inner: Inner) -> Inner:
        """`run` for one place in one pipeline: what it needs is at hand, and a call pays for one frame less."""
        core = self._core

        def step(call: Call) -> Awaitable[Any]:
            if self._plain:
                if core.state is CLOSED:
                    call.held.append((self, (core.generation, call, None)))
                    return inner(call)
                if core.state is OPEN and self.enforce:
                    # Read without the lock: what becomes half-open in this very moment rejects one call more.
                    left = core.open_until - call.runtime.now()
                    if left > 0:
                        after = None if left == math.inf else left
                        why = core.reason
                        raise call.reject(CircuitOpen, "circuit open (" + why + ")", policy="breaker", reason=why, retry_after=after)
            return self._run(call, inner)

        return step

    def _run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        core = self._core
        if not core.enabled:
            return inner(call)
        if self._pipeline is not None and self._pipeline.abandoned:
            self._pipeline.reclaim()  # perhaps the place of a trial
        now = call.runtime.now()
        with self._lock:
            permit = core.admit(now)
            recovered, core.recovered = core.recovered, None
            if permit is None:
                reason, retry_after = core.reason, core.retry_after(now)
            elif isinstance(permit, Trial) and "lease" not in self._chosen:
                limit = min(call.deadline - now, call.attempt_limit)
                if limit != math.inf:
                    permit.expires = now + limit + GRACE
        if permit is None:
            if self.enforce:
                raise call.reject(CircuitOpen, "circuit open (" + reason + ")", policy="breaker", reason=reason, retry_after=retry_after)
            call.report_rejection("breaker", reason, enforced=False)
            return inner(call)
        call.held.append((self, (permit, call, now)))
        if isinstance(permit, Trial):
            call.trial = permit
            if permit.transition is not None:
                self._announce(permit.transition, now, call.owner)
        elif recovered is not None:
            self._announce(recovered, now, call.owner)
        for listener in self.listeners:
            call.owner.outbox.guard(listener, functools.partial(listener.before_call, self, call.fn, *call.args, **call.kwargs))
        return self._replacing(call, inner) if self._throw_new_error_on_trip else inner(call)

    async def _replacing(self, call: Call, inner: Inner) -> Any:
        mark, generation = len(call.held) - 1, self._core.generation
        try:
            return await inner(call)
        except Exception as error:
            call.settle(mark, call.outcome_of_error(error), error)
            if self._replaces(generation):
                raise self._replacement() from error
            raise

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> float | None:
        permit, call, started = token
        core = self._core
        if outcome is SUCCESS and type(permit) is int and self._plain:
            # `with` looks a lock's methods up on its type each time, and takes more than twice as long.
            self._acquire()
            try:
                core.record_success(permit, now)
            finally:
                self._release()
            return None
        return self._settle(permit, call, outcome, now, error, now - (started or call.attempt_started or call.started))

    def _settle(self, permit: Any, call: Call, outcome: Outcome, now: float, error: BaseException | None, duration: float) -> float | None:
        if error is not None and outcome.failed and self._excluded_exceptions and not self._blames(error):
            outcome = IGNORED
        core, random = self._core, self._random()
        with self._lock:
            changed = core.record(permit, outcome, now, duration, random)
            until = self._closed_until(now)
        # pybreaker's order: a failure is told before what it led to, a success after that.
        if changed is not None and outcome is SUCCESS:
            self._announce(changed, now, call.owner)
        outbox = call.owner.outbox
        for listener in self.listeners:
            if outcome is SUCCESS:
                outbox.defer(functools.partial(listener.success, self))
            elif outcome.failed:
                told = error or ResilienceError(f"the answer was a failure ({outcome.value})", policy="breaker", reason=outcome.value)
                outbox.defer(functools.partial(listener.failure, self, told))
        if changed is not None and outcome is not SUCCESS:
            self._announce(changed, now, call.owner)
        return until

    def _closed_until(self, now: float) -> float | None:
        """The moment before which a retry would be rejected, for all that is known. The lock is held."""
        core = self._core
        if core.state is CLOSED or not (core.enabled and self.enforce):
            return None
        wait = core.retry_after(now)
        return math.inf if wait is None else now + wait

    def _blames(self, error: BaseException) -> bool:
        blamed = True

        def look() -> None:
            nonlocal blamed
            blamed = self.is_system_error(error)

        # A function given as `exclude` may itself fail; the permit has to be given back all the same.
        self._audience.tell(look)
        return blamed

    def _look_closer(self) -> None:
        # Whether nobody asks for more than a count of each success: listeners, slow calls, a switch.
        self._plain = (
            not self._listeners and self._core.rules.slow_call is None and self._core.enabled and not self._throw_new_error_on_trip
        )

    @property
    def disabled(self) -> bool:
        """True admits every call and learns nothing."""
        return not self._core.enabled

    @disabled.setter
    def disabled(self, value: bool) -> None:
        flag("disabled", value)
        self._core.enabled = not value
        self._look_closer()

    @property
    def rules(self) -> Rules:
        """The settings in force."""
        return self._core.rules

    def chose(self, name: str) -> bool:
        """Whether a setting was given at construction, rather than left to its default."""
        return name in self._chosen

    @property
    def reason(self) -> str:
        """Why it is not closed: outage, failure_rate, slow_rate, consecutive, forced; empty when it is."""
        return self._core.reason

    # -- transitions ----------------------------------------------------------------------------------------------

    def join(self, owner: Pipeline) -> None:
        """Tell `owner` of transitions from now on, unless it is the variant of one that is told. Pipelines that are gone are forgotten."""
        joined, relative = self._joined(), owner.variant_of
        while relative is not None:
            if relative in joined:
                return
            relative = relative.variant_of
        if owner.clock is not self._clock():
            # Everything is timed by one clock: that of the pipelines it stands in.
            self._pipeline = None
        known = tuple(ref for ref in self._owners if ref() not in (None, owner))
        self._owners = (*known, weakref.ref(owner))

    def _joined(self) -> list[Pipeline]:
        return [owner for ref in self._owners if (owner := ref()) is not None]

    def _clock(self) -> Clock:
        owners = self._joined()
        return owners[-1].clock if owners else SYSTEM_CLOCK

    def _announce(self, changed: Transition, now: float, first: Pipeline | None) -> None:
        """Queue the news for everybody concerned; called outside the lock. `first` is whose call it was, if any."""
        owners = self._joined()
        for owner in owners:
            owner.post(
                CircuitChanged(
                    at=now, dependency=owner.name, old=changed.old, new=changed.new, reason=changed.reason, retry_after=changed.retry_after
                )
            )
            if first is not None and owner.outbox is not first.outbox:
                # Its own next call may be long in coming.
                first.outbox.defer(owner.outbox.flush)
        if self._mirror is not None:
            self._mirror.write(changed.new)
        if self._listeners:
            old, new = pybreaker.CircuitBreakerState(self, changed.old), pybreaker.CircuitBreakerState(self, changed.new)
            teller = first or (owners[0] if owners else None)
            for listener in self.listeners:
                if teller is None:
                    self._audience.tell(listener.state_change, self, old, new)
                else:
                    teller.outbox.defer(functools.partial(listener.state_change, self, old, new))

    def _change(self, act: Callable[[float], Transition | None]) -> None:
        now = self._clock().now()
        with self._lock:
            changed = act(now)
        if changed is not None:
            self._announce(changed, now, None)
            for owner in self._joined():
                owner.outbox.flush()

    def trip(self, reason: str = "forced") -> None:
        """Open for one break, as if a rule had tripped; it recovers by itself."""
        random = self._random()
        self._change(lambda now: self._core.trip(now, reason, random))

    def reset(self) -> None:
        """A fresh start: closed, with nothing remembered."""
        self.close()
