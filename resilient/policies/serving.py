"""How a cache deals with one request: served, fetched for everybody who asks, or passed on.

The order is that of RFC 9111: what is fresh is served; what is stale but may be is served while it is fetched anew; for
anything else the origin is asked, and where it fails, what is stale may stand in, marked.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ..background import begin_task, begin_thread
from ..context import RECORD
from ..core.asked import Asked
from ..core.caching import CachingRules
from ..core.degradation import Level
from ..core.entry import Entry
from ..core.freshness import Use, look, refresh_early, usable_on_error
from ..core.outcome import Outcome
from ..errors import CircuitOpen, Rejected
from ..events import CacheUsed, FallbackServed
from ..runtime import drive
from .flight import Flight, Flights, Landing, copied
from .stock import Found, Stock

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Runtime, Store

__all__ = ["Serving"]

SAFE = frozenset({"GET", "HEAD"})
REFRESHES = 16  # entries that are refreshed behind their readers at a time
REFRESH_SECONDS = 30.0
COOLED_LIMIT = 1000  # URIs that are left alone after a failure; beyond it all are forgotten
COOLDOWN = (1.0, 5.0)  # seconds
LONGEST_COOLDOWN = 60.0
LANDED: Any = object()
OWN_LIMITS = ("inbound", "caller")  # of one caller, which say nothing to others


class Serving:
    """The running side of a cache; what it is set to is told by whoever inherits it."""

    rules: CachingRules
    soft_timeout: float | None
    max_body: int = 0
    eagerness: float
    store: Store
    stock: Stock
    _owner: Any
    flights: Flights | None
    _lock: threading.Lock
    _cooled: dict[str, tuple[float, str]]

    @staticmethod
    def count(call: Call, result: str) -> None:
        """One more request of which this came."""
        owner = call.owner
        if owner.outbox.listeners:
            owner.post(CacheUsed(at=call.runtime.now(), dependency=owner.name, result=result))

    # -- a request ------------------------------------------------------------------------------------------------

    async def run(self, call: Call, inner: Inner) -> Any:
        caching = call.caching
        asked = None if caching is None else caching.ask(call, self)
        if asked is None:
            self.count(call, "bypass")
            return await inner(call)
        if asked.method not in SAFE:
            return await self._write(call, inner, asked)
        found = await self.stock.find(asked, call.runtime)
        entry = found.entry
        if entry is not None:
            now = call.runtime.now()
            use = look(entry, asked, now, self.rules)
            if use is Use.FRESH:
                if self.eagerness and refresh_early(entry, now, 1.0 - random.random(), self.eagerness):
                    self._refresh(call, inner, asked, found)
                return self._hit(call, asked, entry, "hit")
            if use is Use.REFRESH:
                self._refresh(call, inner, asked, found)
                return self._hit(call, asked, entry, "stale")
            if use is Use.STALE:
                return self._hit(call, asked, entry, "stale")
            if asked.only_if_cached:
                return self._hit_or_nothing(call, asked, None)
            cause = self._cooling(asked, now)
            detail = usable_on_error(entry, asked, now, self.rules) if cause else None
            if detail:
                return self._stale(call, asked, entry, detail, cause, None)
        elif asked.only_if_cached:
            return self._hit_or_nothing(call, asked, None)
        return await self._fetched(call, inner, asked, found)

    def _hit(self, call: Call, asked: Asked, entry: Entry, result: str) -> Any:
        self.count(call, result)
        call.elsewhere = "cached"
        call.plain = False
        return call.caching.answer(call, asked, entry, hit=True)

    def _hit_or_nothing(self, call: Call, asked: Asked, entry: None) -> Any:
        self.count(call, "only_if_cached")
        call.elsewhere = "cached"
        call.plain = False
        return call.caching.nothing(call)

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
            record.add(owner.name or "pipeline", Level.REDUCED, cause, dependency=owner.name, age=age)
        owner.post(FallbackServed(at=now, dependency=owner.name, level=Level.REDUCED, cause=cause, age=age))
        return call.caching.answer(call, asked, entry, hit=status is None, status=status, detail=detail)

    # -- fetching -------------------------------------------------------------------------------------------------

    async def _fetched(self, call: Call, inner: Inner, asked: Asked, found: Found) -> Any:
        flights: Any = self.flights
        solo = call.caching.solo(asked, found.entry)
        while True:
            flight, first = flights.join(asked.collapse_key(), asked.uri, alone=solo)
            if first:
                await self._begin(flight, call, inner, asked, found)
            elif call.runtime.sync and flight.landing is Landing.OUT and not call.runtime.may_wait():
                flight.leave()
                self.count(call, "pass")
                return await inner(call)  # on the thread of an event loop, which perhaps makes the fetch itself
            try:
                landed = await self._landed(flight, call, asked, found.entry)
            except BaseException:
                await self._leave(flight, call, first)
                raise
            if landed is not LANDED:
                await self._leave(flight, call, first)
                return landed
            if flight.landing is Landing.LOST and not first:
                flight.leave()
                continue
            try:
                return await self._arrived(flight, first, call, inner, asked, found)
            except BaseException:
                if not first or flight.landing is not Landing.PASSED:
                    flight.leave()
                raise

    async def _begin(self, flight: Flight, call: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Have the fetch made: by a task of its own, or by this very thread."""
        branch = call.branch()
        branch.started = call.runtime.now()
        flight.fetching = branch
        if call.runtime.sync:
            await flight.run(lambda flight: call.caching.fetch(self, flight, branch, inner, asked, found))
            return
        branch.detach()
        flight.task = begin_task(lambda: flight.run(lambda flight: call.caching.fetch(self, flight, branch, inner, asked, found)))

    async def _landed(self, flight: Flight, call: Call, asked: Asked, entry: Entry | None) -> Any:
        """Wait for a flight. Returns an answer that has to do until then, or LANDED."""
        runtime, until = call.runtime, call.deadline
        if self.soft_timeout is not None and entry is not None and flight.landing is Landing.OUT:
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
            branch, head = flight.fetching, flight.head
            begin_task(lambda: call.caching.let_go(branch, head))

    async def _arrived(self, flight: Flight, first: bool, call: Call, inner: Inner, asked: Asked, found: Found) -> Any:
        """What this caller gets of a flight that has landed."""
        caching, landing = call.caching, flight.landing
        if landing is Landing.SHARED:
            result = "validated" if flight.validated else "miss" if first else "collapsed"
            if first or await caching.readable(call, flight):
                self.count(call, result)
                call.elsewhere, call.counted, call.plain = "cached", not first, False
                return caching.received(call, asked, flight, found, collapsed=not first)
        elif landing is Landing.FAILED:
            now, entry = call.runtime.now(), found.entry
            detail = None if entry is None or not flight.cause else usable_on_error(entry, asked, now, self.rules)
            if detail and entry is not None:
                flight.leave()
                status = None if isinstance(flight.error, CircuitOpen) else caching.status_of(flight)
                return self._stale(call, asked, entry, detail, flight.cause, status)
            self.count(call, "error")
            call.counted, call.plain = not first, False
            if flight.error is not None:
                error = flight.error if first else copied(flight.error)
                call.judge_error(error, flight.outcome)
                raise error
            if first or caching.shareable_failure(self, asked, flight):
                flight.leave()
                return caching.failed(call, flight, first=first)
        elif first and (landing is Landing.PASSED or flight.error is not None):
            if flight.error is not None:  # of a fetch that a deadline of this caller's own has ended
                call.judge_error(flight.error, flight.outcome)
                raise flight.error
            self.count(call, "pass")
            call.adopt(flight.fetching)
            return flight.head
        flight.leave()
        self.count(call, "pass")
        return await inner(call)

    # -- behind the readers ---------------------------------------------------------------------------------------

    def _refresh(self, call: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Fetch anew what is served meanwhile: once for each, and not while the dependency is left alone."""
        flights: Any = self.flights
        if flights.background >= REFRESHES or _is_open(call.owner) or self._cooling(asked, call.runtime.now()):
            return
        flight, first = flights.join(asked.collapse_key(), asked.uri, background=True)
        if not first:
            return
        branch = call.branch()
        branch.started = call.runtime.now()
        branch.detach()
        branch.lower(branch.started + REFRESH_SECONDS, "total")
        flight.fetching = branch
        flights.background += 1

        async def fetch() -> None:
            try:
                await flight.run(lambda flight: call.caching.fetch(self, flight, branch, inner, asked, found))
                self.count(branch, "refreshed" if flight.landing is Landing.SHARED else "refresh_failed")
            finally:
                flights.background -= 1

        if not call.runtime.sync:
            flight.task = begin_task(fetch)
            return
        threads = getattr(call.runtime, "threads", None)
        task = None if threads is None else begin_thread(lambda: drive(fetch()), threads)
        if task is None:  # nobody can do it beside this caller
            flights.background -= 1
            flights.end(flight)
            flight.land(Landing.LOST)

    # -- failures -------------------------------------------------------------------------------------------------

    def failed(self, flight: Flight, branch: Call, asked: Asked, result: Any, error: Exception | None, outcome: Outcome) -> None:
        """A fetch has failed: everybody who waits is told, and whoever has something stale asks no more for a while."""
        flight.cause = branch.degraded or branch.cause_of(result, error)
        flight.error, flight.head, flight.outcome = error, result, outcome
        after = getattr(error, "retry_after", None) or branch.retry_after(result, error)
        seconds = random.uniform(*COOLDOWN) if after is None else min(after, LONGEST_COOLDOWN)
        if not isinstance(error, Rejected) or isinstance(error, CircuitOpen):
            with self._lock:
                if len(self._cooled) >= COOLED_LIMIT:
                    self._cooled.clear()
                self._cooled[asked.uri] = branch.runtime.now() + seconds, flight.cause
        flight.land(Landing.FAILED)

    def broke(self, flight: Flight, branch: Call, asked: Asked, error: BaseException) -> None:
        """A fetch has raised: all that it holds is given back, and everybody is told."""
        outcome = branch.outcome_of_error(error)
        branch.owner.close(branch, outcome, error)
        if not isinstance(error, Exception):
            return
        if branch.runtime.sync and getattr(error, "reason", None) in OWN_LIMITS:
            flight.error, flight.outcome = error, outcome
            flight.land(Landing.LOST)
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

    def _pipeline(self) -> Any:
        if self._owner is None:
            raise RuntimeError("this cache is in no pipeline yet, so nothing is stored")
        return self._owner

    # -- writes ---------------------------------------------------------------------------------------------------

    async def _write(self, call: Call, inner: Inner, asked: Asked) -> Any:
        """Pass on a request that may change what is stored, and forget what it may have changed."""
        self.count(call, "write")
        try:
            result = await inner(call)
        except BaseException as error:
            if not (isinstance(error, Exception) and call.refused(error)):
                # It may have been acted upon: what is stored may be wrong.
                await self._forget(call.runtime, (asked.uri,), (), ())
            raise
        uris, groups = call.caching.written(asked, result)
        if uris or groups:
            await self._forget(call.runtime, uris, (), tuple((asked.uri, group) for group in groups))
        return result

    async def _forget(self, runtime: Runtime, uris: Iterable[str], prefixes: tuple[str, ...], groups: tuple[tuple[str, str], ...]) -> None:
        flights, uris = self.flights, frozenset(uris)
        if flights is not None:
            flights.doom(lambda flight: flight.uri in uris or flight.uri.startswith(prefixes) or bool(groups))
        await self.stock.forget(uris, prefixes, groups, runtime)


def _is_open(owner: Any) -> bool:
    return getattr(owner, "state", "closed") == "open"
