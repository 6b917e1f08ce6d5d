"""One circuit at work: it admits calls, hears how they ended, and watches those that hang."""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable
from itertools import islice
from typing import TYPE_CHECKING, Any

from ..core.breaker import CLOSED, OPEN, Breaker, Trial
from ..core.outcome import Outcome
from ..errors import CircuitOpen, ResilienceError
from ..wheel import end_in
from .transitions import Changing

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["Circuit"]

SUCCESS = Outcome.SUCCESS
IGNORED = Outcome.IGNORED
GRACE = 1.0  # seconds by which a trial's lease outlasts the trial's own limit, so that the verdict of a hang still counts
STALE = -1  # no generation has this number
OLDEST = 16  # calls that are looked at for a stall; those whose answer has begun are put behind the others then


class Circuit(Changing):
    """The engine behind a breaker's surface.

    A call that a closed circuit admits is put in `core.flights` and holds nothing but itself; any other holds a tuple of
    its permit, itself, and when it was admitted.
    """

    _chosen: frozenset[str] = frozenset()
    _enforce: bool
    _plain: bool

    def _begin(self, core: Breaker) -> None:
        self._core = core
        self._look_closer()

    @property
    def busy(self) -> bool:
        """Whether a call is in flight that counts."""
        return bool(self._core.flights)

    # -- the policy -----------------------------------------------------------------------------------------------

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        return self.link(inner)(call)

    def link(self, inner: Inner) -> Inner:
        """`run` for one place in one pipeline: what it needs is at hand, and a call pays for one frame less."""
        core = self._core
        flights = core.flights

        def step(call: Call) -> Awaitable[Any]:
            if self._plain:
                if core.state is CLOSED and (
                    # As `look` does, without its frame.
                    len(flights) < core.crowd or call.started - core.last_success < core.rules.stall_after or not self._stalls(call)
                ):
                    flights[call] = core.generation
                    call.held.append((self, call))
                    return inner(call)
                if core.state is OPEN and self._enforce:
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
        self.look(call)
        now = call.runtime.now()
        with self._lock:
            permit = core.admit(now)
            recovered, core.recovered = core.recovered, None
            if permit is None:
                reason, retry_after = core.reason, core.retry_after(now)
            elif not isinstance(permit, Trial):
                core.flights[call] = permit
            elif "lease" not in self._chosen:
                limit = min(call.deadline - now, call.attempt_limit)
                if limit != math.inf:
                    permit.expires = now + limit + GRACE
        if permit is None:
            if self._enforce:
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
        core = self._core
        if type(token) is tuple:
            permit, call, started = token
            return self._settle(permit, call, outcome, now, error, now - started)
        if outcome is SUCCESS and self._plain:
            # `with` takes twice as long as the calls that it stands for.
            lock = self._lock
            lock.acquire()
            try:
                core.record_success(core.flights.pop(token, STALE), now)
            finally:
                lock.release()
            return None
        duration = now - (token.attempt_started or token.started)
        return self._settle(core.flights.get(token, STALE), token, outcome, now, error, duration)

    def _settle(self, permit: Any, call: Call, outcome: Outcome, now: float, error: BaseException | None, duration: float) -> float | None:
        if error is not None and outcome.failed and self._excluded_exceptions and not self._blames(error):
            outcome = IGNORED
        random = self._random()
        with self._lock:
            self._core.flights.pop(call, None)
            changed = self._core.record(permit, outcome, now, duration, random)
        changed = self._lengthened(changed, now)
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
        return self._closed_until(now)

    def _closed_until(self, now: float) -> float | None:
        """The moment before which a retry would be rejected, for all that is known."""
        core = self._core
        with self._lock:
            if core.state is CLOSED or not (core.enabled and self._enforce):
                return None
            wait = core.retry_after(now)
        return math.inf if wait is None else now + wait

    def _blames(self, error: BaseException) -> bool:
        blamed = True

        def look() -> None:
            nonlocal blamed
            blamed = self.is_system_error(error)

        # A function given as `exclude` may itself fail; the permit has to be given back all the same.
        self._tell(look)
        return blamed

    def _look_closer(self) -> None:
        # Whether nobody asks for more than a count of each success: listeners, slow calls, a switch.
        self._plain = (
            not self._listeners and self._core.rules.slow_call is None and self._core.enabled and not self._throw_new_error_on_trip
        )

    # -- stalls ---------------------------------------------------------------------------------------------------

    def look(self, call: Call) -> None:
        """See that `call` arrives, though it may have to wait for calls that hang: the stall rule looks at arrivals."""
        core = self._core
        if core.state is CLOSED and len(core.flights) >= core.crowd and call.started - core.last_success >= core.rules.stall_after:
            self._stalls(call)

    def _stalls(self, call: Call) -> bool:
        """Whether the dependency stalls, seen when `call` arrives; then the circuit has tripped."""
        core = self._core
        p95 = call.owner.stats.p95()
        if p95 is None:
            return False
        now, random = call.runtime.now(), self._random()
        with self._lock:
            if core.state is not CLOSED or not core.enabled or not core.stalled(self._waits(now), p95, now):
                return core.state is not CLOSED
            hanging = list(core.flights)
            changed = core.trip(now, "stall", random)
        changed = self._lengthened(changed, now)
        if changed is not None:
            self._announce(changed, now, call.owner)
        if self._enforce:
            for one in hanging:
                since = one.waiting_since
                if since is not None:
                    end_in(one, since + core.hang(p95) - now)
        return True

    def _waits(self, now: float) -> list[float]:
        """Seconds that the oldest calls in flight have waited for the beginning of their answer. The lock is held."""
        flights = self._core.flights
        try:
            oldest = list(islice(flights, OLDEST))
        except RuntimeError:  # another thread has put a call in just now; the next arrival looks again
            return []
        waits = []
        for call in oldest:
            since = call.waiting_since
            if since is None:
                flights[call] = flights.pop(call)
            else:
                waits.append(now - since)
        return waits
