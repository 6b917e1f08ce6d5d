"""One inbound request and its response: who answers it, until when, and what is added to the answer."""

from __future__ import annotations

import logging
import math
from collections.abc import Awaitable
from contextvars import Token
from typing import TYPE_CHECKING

import anyio.lowlevel

from ..context import CRITICALITY, DEADLINE, RECORD, Criticality
from ..core.degradation import DegradationRecord
from ..errors import DeadlineExceeded, Overloaded, ResilienceError, cause_of
from .door import INSIDE
from .layer import LAYER_KEY
from .limit import LATE, Limited
from .protocols import ASGIApp, Message, Receive, Scope, Send
from .responses import MESSAGE_BODY, MESSAGE_START, Problem, told_to_close
from .route import route_template

if TYPE_CHECKING:
    from .admission import Admission
    from .copies import Copy
    from .door import Door, Permit
    from .drain import DrainGate
    from .inbound import Inbound

__all__ = ["Exchange"]

logger = logging.getLogger("resilient")

CONTENT_TYPE = len(b"content-type")
_BODY_MESSAGES = frozenset({MESSAGE_BODY, "http.response.pathsend", "http.response.zerocopysend"})


class Exchange(Limited):
    """The state of one request while it is being served."""

    __slots__ = (
        *("_admission", "_began", "_copy", "_criticality_token", "_inbound", "_permit", "_record_token", "_send", "_status", "_to_end"),
        "app",
    )

    def __init__(self, inbound: Inbound, scope: Scope, send: Send) -> None:
        self._inbound = inbound
        self._resilience = inbound.resilience
        drain = inbound.drain
        if drain is not None:
            drain.enter(self)
        self._scope = scope
        self._outer = outer = scope.get(LAYER_KEY)
        scope[LAYER_KEY] = self
        self._record = None
        self._deadline = None
        self.admits = False
        self.counts = inbound.requests is not None
        if outer is not None:
            self.nest(outer)
        self._send = send
        self._status = 0  # of the response, once it has begun
        self._started = self._replaced = self._armed = self._gone = False
        self._to_end = False  # somebody wants to know of the response's last chunk
        self._due = math.inf
        self._attendance = self._deadline_token = self._reply = None
        self._record_token: Token[DegradationRecord | None] | None = None
        self._permit: Permit | None = None  # what it holds of the app's slots
        self._criticality_token: Token[Criticality] | None = None
        self.app: ASGIApp = inbound.app  # what serves it: the app, or the line in front of it
        self._copy: Copy | None = None  # what is known of an answer that could be given in the place of an error
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
        inbound = self._inbound
        assert inbound.degradation is not None  # or there would be no record
        field = inbound.degradation.field(degradations, expose_causes=inbound.exposes(self._scope))
        return {**start, "headers": [*start.get("headers", ()), field]}

    # -- the drain ------------------------------------------------------------------------------------------------

    def comes_too_late(self, drain: DrainGate) -> bool:
        """Whether the service takes on no new work any more, and this is new."""
        return drain.refuses(self._inbound, self._scope, self._outer)

    def send_away(self, drain: DrainGate) -> Awaitable[None]:
        """Answer that the service is about to stop."""
        return self._answer(*drain.settings.refusal(self._scope))

    # -- admission ------------------------------------------------------------------------------------------------

    def come(self, admission: Admission, door: Door) -> bool:
        """Ask for a slot. False if the request is turned away at once; `app` waits for one where that is needed."""
        criticality = self._inbound.criticality
        said = criticality.of(self._scope) if criticality.asks else None
        if said is not None:
            self._criticality_token = CRITICALITY.set(said)
        # What an outer middleware of the same service has let in is not asked again.
        if admission.spares(self._scope) or (self._outer is not None and self._outer.admits_for(self._resilience)):
            return True
        stream = admission.is_stream(self._scope)
        self.admits = True
        self._permit = permit = door.come(CRITICALITY.get() if said is None else said, stream=stream)
        if permit.state == INSIDE:
            return True
        if permit.waits:
            self._admission, self.app = admission, self._serve_in_turn
        return not permit.refused

    async def _serve_in_turn(self, scope: Scope, receive: Receive, send: Send) -> None:
        assert self._permit is not None  # or there would be nothing to wait for
        if await self._permit.waited():
            await self._inbound.app(scope, receive, send)
        else:
            await self.turn_away(self._admission)

    async def turn_away(self, admission: Admission) -> None:
        """Answer that there are too many, unless an answer that was kept can stand in."""
        if self._copy is None or not await self._stood_in(Overloaded.cause, 503):
            await self._answer(*admission.refusal(head=self._scope["method"] == "HEAD"))

    # -- the last good answer -------------------------------------------------------------------------------------

    def keep_copy(self, copy: Copy | None) -> None:
        """Let an answer that was kept stand in for an error, and this one be kept if it is good."""
        self._copy = copy

    async def _stood_in(self, cause: str, status: int) -> bool:
        """Whether the client was given an answer that was kept, in the place of an error."""
        kept = None if self._copy is None else await self._copy.instead(cause, status)
        if kept is None:
            return False
        await self._answer(*kept)
        return True

    async def _unless_stood_in(self, start: Message) -> None:
        """The app's answer begins, and is an error."""
        kept = None if self._copy is None else await self._copy.instead(f"status_{start['status']}", start["status"])
        if self._started:
            return  # with our own answer, for the time was over meanwhile
        if kept is None:
            await self._begin(start)
            return
        if self._armed:
            self._lift()  # the app was done in time, and what it goes on with has as much time as it likes
        await self._answer(*kept)

    async def _once_forgotten(self, start: Message) -> None:
        """The app's answer to a request begins that has changed what was kept: nobody who gets it may be given that."""
        assert self._copy is not None
        await self._copy.forget(start)
        if not self._started:
            await self._begin(start)

    async def _end_of_copy(self, message: Message) -> None:
        """The end of an answer that was kept along the way."""
        await self._send(message)
        if self._copy is not None:
            self._copy.complete()

    # -- the response ---------------------------------------------------------------------------------------------

    def send(self, message: Message) -> Awaitable[None]:
        """What the app sends through. A plain function, so that a message costs no frame of its own while it is sent."""
        if self._started:
            if self._replaced:
                return anyio.lowlevel.checkpoint()  # where an app that streams on without end is cancelled
            if self._to_end and message["type"] in _BODY_MESSAGES and not message.get("more_body", False):
                self._complete()
            if self._copy is not None and self._copy.taking and self._copy.take(message):
                return self._end_of_copy(message)
        elif message["type"] == MESSAGE_START:
            copy = self._copy
            if copy is not None:
                if message["status"] in copy.failures:
                    return self._unless_stood_in(message)
                if copy.unsafe:
                    return self._once_forgotten(message)
                message = copy.begun(message)
            return self._begin(message)
        return self._send(message)

    def _begin(self, start: Message) -> Awaitable[None]:
        self._started = True
        self._status = start["status"]
        if self._inbound.brownout is not None:
            self._observe()
        silent = _is_silent(start)
        if self._permit is not None:
            self._permit.answered(start["status"], silent=silent)
        if self._armed and (not self._body_bounded or silent):
            self._lift()
        elif self._due != math.inf and (not self._body_bounded or silent):
            self._look_at_time()
        self._to_end = self._armed or self._attendance is not None or self._due != math.inf
        if self._record is not None:
            start = self._marked(start)
        drain = self._inbound.drain
        if drain is not None and drain.leaving.order is not None:
            start = told_to_close(start, self._scope)
        return self._send(start)

    def _complete(self) -> None:
        """The response's last chunk is on its way."""
        if self._armed:
            self._lift()
        elif self._due != math.inf:
            self._look_at_time()
        if self._attendance is not None:
            self._attendance.answered()

    def refuse(self, problem: Problem) -> Awaitable[None]:
        """Answer without the app."""
        return self._answer_problem(problem)

    def _observe(self) -> None:
        """The app took until now; what is refused at the door says nothing of the load."""
        brownout = self._inbound.brownout
        if brownout is not None and self.counts:
            brownout.observe(self._resilience.clock.now() - self._began)

    def _answer_problem(self, problem: Problem) -> Awaitable[None]:
        return self._answer(*problem.messages(head=self._scope["method"] == "HEAD"))

    async def _answer(self, start: Message, body: Message) -> None:
        """Give our own answer in place of the app's."""
        self._started = self._replaced = True
        if self._armed:
            self._disarm()  # not lifted: what goes on in a thread is still out of time
        if self._attendance is not None:
            self._attendance.answered()
        self._status = start["status"]
        start = self._marked(start)
        drain = self._inbound.drain
        if drain is not None and drain.leaving.order is not None:
            start = told_to_close(start, self._scope)
        await self._send(start)
        await self._send(body)

    async def _answer_late(self) -> None:
        if self._armed:  # else it came too late, and was refused at the door
            self._observe()
            self._disarm()
        if not await self._stood_in(DeadlineExceeded.cause, LATE.status):
            await self._answer_problem(LATE)

    async def answered(self, error: Exception) -> bool:
        """Whether the client has been, or is now, answered in spite of `error`, so that it needs no raising."""
        reply, self._reply = self._reply, None
        if reply is not None:
            self._log(error, "the app failed after its deadline had been answered")
            await reply
            return True
        if self._copy is not None and (self._replaced or not self._started):
            if self._armed:
                self._disarm()  # or it may be answered for being late while the store is asked
            if self._replaced or await self._stood_in(cause_of(error), status_of(error)):
                self._log(error, "the app failed, and an answer that was kept has been served in its place")
                return True
        errors = self._inbound.errors
        problem = None if errors is None or self._started else errors.problem(error, expose_causes=self._inbound.exposes(self._scope))
        if problem is None:
            self._status = self._status or 500  # which is what an error that nobody handles becomes further out
            return False
        await self._answer_problem(problem)
        return True

    def _log(self, error: Exception, told: str) -> None:
        """Tell operators of an error that is not raised on: the server would close a connection that may be serving the
        next request already. Ours are told as events.
        """
        if not isinstance(error, ResilienceError):
            logger.error(told, exc_info=error, extra={"route": route_template(self._scope)})

    def close(self) -> None:  # noqa: PLR0912 - a branch for each thing held
        """Give back what the request holds, and count it."""
        drain = self._inbound.drain
        if drain is not None:
            drain.leave(self)
        if self._armed:
            self._disarm()
        if self._attendance is not None:
            self._attendance.end()
        if self._deadline_token is not None:
            DEADLINE.reset(self._deadline_token)
        if self._reply is not None and not self._reply.done():
            self._reply.cancel()  # the server gave the request up; nobody waits for its answer
        if self._due != math.inf:
            self._look_at_time()
        if self._record_token is not None:
            RECORD.reset(self._record_token)
        if self._copy is not None:
            self._copy.drop()
        if self._permit is not None:
            self._permit.end(self._status)
        if self._criticality_token is not None:
            CRITICALITY.reset(self._criticality_token)
        if self._outer is None and self._inner is None:
            self._scope.pop(LAYER_KEY, None)  # as `leave` does, without its frame
        else:
            self.leave()
        requests = self._inbound.requests
        if self.counts and requests is not None:
            requests.ended(self._scope, self._status, self._resilience.clock.now() - self._began)


def status_of(error: BaseException) -> int:
    """The status that an error which escapes the app is answered with."""
    if isinstance(error, DeadlineExceeded):
        return 504
    return 503 if isinstance(error, ResilienceError) else 500


def _is_silent(start: Message) -> bool:
    """Whether a response that starts so may last for ever by design: an upgrade, an event stream."""
    if start["status"] == 101:
        return True
    for name, value in start.get("headers", ()):
        if len(name) == CONTENT_TYPE and name.lower() == b"content-type":
            return bool(value.lower().startswith(b"text/event-stream"))
    return False
