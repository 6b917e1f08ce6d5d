"""One inbound request and its response: who answers it, until when, and what is added to the answer."""

from __future__ import annotations

import math
from asyncio import _get_running_loop, current_task
from collections.abc import Awaitable
from contextvars import Token
from typing import TYPE_CHECKING, Any

import anyio.lowlevel

from ..context import CRITICALITY, DEADLINE, RECORD, Criticality
from ..core.degradation import DegradationRecord
from .answering import Answering
from .layer import LAYER_KEY
from .permit import INSIDE
from .protocols import ASGIApp, Message, Receive, Scope, Send
from .pulse import running_loop
from .responses import MESSAGE_BODY, MESSAGE_START

if TYPE_CHECKING:
    from .admission import Admission
    from .copies import Copy
    from .door import Door
    from .inbound import Inbound

__all__ = ["Exchange"]

CONTENT_TYPE = len(b"content-type")
_BODY_MESSAGES = frozenset({MESSAGE_BODY, "http.response.pathsend", "http.response.zerocopysend"})


class Exchange(Answering):
    """The state of one request while it is being served.

    Every request of the service has one, so that what all of them need is done in as few frames as may be.

    Attributes:
        app: what serves it: the app, or the line in front of it.
        abandoned: whether its task is gone, and whoever comes next closes it.
    """

    __slots__ = ("_admission", "_criticality_token", "_record_token", "_to_end", "abandoned", "app")

    _admission: Admission

    def __init__(self, inbound: Inbound, scope: Scope, send: Send, loop: Any) -> None:
        self._inbound = inbound
        self._resilience = inbound.resilience
        drain = inbound.drain
        if drain is not None:
            drain.enter(self)
        self._scope = scope
        self._outer = outer = scope.get(LAYER_KEY)
        scope[LAYER_KEY] = self
        self._record = self._deadline = None
        self.admits = False
        self.counts = inbound.requests is not None
        if outer is not None:
            self.nest(outer)
        self._send = send
        self._status = 0
        self._started = self._replaced = self._armed = self._gone = self.cut = self._observed = self.abandoned = False
        self._to_end = False  # somebody wants to know of the response's last chunk
        self._due = math.inf
        self._attendance = self._deadline_token = self._reply = self._slot = self._permit = self._copy = None
        self._record_token: Token[DegradationRecord | None] | None = None
        self._criticality_token: Token[Criticality] | None = None
        self.app: ASGIApp = inbound.app
        # One look at the clock and at what runs it, for all that are to know. The task itself is not kept: whoever keeps a
        # request, as a timer and a drain do, would keep it from being finalized where nobody else does.
        self._began = inbound.now()
        task = None if loop is None else current_task(loop)
        self._task = 0 if task is None else id(task)
        # Give the request its degradation record, unless a middleware further out has done so.
        if inbound.degradation is not None and (outer is None or not outer.has_record):
            self._record = record = DegradationRecord()
            self._record_token = RECORD.set(record)

    # -- admission ------------------------------------------------------------------------------------------------

    def come(self, admission: Admission, door: Door, loop: Any) -> bool:
        """Ask for a slot. False if the request is turned away at once; `app` waits for one where that is needed."""
        criticality, scope = self._inbound.criticality, self._scope
        said = criticality.of(scope) if criticality.asks else None
        if said is not None:
            self._criticality_token = CRITICALITY.set(said)
        stream = admission.concerned(scope)
        # What an outer middleware of the same service has let in is not asked again.
        if stream is None or (self._outer is not None and self._outer.admits_for(self._resilience)):
            return True
        self.admits = True
        self._permit = permit = door.come(
            CRITICALITY.get() if said is None else said,
            self._began,
            loop or running_loop(),
            self._task,
            stream=stream,
        )
        if permit.state is INSIDE:
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

    def keep_copy(self, copy: Copy | None) -> None:
        """Let an answer that was kept stand in for an error, and this one be kept if it is good."""
        self._copy = copy

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
        self._status = status = start["status"]
        if self._inbound.brownout is not None:
            self._observe()
        silent = status == 101
        for name, value in start.get("headers", ()):
            if len(name) == CONTENT_TYPE and name.lower() == b"content-type":
                silent = silent or value.lower().startswith(b"text/event-stream")
                break
        if self._permit is not None:
            self._permit.answered(status, silent=silent)
        if self._armed:
            if silent or not self._body_bounded:
                self._lift()
            self._to_end = self._armed or self._attendance is not None
        elif self._attendance is not None or self._due != math.inf:
            if self._due != math.inf and (silent or not self._body_bounded):
                self._look_at_time()
            self._to_end = self._attendance is not None or self._due != math.inf
        return self._send(self._marked(start))

    def _complete(self) -> None:
        """The response's last chunk is on its way."""
        if self._armed:
            self._lift()
        elif self._due != math.inf:
            self._look_at_time()
        if self._attendance is not None:
            self._attendance.answered()

    # -- the end --------------------------------------------------------------------------------------------------

    def close(self) -> None:  # noqa: PLR0912 - a branch for each thing held
        """Give back what the request holds, and count it."""
        inbound = self._inbound
        if not self.abandoned:  # or its task is gone, and whatever was the task's
            if self._armed:
                self._disarm()
            if self._attendance is not None:
                self._attendance.end()
            if self._deadline_token is not None:
                DEADLINE.reset(self._deadline_token)
            if self._reply is not None and not self._reply.done():
                self._reply.cancel()  # the server gave the request up; nobody waits for its answer
            if self._record_token is not None:
                RECORD.reset(self._record_token)
            if self._criticality_token is not None:
                CRITICALITY.reset(self._criticality_token)
        if inbound.drain is not None:
            inbound.drain.leave(self)
        if self._due != math.inf:
            self._look_at_time()
        if self._copy is not None:
            self._copy.drop()
        now, permit = inbound.now(), self._permit
        if permit is not None:
            if self._status == 504:
                permit.failed(504)
            inbound.door.leave(permit, now)
        if self._outer is None and self._inner is None:
            self._scope.pop(LAYER_KEY, None)  # as `leave` does, without its frame
        else:
            self.leave()
        if self.counts and inbound.requests is not None:
            inbound.requests.ended(self._scope, self._status, now - self._began)

    # -- without an end -------------------------------------------------------------------------------------------

    def is_lost(self, error: BaseException) -> bool:
        """Whether its task is gone, so that a garbage collection ends it: the event loop was closed, or has dropped the task."""
        if not self._task:
            return isinstance(error, GeneratorExit)
        loop = _get_running_loop()
        return loop is None or id(current_task(loop)) != self._task

    @property
    def is_gone(self) -> bool:
        """Whether its event loop was closed, as far as it is known which one that was."""
        return self._permit is not None and self._permit.pulse.gone

    def abandon(self) -> None:
        """Let whoever comes next close it. Takes no lock, and touches nothing of the loop's."""
        self.abandoned = True
        if self._slot is not None:
            self._slot.discard(self)
        if self._attendance is not None:
            self._attendance.answered()  # nobody is to be cancelled any more
        self._attendance = self._reply = None
        self._inbound.abandoned.append(self.close)
