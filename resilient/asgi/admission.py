"""Which requests the service takes on: as many as it bears, and under load those that matter."""

from __future__ import annotations

import math
import random
from collections.abc import Iterable
from typing import Any

from ..context import CRITICALITY, Criticality, current_criticality
from ..core.admission import Admission as Slots
from ..core.admission import OwnLimit
from ..core.bounds import flag, positive, whole
from ..core.codel import Lateness, Line
from ..core.route import Route
from ..errors import Overloaded
from .criticality import Criticalities, InboundCriticality, path_of, patterns
from .deadline import Trusted
from .door import Door
from .inbound import Inbound
from .protocols import ASGIApp, Measured, Message, Receive, Scope, Send
from .pulse import running_loop
from .responses import Problem

__all__ = ["EXEMPT", "Admission", "AdmissionMiddleware"]

EXEMPT = ("/livez", "/readyz", "/startupz", "/metrics", "/health", "/healthz", "/resilience", "/resilience/{rest:path}")
"""What is never turned away by default."""
NOT_HERE = (b"x-envoy-overloaded", b"true")
"""Tells whoever might ask again that it is of no use here: our own transport, and Envoy, whose word it is."""
TRY_AGAIN_LATER = 1013  # the close code of a websocket, RFC 6455's registry
EVENTS = (b"accept", b"text/event-stream")
ADMITTED = "resilient.admitted"
"""Where the scope of a websocket says whose admission has let it in."""
SMALLEST = 2  # times two is the least that the limit comes to while the loop is late


class Admission:
    """Says how many requests are inside the app at a time, who waits, and who is turned away.

    The limit follows the app's own latency (Gradient2) and falls at once where the event loop stays late. A turn of the
    event loop takes on requests for `target` seconds; beyond both, requests wait in line, each class in its own, and are let in
    by what they matter. Sheddable ones wait for `interval`, and `target` in a line that has not been empty for `interval`;
    critical ones wait for `max_wait`, and `interval` in a line that has not been empty for `max_wait`.

    A slot is held until the app has returned and its last chunk was sent. Event streams and websockets have places of their own.

    Args:
        limit: slots to begin with.
        min_concurrent, max_concurrent: the limits never to leave.
        tolerance: how many times as long as usual is no sign of load.
        queue: how many may wait; then one that matters more takes the place of one that matters less.
        max_wait: seconds that a critical request may wait.
        target, interval: seconds: what is no delay, and how long a delay has to last to be none of a burst.
        max_streams: event streams and websockets that may be open.
        streams: patterns of what is a stream from the start (`/events/{rest:path}`), as every request is that accepts
            `text/event-stream` alone; other answers become one when their head says so, and keep their slot where there are
            enough of them.
        exempt: patterns of what is never turned away, nor counted: health, metrics, administration.
        criticality: how much a request matters: by route, or a function of the ASGI scope.
        criticality_header: the field in which trusted callers say it.
        trusted: whose field is believed; by default those whose deadlines are.
        retry_after: seconds that whoever is turned away is to wait, from once to three times, at random.
        enforce: False lets everybody in, and tells who would have been turned away.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        *,
        limit: int = 500,
        min_concurrent: int = 4,
        max_concurrent: int = 1000,
        tolerance: float = 1.5,
        queue: int = 1000,
        max_wait: float = 1.0,
        target: float = 0.005,
        interval: float = 0.1,
        max_streams: int = 10000,
        streams: Iterable[str] = (),
        exempt: Iterable[str] = EXEMPT,
        criticality: Criticalities | None = None,
        criticality_header: str = "X-Criticality",
        trusted: Trusted | None = None,
        retry_after: float = 1.0,
        enforce: bool = True,
    ) -> None:
        whole("min_concurrent", min_concurrent)
        whole("max_concurrent", max_concurrent, least=min_concurrent)
        whole("limit", limit, least=min_concurrent)
        if limit > max_concurrent:
            raise ValueError(f"limit must be at most max_concurrent, {max_concurrent}, not {limit}")
        for name, seconds in (("max_wait", max_wait), ("target", target), ("interval", interval), ("retry_after", retry_after)):
            positive(name, seconds)
        if not target < interval <= max_wait:
            raise ValueError(f"interval must be more than target, {target}, and at most max_wait, {max_wait}, not {interval!r}")
        flag("enforce", enforce)
        self._law = {"initial": limit, "least": min_concurrent, "most": max_concurrent, "tolerance": tolerance, "queue": SMALLEST}
        self._delays = max_wait, target, interval
        self._queue, self._max_streams = queue, max_streams
        self._slots()  # a wrong setting is told here
        self._streams = patterns("streams", streams)
        self._exempt = patterns("exempt", exempt)
        self._exempt_paths: frozenset[str] = frozenset()
        self._exempt_routes: list[Route] = []
        self._sort_exempt()
        self._said = criticality, criticality_header
        self._trusted = trusted
        self.criticalities({} if trusted is None else trusted)
        self.enforce = enforce
        self._door: Door | None = None
        self._refusals = _refusals(retry_after)

    def _slots(self) -> Slots:
        max_wait, target, interval = self._delays
        critical = max_wait, max_wait, interval, interval
        sheddable = interval, interval, target, 0.0
        lines = [Line(*(critical if rank >= Criticality.CRITICAL else sheddable)) for rank in Criticality]
        return Slots(OwnLimit(**self._law), lines, queue=self._queue, streams=self._max_streams)

    # -- what it belongs to ---------------------------------------------------------------------------------------

    def criticalities(self, trusted: Trusted) -> InboundCriticality:
        """Who says how much a request matters, where `trusted` are believed unless it was said otherwise."""
        criticality, header = self._said
        return InboundCriticality(criticality, header=header, trusted=trusted if self._trusted is None else self._trusted)

    def door(self, resilience: Measured) -> Door:
        """Its run in a service."""
        if self._door is None or self._door.resilience is not resilience:
            _, target, interval = self._delays
            self._door = Door(self._slots(), Lateness(target, interval), resilience, enforce=self.enforce)
            resilience.admissions.add(self._door)
        return self._door

    def spare(self, paths: Iterable[str]) -> None:
        """Never turn these away either."""
        self._exempt += patterns("exempt", paths)
        self._sort_exempt()

    def _sort_exempt(self) -> None:
        plain = [route for route in self._exempt if route.methods is None and "{" not in (route.template or "{")]
        self._exempt_paths = frozenset(str(route.template) for route in plain)
        self._exempt_routes = [route for route in self._exempt if route not in plain]
        # What is looked at for every request is looked at quickly: few begin as one of these does.
        self._exempt_heads = tuple((route.template or "").partition("{")[0] for route in self._exempt_routes)

    # -- one request ----------------------------------------------------------------------------------------------

    def spares(self, scope: Scope) -> bool:
        """Whether a request is none of its business."""
        path = path_of(scope) if scope.get("root_path") else scope["path"]
        if path in self._exempt_paths:
            return True
        if not path.startswith(self._exempt_heads):
            return False
        method = scope.get("method", "GET")
        return any(route.matches(method, None, path) for route in self._exempt_routes)

    def concerned(self, scope: Scope) -> bool | None:
        """Whether a request is a stream; None for one that is none of its business."""
        path = path_of(scope) if scope.get("root_path") else scope["path"]
        if (path in self._exempt_paths or path.startswith(self._exempt_heads)) and self.spares(scope):
            return None
        return self.is_stream(scope)

    def is_stream(self, scope: Scope) -> bool:
        """Whether a request is one that may last for ever by design, as far as it says so itself."""
        if self._streams:
            method, path = scope.get("method", "GET"), path_of(scope)
            if any(route.matches(method, None, path) for route in self._streams):
                return True
        return EVENTS in scope["headers"]

    def refusal(self, *, head: bool) -> tuple[Message, Message]:
        """The answer to who is turned away; the messages are the caller's own."""
        refusals = self._refusals
        start, body = refusals[int(random.random() * len(refusals))]
        # What lies further out may add headers to the list that it is given.
        return {**start, "headers": [*start["headers"]]}, {**body, "body": b""} if head else {**body}

    async def attend(self, inbound: Inbound, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a websocket, if there is a place for it. What is none of its business has one, and what was let in further out."""
        said = inbound.criticality.of(scope)
        admitted = scope.get(ADMITTED, ())
        spared = self.spares(scope) or any(one is inbound.resilience for one in admitted)
        door, permit = inbound.door, None
        if not spared:
            permit = door.come(current_criticality() if said is None else said, door.now(), running_loop(), 0, stream=True)
        token = None if said is None else CRITICALITY.set(said)
        try:
            if permit is not None:
                scope[ADMITTED] = (*admitted, inbound.resilience)
            if permit is not None and permit.refused:
                await _turn_away(self, scope, receive, send)
            else:
                await inbound.app(scope, receive, send)
        except GeneratorExit:
            if permit is not None:
                permit.abandon()
            permit = token = None  # nothing of them may be given back from here
            raise
        finally:
            if permit is not None:
                door.leave(permit, door.now())
                scope[ADMITTED] = admitted
                if not admitted:
                    del scope[ADMITTED]
            if token is not None:
                CRITICALITY.reset(token)


def _refusals(retry_after: float) -> list[tuple[Message, Message]]:
    """Every answer that there is, once for all: one for each second."""
    made: list[tuple[Message, Message]] = []
    for seconds in range(math.ceil(retry_after), math.ceil(3 * retry_after) + 1):
        problem = Problem(
            status=503, error=Overloaded.error_token, detail="The service has more requests than it can serve.", retry_after=seconds
        )
        start, body = problem.messages()
        start["headers"].append(NOT_HERE)
        made.append((start, body))
    return made


async def _turn_away(admission: Admission, scope: Scope, receive: Receive, send: Send) -> None:
    await receive()  # the connect: nothing may be sent before
    if "websocket.http.response" not in (scope.get("extensions") or {}):
        await send({"type": "websocket.close", "code": TRY_AGAIN_LATER, "reason": "overloaded"})
        return
    for message in admission.refusal(head=False):
        await send({**message, "type": f"websocket.{message['type']}"})


class AdmissionMiddleware(Inbound):
    """Takes on as many requests as the app bears, and turns away those that matter least.

    Who is turned away is answered 503 with `Retry-After`, problem details and `X-Envoy-Overloaded`, which says that
    another try here is of no use. A websocket is refused with 503 where the server can, else closed with 1013. What of `Inbound`
    middleware lies further in is not reached; the last good answer (`StaleResponseMiddleware` further out, or in the same
    `ResilienceMiddleware`) may stand in.

    Inside, `current_criticality()` says how much the request matters, and outbound calls inherit it.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        settings: those of `Admission`.
    """

    def __init__(self, app: ASGIApp, resilience: Measured, **settings: Any) -> None:
        super().__init__(app, resilience)
        self.take_on(Admission(**settings), resilience)
