"""How a cache deals with one request: served, fetched for everybody who asks, or passed on.

The order is that of RFC 9111: what is fresh is served; what is stale but may be is served while it is fetched anew; for
anything else the origin is asked, and where it fails, what is stale may stand in, marked.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable
from functools import partial
from typing import TYPE_CHECKING, Any

from ..background import begin_task, begin_thread
from ..core.asked import Asked
from ..core.entry import Entry
from ..core.freshness import FRESH, REFRESH, STALE, look, refresh_early, usable_on_error
from ..core.invalidation import SAFE as UNCHANGING
from ..runtime import drive
from .collapsing import AGAIN, REFRESH_SECONDS, Collapsing
from .flight import SHARED
from .stock import Found

if TYPE_CHECKING:
    from ..call import Call
    from ..core.caching import CachingRules
    from ..protocols import Inner, Runtime

__all__ = ["SAFE", "Serving"]

SAFE = frozenset({"GET", "HEAD"})


class Serving(Collapsing):
    """The running side of a cache; what it is set to is told by whoever inherits it."""

    eagerness: float
    _given: dict[str, Any]
    _owner: Any

    def _taking(self, other: Serving, names: Collection[str], rules: CachingRules, own: Iterable[str]) -> Callable[[], None]:
        """What takes the settings `names` over from `other`: `rules` has them all but those in `own`, which are attributes."""

        def take() -> None:
            self._given |= {name: other._given[name] for name in names}
            self.rules = rules
            for name in own:
                setattr(self, name, getattr(other, name))

        return take

    # -- a request ------------------------------------------------------------------------------------------------

    async def run(self, call: Call, inner: Inner) -> Any:
        caching = call.caching
        asked = None if caching is None else caching.ask(call, self)
        if asked is None:
            self.count(call, "bypass")
            return await inner(call)
        if asked.method not in SAFE:
            return await self._write(call, inner, asked)
        flights: Any = self.flights
        kept = flights.kept
        found = self.stock.at_hand(asked, call.runtime)
        if found is None:
            found = await self.stock.look_up(asked, call.runtime)
        entry = found.entry
        if entry is not None:
            now = call.runtime.now()
            use = look(entry, asked, now, self.rules)
            if use is FRESH:
                if self.eagerness and refresh_early(entry, now, 1.0 - random.random(), self.eagerness):
                    self._refresh(call, inner, asked, found)
                return self._hit(call, asked, entry, "hit")
            if use is REFRESH:
                self._refresh(call, inner, asked, found)
                return self._hit(call, asked, entry, "stale")
            if use is STALE:
                return self._hit(call, asked, entry, "stale")
            if asked.only_if_cached:
                return self._nothing(call)
            cause = self._cooling(asked, now)
            detail = usable_on_error(entry, asked, now, self.rules) if cause else None
            if detail:
                return self._stale(call, asked, entry, detail, cause, None)
        elif asked.only_if_cached:
            return self._nothing(call)
        answer = await self._fetched(call, inner, asked, found, kept)
        return await self.run(call, inner) if answer is AGAIN else answer

    def _hit(self, call: Call, asked: Asked, entry: Entry, result: str) -> Any:
        self.count(call, result)
        call.elsewhere = "cached"
        call.plain = False
        return call.caching.answer(call, asked, entry, hit=True)

    def _nothing(self, call: Call) -> Any:
        """For a request that wants what is stored or nothing, and there is nothing that will do."""
        self.count(call, "only_if_cached")
        call.elsewhere = "cached"
        call.plain = False
        return call.caching.nothing(call)

    # -- behind the readers ---------------------------------------------------------------------------------------

    def _refresh(self, call: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Fetch anew what is served meanwhile: once for each, not while the dependency is left alone, nor in a service that is
        about to stop.
        """
        flights: Any = self.flights
        if call.owner.closing.is_set() or _is_open(call.owner) or self._cooling(asked, call.runtime.now()):
            return
        flight = flights.refresh(asked.collapse_key(), asked.uri)
        if flight is None:
            return
        flight.fetching = branch = call.branch()
        branch.started = call.runtime.now()
        branch.detach()
        flight.end_within(REFRESH_SECONDS)

        async def fetch() -> None:
            await flight.run(partial(call.caching.fetch, self, flight, branch, inner, asked, found))
            self.count(branch, "refreshed" if flight.landing is SHARED else "refresh_failed")
            branch.owner.outbox.flush()

        if not call.runtime.sync:
            flight.task = begin_task(fetch, flight.finish)
            return
        threads = getattr(call.runtime, "threads", None)
        if threads is None or begin_thread(lambda: drive(fetch()), threads) is None:
            flight.finish()  # nobody can do it beside this caller

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

    def reset(self) -> None:
        """Forget all that was stored and learnt."""
        with self._lock:
            self._cooled.clear()
        if self.flights is not None:
            self.flights.forget()
        clear = getattr(self.store, "clear", None)
        if clear is not None:
            clear()


def _is_open(owner: Any) -> bool:
    return getattr(owner, "state", "closed") == "open"
