"""The transports: find the dependency, run the request through its policies, hand out a guarded response."""

from __future__ import annotations

import asyncio
import logging
import weakref
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, ClassVar, Self

import anyio
import pybreaker

from ..body import Body
from ..core.bounds import whole
from ..core.outcome import Outcome
from ..errors import ResilienceError
from ..policies.mistakes import warn_of_pool
from ..policies.pipeline import Pipeline
from ..protocols import Policy, Router
from ..runtime import cut_off, drive
from .abandoned import close_later
from .gate import Gate, Place
from .hops import HOPS, KEY, join_hops, remember_hop
from .inner import build_inner, pool_size, pool_size_of
from .isolation import on_asyncio, run_isolated
from .request import HttpCall
from .response import close_stream, look
from .wire import outgoing

if TYPE_CHECKING:
    from .library import Library

__all__ = ["AsyncEngine", "SyncEngine"]

logger = logging.getLogger("resilient")
IGNORED = Outcome.IGNORED


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
            self._pooled = True
        else:
            if options:
                raise TypeError(f"{', '.join(sorted(options))}: these options build the inner transport, and `inner` was given")
            library.check_transport(inner, self._method, self._base)
            self._pooled = library.has_pool(inner)
            if max_connections is None:
                max_connections = pool_size_of(inner) if self._pooled else None
            else:
                whole("max_connections", max_connections)
        if max_connections is not None:
            for pipeline in _known(target):
                warn_of_pool(pipeline.policies, max_connections, pipeline.name)
        self._inner = inner
        self._gate = Gate(max_connections) if max_connections is not None and library.pool_breaks else None

    def _begin(self, request: Any, send: Callable[..., Any], *, sync: bool) -> HttpCall | None:
        """The call for a request, or None where everything is switched off."""
        self._library.check(request)
        dependency = self._route(request.url)
        if dependency.routes:
            dependency = dependency.routed(request.method, request.url)
        if not dependency.enabled:
            return None
        runtime = dependency.sync_runtime if sync else dependency.runtime
        call = HttpCall(dependency, runtime, self._library, request, send, sync=sync, pooled=self._pooled)
        if KEY in request.extensions:
            join_hops(call)
        return call

    def _conclude(self, call: HttpCall, response: Any) -> tuple[Body, int | None]:
        """What holds the call's permits from here on, and the body's length where that is known and of use."""
        interim = response.status_code in HOPS and remember_hop(call, response)
        silent, length = (False, None) if call.timeout is None else look(response)
        body = Body(call, call.outcome_of(response), silent=silent, interim=interim)
        if call.timed:
            call.read_limit = body.read_limit
        call.response = None
        call.queues = False  # not every inner transport tells of more than its beginning
        return body, length

    def _look_again(self, call: HttpCall, error: BaseException) -> None:
        """Look whether a timer of the library was only quicker to see that our deadline had come.

        Raises:
            DeadlineExceeded: so it was.
        """
        # Raised here and kept in no variable: an error that a frame of its own traceback holds keeps them all alive.
        if call.is_timeout(error) and not isinstance(error, ResilienceError):
            now = call.runtime.now()
            if now >= call.attempt_deadline - 0.001:
                raise cut_off(call, now) from error

    def _compare(self, call: HttpCall) -> None:
        """Say once that the client waits longer than the policy lets it."""
        timeout, owner = call.timeout, call.owner
        own = call.request.extensions.get("timeout")
        read = own.get("read") if own else None
        if timeout is None or read is None or read <= timeout.total or owner in self._compared:
            return
        self._compared.add(owner)
        logger.info(
            "%s: the client's read timeout of %g s is longer than the total of %g s; the shorter one holds", owner.name, read, timeout.total
        )


class AsyncEngine(Engine):
    """`handle_async_request` through policies; bound to a library by inheriting its AsyncBaseTransport as well."""

    _method = "handle_async_request"
    _base = "AsyncBaseTransport"

    def __init__(self, target: Any, inner: Any = None, *, max_connections: int | None = None, **options: Any) -> None:
        super().__init__(target, inner, max_connections=max_connections, **options)
        self._isolated = self._library.pool_breaks and self._pooled

    async def handle_async_request(self, request: Any) -> Any:
        call = self._begin(request, self._send, sync=False)
        if call is None:
            return await self._inner.handle_async_request(request)
        try:
            response = await call.owner.open(call)
            if call.response is not response and call.response is not None:
                await self._drop(call)  # a policy answered with something else
            if call.elsewhere is not None and not call.held:
                if response.status_code in HOPS:
                    remember_hop(call, response)
                call.owner.close(call, IGNORED, None)
                return response  # nothing is held for it
            body, length = self._conclude(call, response)
        except BaseException as error:
            if call.held:
                call.owner.close(call, IGNORED, error)  # it had succeeded, so nobody has settled it
            if call.response is not None:
                await self._drop(call)
            raise
        if response.is_closed:
            body.end()  # it came with its body in memory, and nobody will read or close a stream
        else:
            response.stream = self._library.async_guard(response.stream, body, length)
        return response

    async def _drop(self, call: HttpCall) -> None:
        """Close the answer that is open and that nobody will read."""
        response, call.response = call.response, None
        with anyio.CancelScope(shield=True):
            await close_stream(response.stream, sync=False)

    async def _send(self, call: HttpCall) -> Any:
        if call.response is not None:
            await self._drop(call)  # a policy tries again without having read the last answer
        isolated = self._isolated and on_asyncio()
        place = None if self._gate is None else await self._gate.enter(call)
        try:
            request = outgoing(call)
            if call.timeout is not None:
                self._compare(call)
            if isolated:
                response = await run_isolated(lambda: self._exchange(call, request), leftover=lambda late: self._clear(late, place))
            else:
                sent = self._inner.handle_async_request(request)
                response = await (sent if call.probe is None else call.probe.until(sent))
            self._library.check_answer(response, call)
        except BaseException as error:
            # An isolated exchange that its caller left goes on for a moment; it gives the place back itself.
            if place is not None and not (isolated and isinstance(error, asyncio.CancelledError)):
                place.leave()
            self._look_again(call, error)
            raise
        if place is not None:
            if response.is_closed:
                place.leave()  # it came with its body in memory: there is no stream that somebody will close
            else:
                response.stream = self._library.async_wire(response.stream, place, isolated)
        call.response = response
        return response

    def _exchange(self, call: HttpCall, request: Any) -> Awaitable[Any]:
        sent: Awaitable[Any] = self._inner.handle_async_request(request)
        return sent if call.probe is None else call.probe.until(sent)

    def _clear(self, late: Any, place: Place | None) -> None:
        """An isolated exchange ended after its caller had left."""
        if late is not None:
            stream = late.stream if place is None else self._library.async_wire(late.stream, place, False)
            close_later(stream)
        elif place is not None:
            place.leave()

    async def aclose(self) -> None:
        await self._inner.aclose()

    async def __aenter__(self) -> Self:
        if hasattr(self._inner, "__aenter__"):
            await self._inner.__aenter__()
        return self

    async def __aexit__(self, *raised: Any) -> None:
        if hasattr(self._inner, "__aexit__"):
            await self._inner.__aexit__(*raised)
        else:
            await self._inner.aclose()


class SyncEngine(Engine):
    """`handle_request` through the same policies, on the calling thread; bound by inheriting BaseTransport as well."""

    _method = "handle_request"
    _base = "BaseTransport"

    def handle_request(self, request: Any) -> Any:
        call = self._begin(request, self._send, sync=True)
        if call is None:
            return self._inner.handle_request(request)
        try:
            response = drive(call.owner.open(call))
            if call.response is not response:
                self._drop(call)  # a policy answered with something else
            if call.elsewhere is not None and not call.held:
                if response.status_code in HOPS:
                    remember_hop(call, response)
                call.owner.close(call, IGNORED, None)
                return response  # nothing is held for it
            body, length = self._conclude(call, response)
        except BaseException as error:
            if call.held:
                call.owner.close(call, IGNORED, error)
            self._drop(call)
            raise
        if response.is_closed:
            body.end()  # it came with its body in memory, and nobody will read or close a stream
        else:
            response.stream = self._library.sync_guard(response.stream, body, length)
        return response

    def _drop(self, call: HttpCall) -> None:
        response, call.response = call.response, None
        if response is not None:
            drive(close_stream(response.stream, sync=True))

    def _send(self, call: HttpCall) -> Any:
        self._drop(call)  # of an attempt whose answer a policy has not read
        place = None if self._gate is None else drive(self._gate.enter(call))
        try:
            request = outgoing(call)
            if call.timeout is not None:
                self._compare(call)
            response = self._inner.handle_request(request)
            self._library.check_answer(response, call)
        except BaseException as error:
            if place is not None:
                place.leave()
            self._look_again(call, error)
            raise
        if place is not None:
            if response.is_closed:
                place.leave()  # it came with its body in memory: there is no stream that somebody will close
            else:
                response.stream = self._library.sync_wire(response.stream, place)
        call.response = response
        return response

    def close(self) -> None:
        self._inner.close()

    def __enter__(self) -> Self:
        if hasattr(self._inner, "__enter__"):
            self._inner.__enter__()
        return self

    def __exit__(self, *raised: Any) -> None:
        if hasattr(self._inner, "__exit__"):
            self._inner.__exit__(*raised)
        else:
            self._inner.close()


def _known(target: Any) -> tuple[Pipeline, ...]:
    """The pipelines that can be seen in a target already."""
    return (target,) if isinstance(target, Pipeline) else tuple(getattr(target, "dependencies", {}).values())


def _router(target: Any) -> Callable[[Any], Pipeline]:
    if isinstance(target, type):
        raise TypeError(f"target: expected a Resilience, a Dependency, a Pipeline or a policy, got the class {target.__name__}")
    if isinstance(target, Pipeline):
        return lambda url: target
    if isinstance(target, Router):
        return target.dependency_for
    if isinstance(target, tuple | list):
        raise TypeError(f"target: put the policies of a {type(target).__name__} into a pipeline, as in Pipeline(*standard())")
    if isinstance(target, Policy | pybreaker.CircuitBreaker):
        pipeline = Pipeline(target)
        return lambda url: pipeline
    raise TypeError(f"target: expected a Resilience, a Dependency, a Pipeline or a policy, got {target!r}")
