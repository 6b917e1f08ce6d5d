"""The fetch that a cache makes for everybody who asks: validation, failures, and the body on its way to the store."""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any

import anyio

from ..core.asked import Asked
from ..core.caching import tells_all, why_not_shared, why_not_stored
from ..core.entry import Entry
from ..core.freshness import FRESH, REFRESH, look, outlasts, seconds_of_use, usable_on_error
from ..core.head import Head
from ..core.outcome import Outcome
from ..core.validation import conditions, freshened, updated_by_head
from ..policies.flight import PASSED, SHARED, Flight
from .intake import Intake
from .response import DRAIN_BYTES, close_stream

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..policies.serving import Serving
    from ..policies.stock import Found
    from ..protocols import Inner
    from .request import HttpCall

__all__ = ["Fetched", "fetch", "let_go", "settle_lost"]

# Answers that say nothing of what is asked for, but of how or how often it was.
ABOUT_REQUEST = frozenset({206, 304, 400, 408, 412, 413, 414, 416, 417, 421, 425, 426, 428, 429, 431})
CONDITIONAL = ("if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range")


async def fetch(cache: Serving, flight: Flight, branch: HttpCall, inner: Inner, asked: Asked, found: Found, *, validating: bool) -> None:
    """Ask the origin, and let the flight land with what it says.

    Args:
        cache: on whose behalf.
        flight: who waits for it.
        branch: the call to make.
        inner: what makes it.
        asked: the request.
        found: what is stored.
        validating: whether to ask for no more than whether that still holds.
    """
    entry = found.entry
    own = conditions(entry) if validating and entry is not None else ()
    request = branch.request
    fetched = None
    try:
        while True:
            if own:
                branch.request = _with_conditions(request, own)
            requested_at = time.time()
            response = await inner(branch)
            if branch.response is not None and branch.response is not response:
                await _drop(branch)
            branch.request = request
            fetched = Fetched(cache, flight, branch, asked, found, response, requested_at)
            if not (own and response.status_code == 304):
                break
            if await fetched.validated():
                return
            own, fetched = (), None  # it is for another answer than the one that is stored
        await fetched.landed()
    except BaseException as error:
        # Its traceback begins with this frame, which knows the flight, which knows the error.
        error.__traceback__ = error.__traceback__ and error.__traceback__.tb_next
        if fetched is not None and fetched.closed:
            raise
        cache.broke(flight, branch, asked, error)
        if branch.response is not None:
            await _drop(branch)
        if not isinstance(error, Exception):
            raise


async def let_go(branch: HttpCall, head: Any) -> None:
    """Close an answer that nobody will read."""
    try:
        await branch.abandon(head)
    finally:
        settle_lost(branch)


def settle_lost(branch: HttpCall) -> None:
    """Give back what is held for an answer that nobody will read."""
    branch.lost = True
    branch.settle(0, Outcome.IGNORED, None)
    branch.owner.outbox.flush()


class Fetched:
    """An answer of the origin that has begun, and what becomes of it."""

    __slots__ = ("asked", "branch", "cache", "closed", "flight", "found", "head", "received_at", "requested_at", "response")

    def __init__(
        self, cache: Serving, flight: Flight, branch: HttpCall, asked: Asked, found: Found, response: Any, requested_at: float
    ) -> None:
        self.cache = cache
        self.flight = flight
        self.branch = branch
        self.asked = asked
        self.found = found
        self.response = response
        self.head = Head(response.headers.raw)
        self.requested_at = requested_at
        self.received_at = time.time()
        self.closed = False  # whether the call that was made is settled and counted, or will be with the body

    def _close(self, outcome: Outcome) -> None:
        self.closed = True
        self.branch.owner.close(self.branch, outcome, None)

    def _updated(self, update: Callable[..., Entry | None], entry: Entry, now: float) -> Entry | None:
        """A stored entry with what this answer says of it, or None if it says that it is another one."""
        return update(
            entry,
            self.head,
            requested_at=self.requested_at,
            received_at=self.received_at,
            now=now,
            rules=self.cache.rules,
            asked=self.asked,
        )

    async def validated(self) -> bool:
        """A 304 to our own conditions. False if it is for another answer than the one that is stored."""
        branch, flight, now = self.branch, self.flight, self.branch.runtime.now()
        entry: Any = self.found.entry
        await branch.discard(self.response)
        branch.response = None
        fresh = self._updated(freshened, entry, now)
        if fresh is None:
            branch.settle(0, Outcome.SUCCESS, None)
            return False
        self._close(Outcome.SUCCESS)
        self.cache.recovered(self.asked)
        flight.entry, flight.validated = fresh, True
        flight.groups = fresh.groups
        if not flight.doomed:
            await self.keep(fresh)
        flight.land(SHARED)
        return True

    async def landed(self) -> None:
        """Any other answer."""
        cache, asked, response, found = self.cache, self.asked, self.response, self.found
        flights: Any = cache.flights
        status, rules = response.status_code, cache.rules
        if self.branch.degraded is not None:
            why: str | None = "degraded"  # a fallback's, inside of the cache: not the dependency's answer
        elif flights.crowded:
            why = "busy"
        else:
            why = why_not_stored(asked, status, self.head, rules, received_at=self.received_at)
        if status in rules.stale_statuses:
            entry, now = found.entry, self.branch.runtime.now()
            # Kept for all, it would stand before what was answered to other fields, or to other callers, as well.
            if found.varied or found.foreign or (entry is not None and outlasts(entry, status, now, rules)):
                why = why or "outlasted"
            if why and await self._failure(covered=entry is not None and usable_on_error(entry, asked, now, rules) is not None):
                return
        else:
            cache.recovered(asked)
        length = self.head.length
        if why or (length is not None and length > cache.max_body):
            await self._pass_on()
        else:
            await self._take_in(length)

    async def _failure(self, *, covered: bool) -> bool:
        """An answer that is a failure. False if it is too long to be kept: then everybody is told of it, and one has it."""
        branch, response = self.branch, self.response
        length = self.head.length
        outcome = branch.outcome_of(response)
        if not covered and (length is None or length > DRAIN_BYTES) and not response.is_closed:
            if tells_all(response.status_code):
                self.flight.cause, self.flight.outcome = branch.degraded or branch.cause_of(response, None), outcome
            return False
        kept = await branch.keep(response)
        branch.response = None
        self._close(outcome)
        error = None if kept else branch.failure_of(response)
        self.cache.failed(self.flight, branch, self.asked, response if kept else None, error, outcome)
        return True

    async def _pass_on(self) -> None:
        """The first caller gets it as it is."""
        flight, entry = self.flight, self.found.entry
        if self.asked.method == "HEAD" and entry is not None and self.response.status_code == 200:
            updated = self._updated(updated_by_head, entry, self.branch.runtime.now())
            if updated is not None:
                await self.keep(updated)
        elif entry is not None and self._replaces():
            await self.cache.stock.drop(self.asked, entry, self.branch.runtime)
        flight.head = self.response
        if not flight.land(PASSED):
            with anyio.CancelScope(shield=True):
                await let_go(self.branch, self.response)

    def _replaces(self) -> bool:
        """Whether an answer that is not kept says that the stored one is no longer right: it is news, not an outage."""
        status, asked = self.response.status_code, self.asked
        plain = not (asked.conditional or asked.ranged) and self.branch.degraded is None
        return plain and 200 <= status < 500 and status not in ABOUT_REQUEST and status not in self.cache.rules.stale_statuses

    async def _take_in(self, length: int | None) -> None:
        """Read it for everybody."""
        cache, flight, branch, now = self.cache, self.flight, self.branch, self.branch.runtime.now()
        entry = Entry.made(
            self.asked, self.response.status_code, self.head, b"",
            requested_at=self.requested_at, received_at=self.received_at, now=now, rules=cache.rules, chance=random.random(),
        )  # fmt: skip
        flight.entry, flight.head, flight.length, flight.groups = entry, self.response, length, entry.groups
        flight.relayed = b"cache-status" in self.head.values
        intake = Intake(self, entry, length)
        self.closed = True
        # What may be kept and is fresh may be shared, but for what is no good answer.
        if entry.lifetime <= entry.initial_age or entry.needs_validation or entry.status >= 400 or not self.asked.plain:
            self._share(entry, now)
        await (intake.read_here() if branch.runtime.sync else intake.read())

    def _share(self, entry: Entry, now: float) -> None:
        """Have as many served from it as may be."""
        use = look(entry, self.asked, now, self.cache.rules)
        if not ((use is FRESH and entry.status < 400) or self._for_all()):
            self.flight.keep_to_owner()
        elif use is not FRESH and use is not REFRESH:
            # It took longer to come than it is fresh for. Whoever waits had asked before it was made; nobody else gets it.
            self.flight.close()

    def _for_all(self) -> bool:
        return why_not_shared(self.asked, self.response.status_code, self.head, self.cache.rules, received_at=self.received_at) is None

    async def keep(self, entry: Entry) -> None:
        cache = self.cache
        rules = cache.rules
        runtime = self.branch.runtime
        await cache.stock.keep(self.asked, self.found, entry, seconds_of_use(entry, runtime.now(), rules), runtime)


def _with_conditions(request: Any, own: tuple[tuple[bytes, bytes], ...]) -> Any:
    sent = object.__new__(type(request))
    sent.__dict__.update(request.__dict__)
    sent.headers = headers = request.headers.copy()
    for name in CONDITIONAL:
        if name in headers:
            del headers[name]
    for field, value in own:
        headers[field.decode("ascii")] = value.decode("latin-1")
    return sent


async def _drop(branch: HttpCall) -> None:
    response, branch.response = branch.response, None
    if branch.runtime.sync:
        await close_stream(response.stream, sync=True)
        return
    with anyio.CancelScope(shield=True):
        await close_stream(response.stream, sync=False)
