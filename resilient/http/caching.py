"""How a cache deals with HTTP: what is asked for, how an answer is fetched for several, and how it is handed out."""

from __future__ import annotations

import math
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

from ..core.asked import Asked
from ..core.caching import tells_all, why_not_shared
from ..core.entry import Entry
from ..core.invalidation import invalidated_by
from ..core.validation import answer_to, conditions
from ..policies.flight import FAILED, Flight
from ..policies.serving import SAFE
from .fetching import fetch, let_go, settle_lost
from .heads import member_of, shared_extensions
from .hops import HOPS

if TYPE_CHECKING:
    from ..policies.cache import Cache
    from ..policies.stock import Found
    from ..protocols import Inner
    from .request import HttpCall

__all__ = ["HttpCaching"]


class HttpCaching:
    """The side of a cache that knows requests and responses of the client libraries."""

    # -- before ---------------------------------------------------------------------------------------------------

    def ask(self, call: HttpCall, cache: Cache) -> Asked | None:
        """What is asked for; None for a request that no cache has anything to do with."""
        request = call.request
        url, method = request.url, request.method
        reading = method in SAFE
        if reading and (call.uncached or (getattr(request, "_content", None) != b"" and _has_body(request, call.library.module))):
            return None  # a write makes it forget all the same; a body may change what is answered
        partition = call.partition if cache.partition is None else cache.partition(request)
        uri = f"{url.scheme}://{url.netloc.decode('ascii')}{url.raw_path.decode('ascii')}"
        asked = Asked(method, uri, request.headers.raw, partition=partition, identity=cache.identity)
        if asked.ordinary:
            return asked
        return None if reading and (asked.upgrades or asked.no_store) else cache.stock.own(asked)

    def solo(self, asked: Asked, entry: Entry | None) -> bool:
        """Whether what is answered will be for this caller alone: his own conditions or range, or no body."""
        if asked.plain:
            return asked.method == "HEAD"
        return asked.method == "HEAD" or asked.ranged or (asked.conditional and (entry is None or not conditions(entry)))

    # -- the fetch ------------------------------------------------------------------------------------------------

    def fetch(self, cache: Cache, flight: Flight, branch: HttpCall, inner: Inner, asked: Asked, found: Found) -> Coroutine[Any, Any, None]:
        """Ask the origin, and let the flight land with what it says."""
        validating = found.entry is not None and not self.solo(asked, found.entry)
        return fetch(cache, flight, branch, inner, asked, found, validating=validating)

    async def let_go(self, branch: HttpCall, head: Any) -> None:
        """Close an answer that nobody will read."""
        await let_go(branch, head)

    def drop(self, branch: HttpCall) -> None:
        """The same where nothing can be awaited any more: its stream goes with the event loop."""
        settle_lost(branch)

    # -- after ----------------------------------------------------------------------------------------------------

    def written(self, asked: Asked, response: Any) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The URIs and groups that are to be forgotten after a request that may change something."""
        return invalidated_by(asked.method, response.status_code, asked.uri, response.headers.raw)

    async def readable(self, call: HttpCall, flight: Flight) -> bool:
        """Whether an answer that is coming in can be read by somebody who has waited for it."""
        tape = flight.tape
        if not flight.for_all:
            return False
        if tape is None:
            return True
        if flight.length is None and not await tape.settled(call.runtime, call.deadline):
            return False
        return not tape.spilled and tape.error is None

    def received(self, call: HttpCall, asked: Asked, flight: Flight, found: Found, *, collapsed: bool) -> Any:
        """The answer that a flight has brought, for one of its callers."""
        forward = "stale" if found.entry is not None else "vary-miss" if found.varied else "uri-miss"
        status = "; fwd-status=304" if flight.validated else ""
        member = f"fwd={forward}{status}" + ("; collapsed" if collapsed else "") + ("; stored" if flight.kept else "")
        entry, head, tape, library = flight.entry, flight.head, flight.tape, call.library
        body, reading = flight.body, None
        if tape is not None:
            reading = flight.take_reading()
            if tape.done and not tape.spilled:
                body = tape.body()
        if entry is not None and ((tape is None and body is None) or (not asked.plain and _decided(asked, entry))):
            _put_back(flight, reading)
            return self._answer(call, asked, entry, member, entry.age(call.runtime.now()))
        if call.timeout is None and flight.fetching is not None and head.status_code in HOPS:
            # What follows a redirect has what is left of the time for all of it.
            call.lower(call.started + (flight.fetching.deadline - flight.fetching.started), "total")
        member = f"{member_of(call.owner.name)}; {member}"
        if body is not None:
            stream = library.module.ByteStream(body)
            if collapsed:
                answer = library.heads.passed(head, member, stream, relayed=flight.relayed)
                _put_back(flight, reading)  # not before: the first caller may be about to take the head itself
                return answer
            _put_back(flight, reading)
            return library.heads.passed(head, member, stream, relayed=flight.relayed, alone=flight.forsaken)
        if reading is None:  # more came than was announced, faster than one of many could begin to read
            flight.leave()
            raise library.module.ReadError("the answer is longer than it said")
        stream = (library.sync_taped if call.sync else library.async_taped)(reading, call)
        return library.heads.passed(head, member, stream, relayed=flight.relayed)

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
        age = entry.age(call.runtime.now())
        ttl = entry.lifetime - age
        if not detail:
            return self._answer(call, asked, entry, f"hit; ttl={math.floor(ttl)}", age)
        member = "hit" if hit else f"fwd=stale; fwd-status={status}"
        response = self._answer(call, asked, entry, f"{member}; ttl={math.floor(ttl)}; detail={detail}", age)
        response.extensions["degraded"] = {"dependency": call.owner.name, "cause": call.degraded, "stale_for": max(-ttl, 0.0)}
        return response

    def _answer(self, call: HttpCall, asked: Asked, entry: Entry, member: str, age: float) -> Any:
        status, fields, body = entry.status, entry.fields, entry.body
        if not asked.plain and (asked.conditional or asked.ranged):
            own = answer_to(asked, entry)
            if own is not None:
                status, fields, body = own
        if asked.method == "HEAD":
            body = b""
        return call.library.heads.response(status, fields, int(age), f"{member_of(call.owner.name)}; {member}", body)

    def nothing(self, call: HttpCall) -> Any:
        """The answer to a request that wanted a stored one alone (RFC 9111 section 5.2.1.7)."""
        member = f"{member_of(call.owner.name)}; fwd=miss; detail=only-if-cached"
        return call.library.module.Response(
            504, headers=[(b"Cache-Status", member.encode("ascii"))], stream=call.library.module.ByteStream(b"")
        )

    def status_of(self, flight: Flight) -> int:
        """The status of a failed answer, or the one that a gateway would have sent for an error."""
        if flight.error is None:
            return int(flight.head.status_code)
        return 504 if isinstance(flight.error, TimeoutError) or "Timeout" in type(flight.error).__name__ else 502

    def shareable_failure(self, flight: Flight) -> bool:
        """Whether everybody who has waited may be told of a failed answer; `failed` knows how much of it."""
        return tells_all(flight.head.status_code)

    def failed(self, cache: Cache, call: HttpCall, asked: Asked, flight: Flight, *, first: bool) -> Any:
        """A failed answer, for one of the callers who waited for a better one.

        Where the body is not for him (it is private, say, or too long to be kept), he gets the status and an empty one: if each
        asked for himself, an outage would be answered by all of them at once.
        """
        head, module = flight.head, call.library.module
        if first:
            return head
        fields = head.headers.raw
        if flight.landing is FAILED and why_not_shared(asked, head.status_code, fields, cache.rules) is None:
            return module.Response(head.status_code, headers=fields, stream=head.stream, extensions=shared_extensions(head))
        member = f"{member_of(call.owner.name)}; fwd=miss; fwd-status={head.status_code}; collapsed; detail=failure-alone"
        own = [(name, value) for name, value in fields if name.lower() == b"retry-after"]
        own += [(b"Cache-Control", b"no-store"), (b"Content-Length", b"0"), (b"Cache-Status", member.encode("ascii"))]
        return module.Response(head.status_code, headers=own, stream=module.ByteStream(b""))


def _has_body(request: Any, module: Any) -> bool:
    content = getattr(request, "_content", None)
    if content is not None:
        return bool(content != b"")
    # A redirect goes on with the stream of the request before it.
    return not isinstance(request.stream, module.ByteStream) or "content-length" in request.headers


def _put_back(flight: Flight, reading: Any) -> None:
    """Nobody reads what is on its way."""
    if reading is None:
        flight.leave()
    else:
        reading.close()


def _decided(asked: Asked, entry: Entry) -> bool:
    """Whether a caller's own condition is answered by what came, without its body."""
    return asked.conditional and (own := answer_to(asked, entry)) is not None and own[0] == 304
