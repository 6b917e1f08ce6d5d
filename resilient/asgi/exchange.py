"""One inbound request and its response: who answers it, until when, and what is added to the answer.

Every middleware of this package is an `Inbound` with one or more of its aspects switched on, so that each behaviour is
written once and all of them together cost one scope check, one wrapped `send` and one cancel scope.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable
from contextvars import Token, copy_context
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from ..context import DEADLINE, RECORD, Deadline
from ..core.degradation import DegradationRecord
from ..errors import DeadlineExceeded, ResilienceError
from ..events import DeadlinePassed
from ..wheel import current_slot, new_scope
from .layer import LAYER_KEY, Layer
from .protocols import ASGIApp, Message, Receive, Scope, Send, Surroundings, check_resilience
from .responses import MESSAGE_BODY, MESSAGE_START, Problem
from .route import route_template

if TYPE_CHECKING:
    from .deadline import InboundDeadlines
    from .degradation import DegradationHeader
    from .errors import ErrorMapping
    from .metrics import RequestMetrics

__all__ = ["Exchange", "Inbound"]

logger = logging.getLogger("resilient")

LATE = Problem(status=504, error=DeadlineExceeded.error_token, detail="The request took longer than it may.", retry_after=1)

_BODY_MESSAGES = frozenset({MESSAGE_BODY, "http.response.pathsend", "http.response.zerocopysend"})


class Inbound:
    """An ASGI application around another. Subclasses switch its aspects on.

    Anything but an HTTP request passes through untouched, and so does everything while the `Resilience` is disabled.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
    """

    deadlines: InboundDeadlines | None = None
    degradation: DegradationHeader | None = None
    errors: ErrorMapping | None = None
    requests: RequestMetrics | None = None

    def __init__(self, app: ASGIApp, resilience: Surroundings) -> None:
        if not callable(app):
            raise TypeError(f"app: expected an ASGI application, got {app!r}")
        check_resilience(resilience)
        self.app = app
        self.resilience = resilience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not self.resilience.enabled:
            await self.app(scope, receive, send)
            return
        exchange = Exchange(self, scope, send)
        try:
            if self.degradation is not None:
                exchange.keep_record()
            deadlines = self.deadlines
            seconds = math.inf if deadlines is None else deadlines.seconds(scope)
            if deadlines is None or seconds == math.inf:
                await self.app(scope, receive, exchange.send)
            elif seconds < deadlines.min_useful:
                await exchange.passed(caught=True)
            else:
                with exchange.bounded(deadlines, seconds) as cancel_scope:
                    await self.app(scope, receive, exchange.send)
                if cancel_scope.cancel_called:
                    await exchange.passed(caught=cancel_scope.cancelled_caught)
        except Exception as error:
            if not await exchange.answered(error):
                raise
        finally:
            exchange.close()


class Exchange(Layer):
    """The state of one request while it is being served."""

    __slots__ = (
        "_armed",
        "_began",
        "_body_bounded",
        "_cancel_scope",
        "_context",
        "_deadline_token",
        "_hard",
        "_inbound",
        "_record_token",
        "_replaced",
        "_reply",
        "_send",
        "_slot",
        "_started",
        "_status",
    )

    _cancel_scope: anyio.CancelScope
    _slot: set[Any] | None

    def __init__(self, inbound: Inbound, scope: Scope, send: Send) -> None:
        self._inbound = inbound
        self._resilience = inbound.resilience
        self._scope = scope
        self._outer = outer = scope.get(LAYER_KEY)
        scope[LAYER_KEY] = self
        self._record = None
        self._deadline = None
        self.counts = inbound.requests is not None
        if outer is not None:
            self.nest(outer)
        self._send = send
        self._status = 0  # of the response, once it has begun
        self._started = False  # a response has begun: the app's, or ours
        self._replaced = False  # it is ours; what the app sends is dropped
        self._armed = False  # a deadline is in force
        self._deadline_token: Token[Deadline | None] | None = None
        self._record_token: Token[DegradationRecord | None] | None = None
        self._reply: asyncio.Task[None] | None = None  # the 504 that is being sent while the app still runs
        if self.counts:
            self._began = self._resilience.clock.now()

    # -- the degradation record -----------------------------------------------------------------------------------

    def keep_record(self) -> None:
        """Give the request its degradation record, unless a middleware further out has done so."""
        if self._outer is None or not self._outer.has_record:
            self._record = record = DegradationRecord()
            self._record_token = RECORD.set(record)

    def _marked(self, start: Message) -> Message:
        """The response's start, with what it was degraded by."""
        degradations = None if self._record is None else self._record.close()
        if not degradations:
            return start
        assert self._inbound.degradation is not None  # or there would be no record
        return {**start, "headers": [*start.get("headers", ()), self._inbound.degradation.field(degradations)]}

    # -- the deadline ---------------------------------------------------------------------------------------------

    def bounded(self, deadlines: InboundDeadlines, seconds: float) -> anyio.CancelScope:
        """A scope to serve the request in, cancelled after `seconds` unless that is lifted before."""
        self._armed = True
        self._body_bounded = deadlines.body
        clock = self._resilience.clock
        self._own_at = at = clock.now() + seconds
        outer = DEADLINE.get()
        self._outer_at = math.inf if outer is None else outer.at
        if at < self._outer_at or self._outer is not None:  # a limit further out may be lifted before ours
            self._deadline = deadline = Deadline(min(at, self._outer_at), clock, inbound=True)
            self._deadline_token = DEADLINE.set(deadline)
        slot: set[Any] | None = current_slot(seconds)
        self._slot = slot
        self._hard = deadlines.hard and slot is not None
        if slot is None:
            self._cancel_scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        else:
            self._cancel_scope = new_scope()
            self._context = copy_context()
            slot.add(self)
        return self._cancel_scope

    def cancel(self) -> None:
        """The time is over; called by the event loop."""
        if self._hard and not self._started:
            # A thread may hold the app for as long as it likes; the client is told now.
            self._started = self._replaced = True
            self._tell_passed("inbound")
            # In the request's own context: the timer's is that of whichever request armed it first.
            self._reply = asyncio.get_running_loop().create_task(self._answer(LATE), context=self._context)
        self._cancel_scope.cancel()

    def _lift(self) -> None:
        """From now on the request may take as long as it likes, and so may every call that is made for it."""
        self._disarm()
        self._own_at = math.inf
        self.lifted(self._outer_at)

    def _disarm(self) -> None:
        self._armed = False
        if self._slot is not None:
            self._slot.discard(self)
        else:
            self._cancel_scope.deadline = math.inf

    async def passed(self, *, caught: bool) -> None:
        """The request's time was over before the app was done; `caught` if the app was cancelled for it.

        Raises:
            DeadlineExceeded: the response had started, so that breaking it off is all that is left.
        """
        reply, self._reply = self._reply, None
        if reply is not None:
            await reply
        elif not self._started:
            self._tell_passed("inbound")
            await self._answer(LATE)
        elif caught:
            self._tell_passed("inbound")
            raise DeadlineExceeded("the response was not complete in time", policy="deadline", reason="inbound")
        else:
            self._tell_passed("late")

    def _tell_passed(self, limit: str) -> None:
        resilience = self._resilience
        if self.first_to_be_late():
            resilience.outbox.emit(DeadlinePassed(at=resilience.clock.now(), side="inbound", limit=limit))

    # -- the response ---------------------------------------------------------------------------------------------

    def send(self, message: Message) -> Awaitable[None]:
        """What the app sends through. A plain function, so that a message costs no frame of its own while it is sent."""
        if self._started:
            if self._replaced:
                return anyio.lowlevel.checkpoint()  # where an app that streams on without end is cancelled
            if self._armed and message["type"] in _BODY_MESSAGES and not message.get("more_body", False):
                self._lift()
        elif message["type"] == MESSAGE_START:
            self._started = True
            self._status = message["status"]
            if self._armed and (not self._body_bounded or _is_silent(message)):
                self._lift()
            if self._record is not None:
                message = self._marked(message)
        return self._send(message)

    async def _answer(self, problem: Problem) -> None:
        """Give our own answer in place of the app's."""
        self._started = self._replaced = True
        if self._armed:
            self._disarm()  # not lifted: what goes on in a thread is still out of time
        self._status = problem.status
        start, body = problem.messages(head=self._scope["method"] == "HEAD")
        await self._send(self._marked(start))
        await self._send(body)

    async def answered(self, error: Exception) -> bool:
        """Whether the client has been, or is now, answered in spite of `error`, so that it needs no raising."""
        reply, self._reply = self._reply, None
        if reply is not None:
            # Raised on, it would make the server close a connection that may be serving the next request already.
            if not isinstance(error, ResilienceError):
                route = route_template(self._scope)
                logger.error("the app failed after its deadline had been answered", exc_info=error, extra={"route": route})
            await reply
            return True
        errors = self._inbound.errors
        problem = None if errors is None or self._started else errors.problem(error)
        if problem is None:
            self._status = self._status or 500  # which is what an error that nobody handles becomes further out
            return False
        await self._answer(problem)
        return True

    def close(self) -> None:
        """Give back what the request holds, and count it."""
        if self._armed:
            self._disarm()
        if self._deadline_token is not None:
            DEADLINE.reset(self._deadline_token)
        if self._record_token is not None:
            RECORD.reset(self._record_token)
        if self._reply is not None and not self._reply.done():
            self._reply.cancel()  # the server gave the request up; nobody waits for its answer
        self.leave()
        requests = self._inbound.requests
        if self.counts and requests is not None:
            requests.ended(self._scope, self._status, self._resilience.clock.now() - self._began)


def _is_silent(start: Message) -> bool:
    """Whether a response that starts so may last for ever by design: an upgrade, an event stream."""
    if start["status"] == 101:
        return True
    for name, value in start.get("headers", ()):
        if name.lower() == b"content-type":
            return bool(value.lower().startswith(b"text/event-stream"))
    return False
