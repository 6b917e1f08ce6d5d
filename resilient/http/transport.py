"""The transports: find the dependency, run the request through its policies, hand out a guarded response."""

from __future__ import annotations

import asyncio
import logging
import math
import weakref
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import pybreaker

from ..body import Body
from ..core.deadline import clamp
from ..core.outcome import Outcome
from ..policies.pipeline import Pipeline
from ..protocols import Policy, Router
from ..runtime import cut_off, drive
from .abandoned import close_later
from .gate import Gate, Place
from .hops import join_hops, remember_hop
from .inner import build_inner, pool_size
from .isolation import on_asyncio, run_isolated
from .request import HttpCall
from .response import falls_silent

if TYPE_CHECKING:
    from .library import Library

__all__ = ["AsyncEngine", "SyncEngine"]

logger = logging.getLogger("resilient")
OPERATIONS = ("connect", "read", "write", "pool")


class Engine:
    """What the async and the sync transport have in common."""

    _library: ClassVar[Library]
    _method: ClassVar[str]
    _base: ClassVar[str]

    def __init__(self, target: Any, inner: Any = None, *, max_connections: int | None = None, **options: Any) -> None:
        library = self._library
        self._route = _router(target)
        self._compared: weakref.WeakSet[Pipeline] = weakref.WeakSet()
        if inner is None:
            if max_connections is not None:
                raise TypeError("max_connections: tells the size of the pool of a given `inner`; here say limits=")
            inner = build_inner(library, self._base, options)
            max_connections = pool_size(library, options)
        else:
            if options:
                raise TypeError(f"{', '.join(sorted(options))}: these options build the inner transport, and `inner` was given")
            library.check_transport(inner, self._method, self._base)
        self._inner = inner
        self._gate = Gate(max_connections) if max_connections is not None and library.pool_breaks else None

    def _begin(self, request: Any, send: Callable[..., Any], *, sync: bool) -> HttpCall | None:
        """The call for a request, or None where everything is switched off."""
        self._library.check(request)
        dependency = self._route(request.url)
        if not dependency.enabled:
            return None
        call = HttpCall(dependency, dependency.sync_runtime if sync else dependency.runtime, self._library, request, send)
        join_hops(call)
        return call

    def _finish(self, call: HttpCall, response: Any) -> Body:
        """What holds the call's permits from here on."""
        remember_hop(call, response)
        silent = falls_silent(response)
        if call.timeouts is not None:
            # Both libraries look the read timeout up again when the body's reading begins.
            read = call.own_timeouts.get("read")
            limit = call.timeout.chunk_limit(first=False, silent=silent) if call.timeout is not None else math.inf
            call.timeouts["read"] = read if limit == math.inf else clamp(read, limit)
        return Body(call, call.outcome_of(response), silent=silent)

    def _prepare(self, call: HttpCall) -> Callable[[], None]:
        """Put the time that is left, and the probe, on the request. Returns what puts the request back as it was."""
        request = call.request
        extensions, stream = request.extensions, request.stream
        remaining = call.attempt_deadline - call.runtime.now()
        if remaining != math.inf:
            call.own_timeouts = extensions.get("timeout") or {}
            call.timeouts = {name: clamp(call.own_timeouts.get(name), remaining) for name in OPERATIONS}
            request.extensions = {**extensions, "timeout": call.timeouts}
            self._compare(call)
        if call.paced or not call.repeatable:
            call.probe = request.stream = self._library.probe(stream, call, paced=call.paced)

        def restore() -> None:
            # The client keeps the request: on the response, and as the pattern for the next hop of a redirect.
            request.extensions, request.stream = extensions, stream

        return restore

    def _compare(self, call: HttpCall) -> None:
        read, owner = call.own_timeouts.get("read"), call.owner
        if call.timeout is not None and read is not None and read > call.timeout.total and owner not in self._compared:
            self._compared.add(owner)
            logger.info(
                "%s: the client's read timeout of %g s is longer than the total of %g s; the shorter one holds",
                owner.name,
                read,
                call.timeout.total,
            )

    def _timed_out(self, call: HttpCall, error: Exception) -> BaseException:
        """A per-operation timeout of the library that was really our deadline, clamped, is told as ours."""
        now = call.runtime.now()
        if now < call.attempt_deadline - 0.001:
            return error
        if isinstance(error, self._library.module.PoolTimeout):
            return call.cut(
                "the deadline came while waiting for a connection", policy="pool", reason=call.attempt_reason, outcome=Outcome.IGNORED
            )
        return cut_off(call, now)


class AsyncEngine(Engine):
    """`handle_async_request` through policies; bound to a library by inheriting its AsyncBaseTransport as well."""

    _method = "handle_async_request"
    _base = "AsyncBaseTransport"

    def __init__(self, target: Any, inner: Any = None, *, max_connections: int | None = None, **options: Any) -> None:
        super().__init__(target, inner, max_connections=max_connections, **options)
        library = self._library
        self._isolated = library.pool_breaks and (inner is None or isinstance(inner, library.module.AsyncHTTPTransport))

    async def handle_async_request(self, request: Any) -> Any:
        call = self._begin(request, self._send, sync=False)
        if call is None:
            return await self._inner.handle_async_request(request)
        response = await call.owner.open(call)
        response.stream = self._library.async_guard(response.stream, self._finish(call, response))
        return response

    async def _send(self, call: HttpCall) -> Any:
        isolated = self._isolated and on_asyncio()
        place = None if self._gate is None else await self._gate.enter(call)
        restore = self._prepare(call)
        try:
            if isolated:
                response = await run_isolated(
                    lambda: self._inner.handle_async_request(call.request), leftover=lambda late: self._clear(late, place)
                )
            else:
                response = await self._inner.handle_async_request(call.request)
        except BaseException as error:
            # An isolated exchange that its caller left goes on for a moment; it gives the place back itself.
            if place is not None and not (isolated and isinstance(error, asyncio.CancelledError)):
                place.leave()
            if isinstance(error, self._library.module.TimeoutException):
                ours = self._timed_out(call, error)
                if ours is not error:
                    raise ours from error
            raise
        finally:
            restore()
        if place is not None:
            response.stream = self._library.async_wire(response.stream, place, isolated)
        return response

    def _clear(self, late: Any, place: Place | None) -> None:
        """An isolated exchange ended after its caller had left."""
        if late is not None:
            stream = late.stream if place is None else self._library.async_wire(late.stream, place, False)
            close_later(stream)
        elif place is not None:
            place.leave()

    async def aclose(self) -> None:
        await self._inner.aclose()


class SyncEngine(Engine):
    """`handle_request` through the same policies, on the calling thread; bound by inheriting BaseTransport as well."""

    _method = "handle_request"
    _base = "BaseTransport"

    def handle_request(self, request: Any) -> Any:
        call = self._begin(request, self._send, sync=True)
        if call is None:
            return self._inner.handle_request(request)
        response = drive(call.owner.open(call))
        response.stream = self._library.sync_guard(response.stream, self._finish(call, response))
        return response

    def _send(self, call: HttpCall) -> Any:
        place = None if self._gate is None else drive(self._gate.enter(call))
        restore = self._prepare(call)
        try:
            response = self._inner.handle_request(call.request)
        except BaseException as error:
            if place is not None:
                place.leave()
            if isinstance(error, self._library.module.TimeoutException):
                ours = self._timed_out(call, error)
                if ours is not error:
                    raise ours from error
            raise
        finally:
            restore()
        if place is not None:
            response.stream = self._library.sync_wire(response.stream, place)
        return response

    def close(self) -> None:
        self._inner.close()


def _router(target: Any) -> Callable[[Any], Pipeline]:
    if isinstance(target, Pipeline):
        return lambda url: target
    if isinstance(target, Router):
        return target.route
    if isinstance(target, Policy | pybreaker.CircuitBreaker) and not isinstance(target, type):
        pipeline = Pipeline(target)
        return lambda url: pipeline
    raise TypeError(f"target: expected a Resilience, a Dependency, a Pipeline or a policy, got {target!r}")
