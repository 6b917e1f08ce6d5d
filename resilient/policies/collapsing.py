"""One fetch for everybody who asks, from the side of each of those who do: who makes it, who waits, who gets what."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable, Coroutine
from functools import partial
from typing import TYPE_CHECKING, Any

from ..background import begin_task, begin_thread
from ..context import RECORD
from ..core.asked import Asked
from ..core.caching import CachingRules
from ..core.degradation import Level
from ..core.entry import Entry
from ..core.freshness import usable_on_error
from ..core.outcome import Outcome
from ..core.vary import selected
from ..errors import CircuitOpen, DeadlineExceeded, Rejected
from ..events import CacheUsed, FallbackServed
from ..runtime import drive
from ..tape import copied
from .flight import FAILED, LOST, OUT, PASSED, SHARED, Flight
from .stock import Found, Stock
from .timeout import Timeout

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Store
    from .flights import Flights

__all__ = ["AGAIN", "REFRESH_SECONDS", "Collapsing"]

AGAIN: Any = object()
"""What a fetch comes to that was cut short, or overtaken by an answer that is in the store by now."""
LANDED: Any = object()
COOLED_LIMIT = 1000  # URIs that are left alone after a failure; beyond it all are forgotten
COOLDOWN = (1.0, 5.0)  # seconds
LONGEST_COOLDOWN = 60.0
REFRESH_SECONDS = 30.0  # for which a fetch may go on that nobody waits for


class Collapsing:
    """The side of a cache that fetches."""

    rules: CachingRules
    soft_timeout: float | None
    max_body: int = 0
    store: Store
    stock: Stock
    flights: Flights | None
    _lock: threading.Lock
    _cooled: dict[str, tuple[float, str]]

    @staticmethod
    def count(call: Call, result: str) -> None:
        """One more request of which this came."""
        owner = call.owner
        if owner.outbox.listeners:
            owner.post(CacheUsed(at=call.runtime.now(), dependency=owner.name, result=result))

    # -- fetching -------------------------------------------------------------------------------------------------

    async def _fetched(self, call: Call, inner: Inner, asked: Asked, found: Found, kept: int) -> Any:
        """The answer of the origin, AGAIN if there may be one in the store by now."""
        flights: Any = self.flights
        solo, key = call.caching.solo(asked, found.entry), asked.collapse_key()
        while True:
            flight, first = flights.join(key, asked.uri, alone=solo)
            if first and not solo and flights.overtaken(key, kept):
                flight.finish()
                return AGAIN
            try:
                if first:
                    await self._begin(flight, call, inner, asked, found)
                elif call.runtime.sync and not call.runtime.may_wait():
                    solo = True  # it may be on this very event loop that the fetch is made
                    flight.leave()
                    continue
                landed = LANDED if flight.landing is not OUT else await self._landed(flight, call, asked, found.entry)
            except BaseException:
                await self._leave(flight, call, first)
                raise
            if landed is not LANDED or (flight.lost and (not first or flight.error is None)):
                await self._leave(flight, call, first)
                if landed is not LANDED:
                    return landed
                if not first:
                    return AGAIN
                self.count(call, "pass")
                return await inner(call)  # it was cancelled from within, and would be again
            try:
                return await self._arrived(flight, first, call, inner, asked, found)
            except BaseException:
                if not first or flight.landing is not PASSED:
                    flight.leave()
                raise

    async def _begin(self, flight: Flight, call: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Have the fetch made: by a task of its own, or by this very thread."""
        flight.fetching = branch = call.branch()
        branch.started = call.runtime.now()
        branch.counted, branch.elsewhere = True, None  # as of an attempt before, where it is retried outside of the cache

        fly = partial(flight.run, partial(call.caching.fetch, self, flight, branch, inner, asked, found))
        if not call.runtime.sync:
            branch.detach()
            self._bound(flight, call, asked, found.entry)
            try:
                begin_task(fly, flight.finish, flight.flown_by)
            except BaseException:
                flight.finish()
                raise
        elif not self._elsewhere(call, found.entry, asked, flight, fly):
            flight.until = branch.deadline
            await fly()

    def _bound(self, flight: Flight, call: Call, asked: Asked, entry: Entry | None) -> None:
        """Where whoever waits will be served what is stale, see that the fetch does not go on for ever behind him."""
        if self.soft_timeout is None or entry is None or not usable_on_error(entry, asked, call.runtime.now(), self.rules):
            return
        totals = [policy.total for policy in call.owner.policies if isinstance(policy, Timeout) and policy.enforce]
        own = max((total for total in totals if total != math.inf), default=0.0)
        flight.end_within(self.soft_timeout + max(REFRESH_SECONDS, own))

    def _elsewhere(
        self, call: Call, entry: Entry | None, asked: Asked, flight: Flight, fly: Callable[[], Coroutine[Any, Any, None]]
    ) -> bool:
        """Fetch on another thread, where this one has something to serve should it take long. False if that is not to be."""
        runtime, branch = call.runtime, flight.fetching
        threads = getattr(runtime, "threads", None)
        if self.soft_timeout is None or entry is None or threads is None or not usable_on_error(entry, asked, runtime.now(), self.rules):
            return False
        if not runtime.may_wait():
            return False
        inherited = branch.deadline, branch.inherited, branch.limit, branch.timed
        branch.detach()
        self._bound(flight, call, asked, entry)
        if begin_thread(lambda: drive(fly()), threads) is not None:
            return True
        branch.deadline, branch.inherited, branch.limit, branch.timed = inherited
        flight.ends = math.inf
        return False

    async def _landed(self, flight: Flight, call: Call, asked: Asked, entry: Entry | None) -> Any:
        """Wait for a flight. Returns an answer that has to do until then, or LANDED."""
        runtime, until = call.runtime, call.deadline
        if self.soft_timeout is not None and entry is not None and flight.landing is OUT:
            soon = runtime.now() + self.soft_timeout
            if soon < until and not await flight.wait(runtime, soon):
                detail = usable_on_error(entry, asked, runtime.now(), self.rules)
                if detail:
                    flight.background = True
                    return self._stale(call, asked, entry, detail, "slow", None)
        if await flight.wait(runtime, until):
            return LANDED
        detail = None if entry is None else usable_on_error(entry, asked, runtime.now(), self.rules)
        if detail and entry is not None:
            return self._stale(call, asked, entry, detail, "deadline", 504)
        ran = runtime.now() - call.started
        raise call.cut(f"no answer within {ran:.3f} s", policy="cache", reason=call.limit, outcome=Outcome.IGNORED)

    async def _leave(self, flight: Flight, call: Call, first: bool) -> None:
        if not first:
            flight.leave()
        elif flight.disown():
            # It came in the very moment that its caller left.
            branch, head, caching = flight.fetching, flight.head, call.caching
            if call.runtime.sync:
                await caching.let_go(branch, head)
            else:
                begin_task(lambda: caching.let_go(branch, head), lambda: caching.drop(branch))

    async def _arrived(self, flight: Flight, first: bool, call: Call, inner: Inner, asked: Asked, found: Found) -> Any:
        """What this caller gets of a flight that has landed."""
        caching, landing = call.caching, flight.landing
        if landing is SHARED:
            if first or (_is_for(flight.entry, asked) and await caching.readable(call, flight)):
                self.count(call, "validated" if flight.validated else "miss" if first else "collapsed")
                call.elsewhere, call.counted, call.plain = "cached", not first, False
                return caching.received(call, asked, flight, found, collapsed=not first)
            if flight.tape is not None and flight.tape.error is not None:
                return self._failure(flight, first, call, asked, found.entry)
        elif landing is FAILED:
            if first or flight.error is not None or self._covered(call, asked, found.entry) or caching.shareable_failure(flight):
                return self._failure(flight, first, call, asked, found.entry)
        elif first:
            if landing is LOST:  # a deadline of this caller's own has ended it
                return self._failure(flight, first, call, asked, found.entry)
            self.count(call, "pass")
            own = call.deadline, call.limit
            call.adopt(flight.fetching)
            call.lower(*own)  # the fetch was made without it
            return flight.head
        elif landing is PASSED and flight.cause:  # a failure whose body is for him alone
            return self._failure(flight, first, call, asked, found.entry)
        flight.leave()
        self.count(call, "pass")
        return await inner(call)

    def _covered(self, call: Call, asked: Asked, entry: Entry | None) -> bool:
        return entry is not None and usable_on_error(entry, asked, call.runtime.now(), self.rules) is not None

    def _failure(self, flight: Flight, first: bool, call: Call, asked: Asked, entry: Entry | None) -> Any:
        """What a caller gets where the fetch failed: what is stale if that may be, else the failure itself.

        Raises:
            Exception: what the fetch failed with.
        """
        caching = call.caching
        broken = None if flight.tape is None else flight.tape.error
        denied = flight.landing is FAILED and not flight.cause and broken is None
        detail = None if entry is None or denied else usable_on_error(entry, asked, call.runtime.now(), self.rules)
        if detail and entry is not None:
            flight.leave()
            if flight.landing is LOST:
                return self._stale(call, asked, entry, detail, "deadline", 504)
            unasked = isinstance(flight.error, CircuitOpen)
            status = None if unasked else 502 if broken is not None else caching.status_of(flight)
            if first:
                flight.take_error()  # nobody is to have it, and its traceback leads to the flight
            return self._stale(call, asked, entry, detail, flight.cause or "body", status)
        self.count(call, "error")
        call.counted, call.plain = not first, False
        error = broken or flight.error
        if error is None:
            flight.leave()
            return caching.failed(self, call, asked, flight, first=first)
        error = flight.take_error() if first else copied(error)
        try:
            call.judge_error(error, flight.outcome)
            raise error
        finally:
            # Nothing that an error's traceback leads to may lead back to it.
            del error

    # -- failures -------------------------------------------------------------------------------------------------

    def failed(self, flight: Flight, branch: Call, asked: Asked, result: Any, error: Exception | None, outcome: Outcome) -> None:
        """A fetch has failed: everybody who waits is told, and whoever has something stale asks no more for a while."""
        if flight.landing is not OUT:
            return
        flight.cause = branch.degraded or branch.cause_of(result, error)
        flight.error, flight.head, flight.outcome = error, result, outcome
        after = getattr(error, "retry_after", None) or branch.retry_after(result, error)
        seconds = random.uniform(*COOLDOWN) if after is None else min(after, LONGEST_COOLDOWN)
        if not isinstance(error, Rejected) or isinstance(error, CircuitOpen):
            with self._lock:
                if len(self._cooled) >= COOLED_LIMIT:
                    self._cooled.clear()
                self._cooled[asked.uri] = branch.runtime.now() + seconds, flight.cause
        flight.land(FAILED)

    def broke(self, flight: Flight, branch: Call, asked: Asked, error: BaseException) -> None:
        """A fetch has raised: all that it holds is given back, and everybody is told."""
        outcome = branch.outcome_of_error(error)
        branch.owner.close(branch, outcome, error)
        if not isinstance(error, Exception):
            return
        if isinstance(error, DeadlineExceeded) and branch.runtime.now() >= flight.until - 0.001:
            flight.error, flight.outcome = error, outcome
            flight.land(LOST)
        else:
            self.failed(flight, branch, asked, None, error, outcome)

    def recovered(self, asked: Asked) -> None:
        """A fetch has brought an answer."""
        if self._cooled:
            self._cooled.pop(asked.uri, None)

    def _cooling(self, asked: Asked, now: float) -> str:
        """Why an origin that has failed a moment ago is not asked again yet; empty if it may be."""
        if not self._cooled:
            return ""
        until, cause = self._cooled.get(asked.uri, (0.0, ""))
        return cause if now < until else ""

    def _stale(self, call: Call, asked: Asked, entry: Entry, detail: str, cause: str, status: int | None) -> Any:
        """Serve what is stale in place of an error, and say so everywhere.

        Args:
            call: whose answer it is.
            asked: what was asked.
            entry: what is served.
            detail: what permits it.
            cause: what went wrong, as a word.
            status: what the origin answered or would have; None where it was not asked.
        """
        self.count(call, detail.replace("-", "_"))
        owner = call.owner
        call.degraded = cause
        call.plain = False
        now = call.runtime.now()
        age = entry.age(now)
        record = RECORD.get()
        if record is not None:
            record.add(owner.name or "pipeline", Level.REDUCED, cause, dependency=owner.name, age=age, own=True)
        owner.post(FallbackServed(at=now, dependency=owner.name, level=Level.REDUCED, cause=cause, age=age))
        return call.caching.answer(call, asked, entry, hit=status is None, status=status, detail=detail)


def _is_for(entry: Entry | None, asked: Asked) -> bool:
    """Whether an answer is the variant for a request: fields that do not keep requests apart may choose one all the same."""
    return entry is None or not entry.vary or selected(asked, entry.vary) == entry.selected
