"""How a cache deals with one request: served, fetched for everybody who asks, or passed on.

The order is that of RFC 9111: what is fresh is served; what is stale but may be is served while it is fetched anew; for
anything else the origin is asked, and where it fails, what is stale may stand in, marked.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Coroutine, Iterable
from typing import TYPE_CHECKING, Any

from ..background import begin_task, begin_thread
from ..context import RECORD
from ..core.asked import Asked
from ..core.caching import CachingRules
from ..core.degradation import Level
from ..core.entry import Entry
from ..core.freshness import Use, look, refresh_early, usable_on_error
from ..core.invalidation import SAFE as UNCHANGING
from ..core.outcome import Outcome
from ..core.vary import selected
from ..errors import CircuitOpen, DeadlineExceeded, Rejected
from ..events import CacheUsed, FallbackServed
from ..runtime import drive
from .flight import Flight, Landing, copied
from .stock import Found, Stock

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Runtime, Store
    from .flights import Flights

__all__ = ["Serving"]

AGAIN: Any = object()
SAFE = frozenset({"GET", "HEAD"})
REFRESH_SECONDS = 30.0
COOLED_LIMIT = 1000  # URIs that are left alone after a failure; beyond it all are forgotten
COOLDOWN = (1.0, 5.0)  # seconds
LONGEST_COOLDOWN = 60.0


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
        asked = caching.ask(call, self)
        if asked is None:
            self.count(call, "bypass")
            return await inner(call)
        if asked.method not in SAFE:
            return await self._write(call, inner, asked)
        flights: Any = self.flights
        kept = flights.kept
        found = self.stock.at_hand(asked, call.runtime)
        if found is None:
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
        answer = await self._fetched(call, inner, asked, found, kept)
        return await self.run(call, inner) if answer is AGAIN else answer

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
        record = RECORD.get()
        if record is not None:
            record.add(owner.name or "pipeline", Level.REDUCED, cause, dependency=owner.name, age=entry.age(now))
        owner.post(FallbackServed(at=now, dependency=owner.name, level=Level.REDUCED, cause=cause))
        return call.caching.answer(call, asked, entry, hit=status is None, status=status, detail=detail)

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
                landed = await self._landed(flight, call, asked, found.entry)
            except BaseException:
                await self._leave(flight, call, first)
                raise
            if landed is not None or (flight.lost and (not first or flight.error is None)):
                await self._leave(flight, call, first)
                return AGAIN if landed is None else landed
            try:
                return await self._arrived(flight, first, call, inner, asked, found)
            except BaseException:
                if not first or flight.landing is not Landing.PASSED:
                    flight.leave()
                raise

    async def _begin(self, flight: Flight, call: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Have the fetch made: by a task of its own, or by this very thread."""
        flight.fetching = branch = call.branch()
        branch.started = call.runtime.now()
        branch.counted, branch.elsewhere = True, None  # as of an attempt before, where it is retried outside of the cache

        def fly() -> Coroutine[Any, Any, None]:
            return flight.run(lambda flight: call.caching.fetch(self, flight, branch, inner, asked, found))

        if not call.runtime.sync:
            branch.detach()
            try:
                flight.task = begin_task(fly, flight.finish)
            except BaseException:
                flight.finish()
                raise
        elif not self._elsewhere(call, found.entry, asked, branch, fly):
            flight.until = branch.deadline
            await fly()

    def _elsewhere(self, call: Call, entry: Entry | None, asked: Asked, branch: Call, fly: Callable[[], Coroutine[Any, Any, None]]) -> bool:
        """Fetch on another thread, where this one has something to serve should it take long. False if that is not to be."""
        runtime = call.runtime
        threads = getattr(runtime, "threads", None)
        if self.soft_timeout is None or entry is None or threads is None or not usable_on_error(entry, asked, runtime.now(), self.rules):
            return False
        if not runtime.may_wait():
            return False
        inherited = branch.deadline, branch.inherited, branch.limit, branch.timed
        branch.detach()
        if begin_thread(lambda: drive(fly()), threads) is not None:
            return True
        branch.deadline, branch.inherited, branch.limit, branch.timed = inherited
        return False

    async def _landed(self, flight: Flight, call: Call, asked: Asked, entry: Entry | None) -> Any:
        """Wait for a flight. Returns an answer that has to do until then, or None when it has landed."""
        runtime, until = call.runtime, call.deadline
        if self.soft_timeout is not None and entry is not None and flight.landing is Landing.OUT:
            soon = runtime.now() + self.soft_timeout
            if soon < until and not await flight.wait(runtime, soon):
                detail = usable_on_error(entry, asked, runtime.now(), self.rules)
                if detail:
                    flight.background = True
                    return self._stale(call, asked, entry, detail, "slow", None)
        if await flight.wait(runtime, until):
            return None
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
        if landing is Landing.SHARED:
            if first or (_is_for(flight.entry, asked) and await caching.readable(call, flight)):
                self.count(call, "validated" if flight.validated else "miss" if first else "collapsed")
                call.elsewhere, call.counted, call.plain = "cached", not first, False
                return caching.received(call, asked, flight, found, collapsed=not first)
            if flight.tape is not None and flight.tape.error is not None:
                return self._failure(flight, first, call, asked, found.entry)
        elif landing is Landing.FAILED:
            if (
                first
                or flight.error is not None
                or self._covered(call, asked, found.entry)
                or caching.shareable_failure(self, asked, flight)
            ):
                return self._failure(flight, first, call, asked, found.entry)
        elif first:
            if landing is Landing.LOST:  # a deadline of this caller's own has ended it
                return self._failure(flight, first, call, asked, found.entry)
            self.count(call, "pass")
            call.adopt(flight.fetching)
            return flight.head
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
        detail = None if entry is None else usable_on_error(entry, asked, call.runtime.now(), self.rules)
        if detail and entry is not None:
            flight.leave()
            if flight.landing is Landing.LOST:
                return self._stale(call, asked, entry, detail, "deadline", 504)
            unasked = isinstance(flight.error, CircuitOpen)
            status = None if unasked else 502 if broken is not None else caching.status_of(flight)
            return self._stale(call, asked, entry, detail, flight.cause or "body", status)
        self.count(call, "error")
        call.counted, call.plain = not first, False
        error = broken or flight.error
        if error is None:
            flight.leave()
            return caching.failed(call, flight, first=first)
        error = flight.take_error() if first else copied(error)
        try:
            call.judge_error(error, flight.outcome)
            raise error
        finally:
            # Nothing that an error's traceback leads to may lead back to it.
            del error

    # -- behind the readers ---------------------------------------------------------------------------------------

    def _refresh(self, call: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Fetch anew what is served meanwhile: once for each, and not while the dependency is left alone."""
        flights: Any = self.flights
        if _is_open(call.owner) or self._cooling(asked, call.runtime.now()):
            return
        flight = flights.refresh(asked.collapse_key(), asked.uri)
        if flight is None:
            return
        flight.fetching = branch = call.branch()
        branch.started = call.runtime.now()
        branch.detach()
        branch.lower(branch.started + REFRESH_SECONDS, "total")

        async def fetch() -> None:
            await flight.run(lambda flight: call.caching.fetch(self, flight, branch, inner, asked, found))
            self.count(branch, "refreshed" if flight.landing is Landing.SHARED else "refresh_failed")
            branch.owner.outbox.flush()

        if not call.runtime.sync:
            flight.task = begin_task(fetch, flight.finish)
            return
        threads = getattr(call.runtime, "threads", None)
        if threads is None or begin_thread(lambda: drive(fetch()), threads) is None:
            flight.finish()  # nobody can do it beside this caller

    # -- failures -------------------------------------------------------------------------------------------------

    def failed(self, flight: Flight, branch: Call, asked: Asked, result: Any, error: Exception | None, outcome: Outcome) -> None:
        """A fetch has failed: everybody who waits is told, and whoever has something stale asks no more for a while."""
        if flight.landing is not Landing.OUT:
            return
        flight.cause = branch.cause_of(result, error)
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
        if isinstance(error, DeadlineExceeded) and branch.runtime.now() >= flight.until - 0.001:
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
            raise RuntimeError("this Cache is in no pipeline yet, so nothing is stored")
        return self._owner

    # -- writes ---------------------------------------------------------------------------------------------------

    async def _write(self, call: Call, inner: Inner, asked: Asked) -> Any:
        """Pass on a request that may change what is stored, and forget what it may have changed."""
        self.count(call, "write")
        try:
            result = await inner(call)
        except BaseException as error:
            unchanged = asked.method in UNCHANGING or (isinstance(error, Exception) and call.attempts == 1 and call.unsent(error))
            if not unchanged:
                # It may have been acted upon: what is stored may be wrong.
                await self._forget(call.runtime, (asked.uri,), (), ())
            raise
        uris, groups = call.caching.written(asked, result)
        if uris or groups:
            await self._forget(call.runtime, uris, (), tuple((asked.uri, group) for group in groups))
        return result

    async def _forget(
        self, runtime: Runtime, uris: Iterable[str], prefixes: tuple[str, ...], groups: tuple[tuple[str, str], ...], *, soft: bool = False
    ) -> None:
        flights, uris = self.flights, frozenset(uris)
        if flights is not None:
            flights.doom(lambda flight: flight.uri in uris or flight.uri.startswith(prefixes) or bool(groups))
        await self.stock.forget(uris, prefixes, groups, runtime, soft=soft)


def _is_for(entry: Entry | None, asked: Asked) -> bool:
    """Whether an answer is the variant for a request: fields that do not keep requests apart may choose one all the same."""
    return entry is None or not entry.vary or selected(asked, entry.vary) == entry.selected


def _is_open(owner: Any) -> bool:
    return getattr(owner, "state", "closed") == "open"
