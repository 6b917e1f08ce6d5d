"""How a cache deals with HTTP: what is asked for, how an answer is fetched for several, and how it is handed out."""

from __future__ import annotations

import math
import random
import re
import time
from typing import TYPE_CHECKING, Any

import anyio

from ..body import Body
from ..core.asked import Asked
from ..core.caching import why_not_shared, why_not_stored
from ..core.entry import Entry
from ..core.freshness import Use, look, outlasts, seconds_of_use
from ..core.head import Head
from ..core.invalidation import invalidated_by
from ..core.outcome import Outcome
from ..core.validation import answer_to, conditions, freshened, updated_by_head
from ..policies.flight import Flight, Landing, copied
from ..tape import Tape
from .response import DRAIN_BYTES, close_stream
from .response import look as look_at_head
from .taped import tee

if TYPE_CHECKING:
    from ..policies.cache import Cache
    from ..policies.stock import Found
    from ..protocols import Inner
    from .request import HttpCall

__all__ = ["HttpCaching"]

READ_ONLY = frozenset({"GET", "HEAD"})
CONDITIONAL = ("if-none-match", "if-modified-since", "if-match", "if-unmodified-since", "if-range")
TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
UNSHARED = frozenset({"network_stream"})  # of a response: what belongs to its connection


class HttpCaching:
    """The side of a cache that knows requests and responses of the client libraries."""

    # -- before ---------------------------------------------------------------------------------------------------

    def ask(self, call: HttpCall, cache: Cache) -> Asked | None:
        """What is asked for; None for a request that no cache has anything to do with."""
        request = call.request
        if call.uncached:
            return None
        url, method = request.url, request.method
        if method in READ_ONLY and (getattr(request, "_content", None) != b"" or "upgrade" in request.headers):
            return None  # a body may change what is answered
        partition = call.partition if cache.partition is None else cache.partition(request)
        uri = f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"
        asked = Asked.of(method, uri, request.headers.raw, partition=partition, identity=cache.identity)
        return None if asked.no_store and method in READ_ONLY else cache.stock.own(asked)

    def solo(self, asked: Asked, entry: Entry | None) -> bool:
        """Whether what is answered will be for this caller alone: his own conditions or range, or no body."""
        return asked.method == "HEAD" or asked.ranged or (asked.conditional and (entry is None or not conditions(entry)))

    # -- the fetch ------------------------------------------------------------------------------------------------

    async def fetch(self, cache: Cache, flight: Flight, branch: HttpCall, inner: Inner, asked: Asked, found: Found) -> None:
        """Ask the origin, and let the flight land with what it says."""
        entry = found.entry
        own = () if entry is None or self.solo(asked, entry) else conditions(entry)
        request = branch.request
        while True:
            if own:
                branch.request = _with_conditions(request, own)
            requested_at = time.time()
            try:
                response = await inner(branch)
                if branch.response is not None and branch.response is not response:
                    await _drop(branch)
            except BaseException as error:
                await self._broke(cache, flight, branch, asked, error)
                if not isinstance(error, Exception):
                    raise
                return
            branch.request = request
            fetched = _Fetched(cache, flight, branch, asked, found, response, requested_at)
            if not (own and response.status_code == 304):
                break
            if await fetched.validated():
                return
            own = ()  # it is for another answer than the one that is stored
        await fetched.landed()

    async def _broke(self, cache: Cache, flight: Flight, branch: HttpCall, asked: Asked, error: BaseException) -> None:
        cache.broke(flight, branch, asked, error)
        if branch.response is not None:
            await _drop(branch)

    async def let_go(self, branch: HttpCall, head: Any) -> None:
        """Close an answer that nobody will read."""
        branch.lost = True
        try:
            await branch.abandon(head)
        finally:
            branch.settle(0, Outcome.IGNORED, None)
            branch.owner.outbox.flush()

    # -- after ----------------------------------------------------------------------------------------------------

    def written(self, asked: Asked, response: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The URIs and groups that are to be forgotten after a request that may change something."""
        return invalidated_by(asked.method, response.status_code, asked.uri, response.headers.raw)

    async def readable(self, call: HttpCall, flight: Flight) -> bool:
        """Whether an answer that is coming in can be read by somebody who has waited for it."""
        tape = flight.tape
        if not flight.for_all:
            return False
        if tape is None or tape.done:
            return True
        if flight.length is None and not await tape.settled(call.runtime, call.deadline):
            return False
        return tape.done or not (tape.spilled or tape.error is not None)

    def received(self, call: HttpCall, asked: Asked, flight: Flight, found: Found, *, collapsed: bool) -> Any:
        """The answer that a flight has brought, for one of its callers."""
        forward = "stale" if found.entry is not None else "vary-miss" if found.varied else "uri-miss"
        status = "; fwd-status=304" if flight.validated else ""
        member = f"fwd={forward}{status}" + ("; collapsed" if collapsed else "") + ("; stored" if flight.kept else "")
        entry, head, library = flight.entry, flight.head, call.library
        reading = flight.take_reading()
        if flight.validated or _decided(asked, entry):
            _put_back(flight, reading)
            return self._answer(call, asked, entry, member)
        fields = [*head.headers.raw, (b"Cache-Status", _name(call) + b"; " + member.encode())]
        if flight.tape.done and not flight.tape.spilled:
            _put_back(flight, reading)
            stream = library.module.ByteStream(flight.tape.body())
        else:
            stream = (library.sync_taped if call.sync else library.async_taped)(reading, call.runtime)
        return library.module.Response(head.status_code, headers=fields, stream=stream, extensions=_shared_extensions(head))

    def answer(self, call: HttpCall, asked: Asked, entry: Entry, *, hit: bool, status: int | None = None, detail: str = "") -> Any:
        """What is stored, as an answer.

        Args:
            call: whose answer it is.
            asked: what was asked.
            entry: what is served.
            hit: whether the origin was not asked.
            status: what it answered, or would have.
            detail: what permits to serve it stale.
        """
        member = "hit" if hit else f"fwd=stale; fwd-status={status}"
        now = call.runtime.now()
        member += f"; ttl={math.floor(entry.ttl(now))}" + (f"; detail={detail}" if detail else "")
        response = self._answer(call, asked, entry, member)
        if detail:
            stale_for = max(-entry.ttl(now), 0.0)
            response.extensions["degraded"] = {"dependency": call.owner.name, "cause": call.degraded, "stale_for": stale_for}
        return response

    def _answer(self, call: HttpCall, asked: Asked, entry: Entry, member: str) -> Any:
        status, fields, body = entry.status, entry.fields, entry.body
        if asked.conditional or asked.ranged:
            own = answer_to(asked, entry)
            if own is not None:
                status, fields, body = own
        age = b"%d" % entry.age(call.runtime.now())
        raw = [*fields, (b"Age", age), (b"Cache-Status", _name(call) + b"; " + member.encode())]
        module = call.library.module
        stream = module.ByteStream(b"" if asked.method == "HEAD" else body)
        return module.Response(status, headers=raw, stream=stream, extensions={"http_version": b"HTTP/1.1"})

    def nothing(self, call: HttpCall) -> Any:
        """The answer to a request that wanted a stored one alone (RFC 9111 section 5.2.1.7)."""
        member = _name(call) + b"; fwd=miss; detail=only-if-cached"
        return call.library.module.Response(504, headers=[(b"Cache-Status", member)], content=b"")

    def status_of(self, flight: Flight) -> int:
        """The status of a failed answer, or the one that a gateway would have sent for an error."""
        if flight.error is None:
            return int(flight.head.status_code)
        return 504 if isinstance(flight.error, TimeoutError) or "Timeout" in type(flight.error).__name__ else 502

    def shareable_failure(self, cache: Cache, asked: Asked, flight: Flight) -> bool:
        head = flight.head
        return why_not_shared(asked, head.status_code, head.headers.raw, cache.rules) is None

    def failed(self, call: HttpCall, flight: Flight, *, first: bool) -> Any:
        """A failed answer, for one of the callers who waited for a better one."""
        head = flight.head
        if first:
            return head
        return call.library.module.Response(
            head.status_code, headers=head.headers.raw, stream=head.stream, extensions=_shared_extensions(head)
        )


class _Fetched:
    """An answer of the origin that has begun, and what becomes of it."""

    __slots__ = ("asked", "branch", "cache", "flight", "found", "head", "received_at", "requested_at", "response")

    def __init__(
        self, cache: Cache, flight: Flight, branch: HttpCall, asked: Asked, found: Found, response: Any, requested_at: float
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

    async def validated(self) -> bool:
        """A 304 to our own conditions. False if it is for another answer than the one that is stored."""
        branch, flight, now = self.branch, self.flight, self.branch.runtime.now()
        entry: Any = self.found.entry
        await branch.discard(self.response)
        branch.response = None
        fresh = freshened(
            entry, self.head, requested_at=self.requested_at, received_at=self.received_at, now=now, rules=self.cache.rules, asked=self.asked
        )
        if fresh is None:
            branch.settle(0, Outcome.SUCCESS, None)
            return False
        branch.owner.close(branch, Outcome.SUCCESS, None)
        self.cache.recovered(self.asked)
        flight.entry, flight.validated = fresh, True
        flight.groups = fresh.groups
        if not flight.doomed:
            await self._keep(fresh)
        flight.land(Landing.SHARED)
        return True

    async def landed(self) -> None:
        """Any other answer."""
        cache, asked, response, found = self.cache, self.asked, self.response, self.found
        status, rules = response.status_code, cache.rules
        why = "busy" if self.flight.crowded else why_not_stored(asked, status, self.head, rules, received_at=self.received_at)
        if status in rules.stale_statuses:
            covered = found.entry is not None and outlasts(found.entry, status, self.branch.runtime.now(), rules)
            if (why or covered) and await self._failure(covered=covered):
                return
        else:
            cache.recovered(asked)
        silent, length = look_at_head(response)
        if why or silent or (length is not None and length > cache.max_body) or asked.method == "HEAD":
            await self._pass_on()
        else:
            await self._take_in(length)

    async def _failure(self, *, covered: bool) -> bool:
        """An answer that is a failure. False if it is too long to be kept for everybody."""
        branch, response = self.branch, self.response
        _, length = look_at_head(response)
        if not covered and (length is None or length > DRAIN_BYTES) and not response.is_closed:
            return False
        outcome = branch.outcome_of(response)
        kept = await branch.keep(response)
        branch.response = None
        branch.owner.close(branch, outcome, None)
        error = None if kept else branch.failure_of(response)
        self.cache.failed(self.flight, branch, self.asked, response if kept else None, error, outcome)
        return True

    async def _pass_on(self) -> None:
        """The first caller gets it as it is."""
        flight, entry = self.flight, self.found.entry
        if self.asked.method == "HEAD" and entry is not None and self.response.status_code == 200:
            now = self.branch.runtime.now()
            updated = updated_by_head(
                entry, self.head, requested_at=self.requested_at, received_at=self.received_at, now=now, rules=self.cache.rules, asked=self.asked
            )
            if updated is not None:
                await self._keep(updated)
        flight.head = self.response
        if not flight.land(Landing.PASSED):
            with anyio.CancelScope(shield=True):
                await self.branch.caching.let_go(self.branch, self.response)

    async def _take_in(self, length: int | None) -> None:
        """Read it to a tape, for everybody."""
        cache, flight, branch, now = self.cache, self.flight, self.branch, self.branch.runtime.now()
        entry = Entry.made(
            self.asked, self.response.status_code, self.head, b"",
            requested_at=self.requested_at, received_at=self.received_at, now=now, rules=cache.rules, chance=random.random(),
        )  # fmt: skip
        flight.entry, flight.head, flight.length, flight.groups = entry, self.response, length, entry.groups
        size = cache.max_body if length is None else length
        flight.take_in(Tape(size, copied), size)
        body = Body(branch, branch.outcome_of(self.response))
        if branch.timed:
            branch.read_limit = body.read_limit
        branch.response = None
        if not (look(entry, self.asked, now, cache.rules) in (Use.FRESH, Use.REFRESH) and self._for_all()):
            flight.keep_to_owner()
        if branch.runtime.sync:
            await self._read_here(body, length)
        else:
            flight.land(Landing.SHARED)
            await self._read(body, length)

    def _for_all(self) -> bool:
        return why_not_shared(self.asked, self.response.status_code, self.head, self.cache.rules, received_at=self.received_at) is None

    async def _read(self, body: Body, length: int | None) -> None:
        tape, branch, stream = self.flight.tape, self.branch, self.response.stream
        guard = branch.library.async_guard(stream, body, length)
        try:
            async for chunk in guard:
                tape.write(chunk)
                if tape.spilled:
                    await tape.room(branch.runtime)
        except Exception as error:
            tape.fail(error)
        else:
            await self._complete(length)
        finally:
            with anyio.CancelScope(shield=True):
                await close_stream(guard, sync=False)

    async def _read_here(self, body: Body, length: int | None) -> None:
        """On the caller's own thread: at once where it is short, else as he reads it."""
        flight, branch = self.flight, self.branch
        guard = branch.library.sync_guard(self.response.stream, body, length)
        flow = tee(guard, flight.tape, lambda: self._complete(length))
        if length is None and not self.response.is_closed:
            flight.live = flow
        else:
            flow.read()
        flight.land(Landing.SHARED)

    async def _complete(self, length: int | None) -> None:
        """The body has come to its end: it is kept if it is all there."""
        flight, tape, entry = self.flight, self.flight.tape, self.flight.entry
        if tape.spilled or (length is not None and tape.size != length and self.asked.method != "HEAD"):
            tape.end()
            return
        entry.body = tape.body()
        entry.size += tape.size
        if self.cache.store.blocking:
            tape.end()  # nobody waits for a store on a network
        if not flight.doomed:
            await self._keep(entry)
        tape.end()

    async def _keep(self, entry: Entry) -> None:
        cache = self.cache
        rules = cache.rules
        runtime = self.branch.runtime
        await cache.stock.keep(self.asked, self.found, entry, seconds_of_use(entry, runtime.now(), rules), runtime)


def _put_back(flight: Flight, reading: Any) -> None:
    """Nobody reads what is on its way."""
    if reading is None:
        flight.leave()
    else:
        reading.close()


def _decided(asked: Asked, entry: Entry | None) -> bool:
    """Whether a caller's own condition is answered by what came, without its body."""
    return entry is not None and asked.conditional and (own := answer_to(asked, entry)) is not None and own[0] == 304


def _with_conditions(request: Any, own: tuple[tuple[bytes, bytes], ...]) -> Any:
    sent = object.__new__(type(request))
    sent.__dict__.update(request.__dict__)
    sent.headers = headers = request.headers.copy()
    for name in CONDITIONAL:
        if name in headers:
            del headers[name]
    for name, value in own:
        headers[name.decode("ascii")] = value.decode("latin-1")
    return sent


def _shared_extensions(head: Any) -> dict[str, Any]:
    return {name: value for name, value in head.extensions.items() if name not in UNSHARED}


def _name(call: HttpCall) -> bytes:
    name = call.owner.name or "resilient"
    if not TOKEN.fullmatch(name):
        name = '"' + re.sub(r"[^ -~]", "?", name).replace("\\", "\\\\").replace('"', '\\"') + '"'
    return name.encode("ascii")


async def _drop(branch: HttpCall) -> None:
    response, branch.response = branch.response, None
    if branch.runtime.sync:
        await close_stream(response.stream, sync=True)
        return
    with anyio.CancelScope(shield=True):
        await close_stream(response.stream, sync=False)
