"""What requests meet in a service that is about to stop: served first and told to go, then turned away."""

from __future__ import annotations

import asyncio
import math
import random
import signal
from collections.abc import Callable, Iterable
from copy import copy
from typing import TYPE_CHECKING, Any

from ..background import begin_on
from ..context import CRITICALITY
from ..core.bounds import flag, not_negative, positive
from ..events import RequestShed
from ..wheel import current_home
from .admission import EXEMPT, NOT_HERE
from .criticality import path_of, patterns
from .inbound import Inbound
from .leaving import BUDGET
from .protocols import ASGIApp, Measured, Message, Receive, Scope, Send
from .responses import Problem, told_to_close

if TYPE_CHECKING:
    from .layer import Layer
    from .leaving import Leaving

__all__ = ["Drain", "DrainGate", "DrainMiddleware"]

FAIL_CHECK = (b"x-envoy-immediate-health-check-fail", b"true")
"""Envoy stops to send requests here at once, without waiting for its next health check."""
SERVICE_RESTART = 1012  # the close code of a websocket, in the registry of RFC 6455
LAST = frozenset({"websocket.close", "websocket.http.response.start"})  # what nothing of ours may follow
MET = "resilient.draining"
"""Where the scope of a websocket says whose gates it has passed."""


class Drain:
    """How a service takes leave.

    At one of `signals` readiness fails at once, and for `delay` seconds all requests are served while load balancers notice;
    HTTP/1 connections are told to close. Then the server is handed the signal, and what is under way has `budget` seconds. New
    work that still comes is answered 503.

    Args:
        delay: seconds from failing readiness to the server's own shutdown; as long as whoever sends requests takes to notice.
        budget: seconds that requests have to end from then on.
        signals: which signals begin it. `()` for none: then `Resilience.drain` does, and the end of the lifespan.
        retry_after: seconds that whoever is turned away is to wait, from once to three times, at random.
        exempt: patterns of what is always answered, and waited for by nobody: health, metrics, administration.
        close_websockets: whether websockets are closed, with 1012, when no new work is taken on; else they are told by
            `Resilience.drain_closing` alone, and have the same budget.
        not_here: whether `X-Envoy-Overloaded` tells clients that another try at this address is of no use. That is right where
            they choose among the replicas themselves, as a `Failover` does; behind a load balancer another try finds another
            replica, and Envoy makes none after this header.
        enforce: False lets all requests in, and tells which would have been turned away.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        *,
        delay: float = 5.0,
        budget: float = BUDGET,
        signals: Iterable[int] = (signal.SIGTERM,),
        retry_after: float = 1.0,
        exempt: Iterable[str] = EXEMPT,
        close_websockets: bool = False,
        not_here: bool = False,
        enforce: bool = True,
    ) -> None:
        not_negative("delay", delay)
        not_negative("budget", budget)
        positive("retry_after", retry_after)
        for name, value in (("close_websockets", close_websockets), ("not_here", not_here), ("enforce", enforce)):
            flag(name, value)
        self.delay = delay
        self.budget = budget
        self.signals: tuple[int, ...] = _signals(signals)
        self.close_websockets = close_websockets
        self.enforce = enforce
        self._exempt = patterns("exempt", exempt)
        self._refusals = _refusals(retry_after, not_here=not_here)

    def spare(self, paths: Iterable[str]) -> None:
        """Always answer these too."""
        self._exempt += patterns("exempt", paths)

    def spares(self, scope: Scope) -> bool:
        """Whether a request is answered whatever happens."""
        method, path = scope.get("method", "GET"), path_of(scope)
        return any(route.matches(method, None, path) for route in self._exempt)

    def refusal(self, scope: Scope) -> tuple[Message, Message]:
        """The answer to who comes too late; the messages are the caller's own."""
        start, body = self._refusals[int(random.random() * len(self._refusals))]
        return told_to_close({**start, "headers": [*start["headers"]]}, scope), {**body, "body": b""} if _is_head(scope) else {**body}


class DrainGate:
    """A `Drain` in one service.

    Attributes:
        enter, leave: each who is under way puts itself in, and takes itself out.
        leaving: its `order` is None unless the service drains.
    """

    __slots__ = ("enter", "leave", "leaving", "settings")

    def __init__(self, settings: Drain, leaving: Leaving) -> None:
        if leaving.given:
            settings = copy(settings)
            for name, value in leaving.given.items():
                setattr(settings, name, value)
        self.settings = settings
        self.leaving = leaving
        self.enter: Callable[[Any], None] = leaving.inside.add
        self.leave: Callable[[Any], None] = leaving.inside.discard
        if leaving.settings is None or settings.signals:
            leaving.settings = settings

    def refuses(self, inbound: Inbound, scope: Scope, outer: Layer | None) -> bool:
        """Whether a request comes too late, unless one of the layers further out has let it in. It is counted if it does."""
        leaving, settings = self.leaving, self.settings
        order = leaving.order
        if leaving.knows(outer) or order is None or not order.closed(leaving.now()) or settings.spares(scope):
            return False
        resilience: Any = inbound.resilience
        said = inbound.criticality.of(scope) if inbound.admission is not None else None
        word = (CRITICALITY.get() if said is None else said).name.lower()
        resilience.metrics.count_shed(word, "draining" if settings.enforce else "shadow_draining")
        if resilience.outbox.heard:
            resilience.outbox.emit(RequestShed(at=leaving.now(), criticality=word, reason="draining", enforced=settings.enforce))
        return settings.enforce

    async def attend(self, inbound: Inbound, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a websocket, and see that it learns of the end."""
        met = scope.get(MET, ())
        if any(one is self.leaving for one in met):
            await app(scope, receive, send)
        elif self.leaving.order is not None and self.refuses(inbound, scope, None):
            await self._turn_away(scope, receive, send)
        else:
            scope[MET] = (*met, self.leaving)
            try:
                await self._serve(app, scope, receive, send)
            finally:
                scope[MET] = met
                if not met:
                    del scope[MET]

    async def _serve(self, app: ASGIApp, scope: Scope, receive: Receive, send: Send) -> None:
        socket, closing = _Socket(scope, send), self.leaving.closing
        closes = self.settings.close_websockets
        self.enter(socket)
        try:
            if closes and not closing.add(socket):
                socket.wake()
            await app(scope, receive, socket.send if closes else send)
        finally:
            self.leave(socket)
            closing.discard(socket)

    async def _turn_away(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()  # the connect: nothing may be sent before
        if "websocket.http.response" not in (scope.get("extensions") or {}):
            await send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"})
            return
        for message in self.settings.refusal(scope):
            await send({**message, "type": f"websocket.{message['type']}"})


class _Socket:
    """A websocket that is under way. It is a waiter, too: woken, it closes."""

    __slots__ = ("_closed", "_ended", "_home", "_outer", "_scope", "_send")

    def __init__(self, scope: Scope, send: Send) -> None:
        self._scope = scope
        self._send = send
        self._home = current_home()
        self._outer = None
        self._closed = self._ended = False  # by us, and by the app

    @property
    def is_gone(self) -> bool:
        """Whether its event loop was closed. Trio ends its tasks with a run."""
        return isinstance(self._home, asyncio.AbstractEventLoop) and self._home.is_closed()

    async def send(self, message: Message) -> None:
        """What the app sends through; nothing is sent any more after the close."""
        if not self._closed:
            self._ended = self._ended or message["type"] in LAST
            await self._send(message)

    def wake(self) -> bool:
        return begin_on(self._home, self._close)

    async def _close(self) -> None:
        if not (self._closed or self._ended):
            self._closed = True
            await self._send({"type": "websocket.close", "code": SERVICE_RESTART, "reason": "service restart"})


def _is_head(scope: Scope) -> bool:
    return bool(scope.get("method") == "HEAD")


def _signals(given: Any) -> tuple[int, ...]:
    if isinstance(given, str) or not isinstance(given, Iterable):
        raise TypeError(f"signals: expected signals in a list, such as [signal.SIGTERM], got {given!r}")
    found = tuple(given)
    for one in found:
        if isinstance(one, bool) or not isinstance(one, int):
            raise TypeError(f"signals: expected members of signal.Signals, got {one!r}")
        if one not in signal.valid_signals():
            raise ValueError(f"signals: this system has no signal {one!r}")
    return tuple(dict.fromkeys(int(one) for one in found))


def _refusals(retry_after: float, *, not_here: bool) -> list[tuple[Message, Message]]:
    made: list[tuple[Message, Message]] = []
    for seconds in range(math.ceil(retry_after), math.ceil(3 * retry_after) + 1):
        detail = "This instance of the service is about to stop; another one takes its place."
        start, body = Problem(status=503, error="destination_unavailable", detail=detail, retry_after=seconds).messages()
        start["headers"] += [FAIL_CHECK, NOT_HERE] if not_here else [FAIL_CHECK]
        made.append((start, body))
    return made


class DrainMiddleware(Inbound):
    """Serves while load balancers learn that the service is about to stop, then turns new work away.

    While the service drains, HTTP/1 answers carry `Connection: close`. Once it takes on no new work, requests are answered 503
    with `Retry-After`, problem details and `Connection: close`, and websockets refused; `exempt` ones never are. What is under
    way is counted until it ends, background tasks included.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        settings: those of `Drain`.
    """

    def __init__(self, app: ASGIApp, resilience: Measured, **settings: Any) -> None:
        super().__init__(app, resilience)
        self.leave_by(Drain(**settings), resilience)
