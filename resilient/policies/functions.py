"""How a cache deals with functions: what is asked for, how a value is fetched for several, and how it is handed out."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

from ..context import RECORD
from ..core.asked import Asked
from ..core.degradation import Level
from ..core.entry import Entry
from ..core.outcome import Outcome
from ..errors import ResilienceError
from .flight import FAILED, PASSED, SHARED, Flight
from .values import own_copy

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .cached import CachedFallback
    from .stock import Found

__all__ = ["FUNCTIONS"]


class FunctionCaching:
    """The side of a cache that knows calls of functions."""

    def ask(self, call: Call, cache: Any) -> Asked | None:
        """What is asked for; None where it is no value that could be kept."""
        key_of = getattr(cache, "key_of", None)  # which a cache of HTTP answers has not
        if key_of is None or call.streamed or call.uncached:
            return None
        try:
            uri, partition = key_of(call)
        except Exception as error:
            call.ignore(error)  # a mistake of the program
            raise
        return None if uri is None else cache.stock.own(Asked("GET", uri, partition=partition))

    def solo(self, asked: Asked, entry: Entry | None) -> bool:
        """Whether what is returned will be for this caller alone."""
        return False

    # -- the call -------------------------------------------------------------------------------------------------

    async def fetch(self, cache: CachedFallback, flight: Flight, branch: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Call the function, and let the flight land with what it returns."""
        runtime = branch.runtime
        began = runtime.now()
        try:
            value = await inner(branch)
        except BaseException as error:
            outcome = branch.outcome_of_error(error)
            if isinstance(error, Exception) and not (outcome.failed or isinstance(error, (ResilienceError, *cache.on))):
                await self._denied(cache, flight, branch, asked, found.entry, error, outcome)
                return
            cache.broke(flight, branch, asked, error)
            if not isinstance(error, Exception):
                raise
            return
        outcome = Outcome.SUCCESS if branch.plain else branch.outcome_of(value)
        flight.head = value
        try:
            kept = own_copy(value)
        except Exception as error:  # noqa: BLE001 - of the value's class; logged: its caller has the value all the same
            cache.tell("cannot be copied, and is for its own caller alone", error)
            flight.for_all = False
        if branch.degraded is not None or (outcome.failed and not branch.late):
            branch.owner.close(branch, outcome, None)
            cache.failed(flight, branch, asked, value, None, outcome)
            return
        cache.recovered(asked)
        if not flight.for_all:
            if not flight.land(PASSED):
                await self.let_go(branch, value)
            return
        branch.owner.close(branch, outcome, None)
        await self._keep(cache, flight, asked, found, kept, runtime.now() - began, runtime)

    async def _denied(
        self, cache: CachedFallback, flight: Flight, branch: Call, asked: Asked, entry: Entry | None, error: Exception, outcome: Outcome
    ) -> None:
        """It has raised what is no failure: nothing that is stored may stand in for that."""
        branch.owner.close(branch, outcome, error)
        flight.error, flight.outcome = error, outcome
        if outcome is Outcome.SUCCESS:  # it is an answer, so that the one before is right no more
            cache.recovered(asked)
            await cache.stock.drop(asked, entry, branch.runtime)
        flight.land(FAILED)

    async def _keep(self, cache: CachedFallback, flight: Flight, asked: Asked, found: Found, kept: Any, took: float, runtime: Any) -> None:
        rules, lasting = cache.rules, cache.store.blocking
        size = cache.size_to_keep(kept)
        ttl = cache.ttl * (1.0 - rules.jitter * random.random())
        entry = Entry.of_value(
            kept, ttl=ttl, stale_if_error=rules.stale_if_error, stale_while_revalidate=rules.stale_while_revalidate,
            now=runtime.now(), wall=time.time(), took=took, size=size or 0,
        )  # fmt: skip
        flight.entry = entry
        flight.kept = size is not None and not flight.doomed and ttl + rules.max_stale > 0
        if lasting:  # nobody waits for a store on a disk or a network
            flight.background = True
            flight.land(SHARED)
        if flight.kept:
            await cache.stock.keep(asked, found, entry, ttl + rules.max_stale, runtime)
        flight.land(SHARED)

    async def let_go(self, branch: Call, head: Any) -> None:
        """Give back what is held for a value that nobody will get."""
        branch.lost = True
        branch.settle(0, Outcome.IGNORED, None)
        branch.owner.outbox.flush()

    def drop(self, branch: Call) -> None:
        """The same where nothing can be awaited any more."""
        branch.lost = True
        branch.settle(0, Outcome.IGNORED, None)

    # -- its value ------------------------------------------------------------------------------------------------

    async def readable(self, call: Call, flight: Flight) -> bool:
        """Whether what came can be had by somebody who has waited for it."""
        return flight.entry is not None

    def received(self, call: Call, asked: Asked, flight: Flight, found: Found, *, collapsed: bool) -> Any:
        """What was returned, for one of those who asked."""
        flight.leave()
        entry = flight.entry
        return flight.head if entry is None or not collapsed else own_copy(entry.value)

    def answer(self, call: Call, asked: Asked, entry: Entry, **told: Any) -> Any:
        """What is stored."""
        return own_copy(entry.value)

    def nothing(self, call: Call) -> Any:
        """What is returned to a call that wants a stored value alone; there is none of a function."""
        raise LookupError("no value is stored")

    def status_of(self, flight: Flight) -> int:
        """As a gateway would say it."""
        return 500

    def shareable_failure(self, flight: Flight) -> bool:
        """Whether a value that is a failure is one for everybody who has waited."""
        return flight.for_all

    def failed(self, cache: Any, call: Call, asked: Asked, flight: Flight, *, first: bool) -> Any:
        """A value that is a failure, or that a fallback further in has put in the place of one."""
        cause = flight.fetching.degraded
        if cause is not None:
            call.degraded = cause
            record, name = RECORD.get(), call.owner.name
            if record is not None:
                record.add(name or "pipeline", Level.STATIC, cause, dependency=name, own=True)
        return flight.head if first else own_copy(flight.head)


FUNCTIONS = FunctionCaching()
