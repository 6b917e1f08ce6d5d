"""What may end a request before the app is done with it: its time is over, or its client has gone."""

from __future__ import annotations

import asyncio
import math
from contextvars import Token, copy_context
from typing import TYPE_CHECKING, Any

import anyio
import anyio.lowlevel

from ..context import DEADLINE, Deadline
from ..errors import DeadlineExceeded
from ..events import ClientGone, DeadlinePassed
from ..wheel import new_scope, slot_in
from .attendance import Attendance
from .layer import Layer
from .protocols import Receive
from .responses import MESSAGE_BODY, MESSAGE_START, Problem

if TYPE_CHECKING:
    from contextvars import Context

    from .deadline import InboundDeadlines
    from .disconnect import Disconnects
    from .protocols import Message

__all__ = ["Limited"]

_new_deadline = Deadline.__new__
LATE = Problem(status=504, error=DeadlineExceeded.error_token, detail="The request took longer than it may.", retry_after=1)
CLIENT_GONE = 499
"""The status that nginx logs where the client closed the connection. Nobody gets it; middleware further out wants an answer."""


class Limited(Layer):
    """A request that can be ended early. All that may end it does so through one cancel scope.

    Attributes:
        cut: whether anything has.
        native: whether that could only be one of us: the scope has no deadline of its own.
    """

    __slots__ = (
        *("_armed", "_attendance", "_began", "_body_bounded", "_cancel_scope", "_context", "_deadline_token", "_due", "_gone", "_hard"),
        *("_replaced", "_reply", "_slot", "_started", "_task", "cut", "native"),
    )

    cut: bool
    native: bool

    _began: float
    """When it came."""
    _task: int
    """The identity of its task; 0 unless that is one of asyncio's, which is not so either where trio runs as a guest."""

    _cancel_scope: anyio.CancelScope
    _context: Context
    _slot: set[Any] | None
    _hard: bool
    _deadline_token: Token[Deadline | None] | None
    _body_bounded: bool
    _started: bool
    """A response has begun: the app's, or ours."""
    _replaced: bool
    """It is ours; what the app sends is dropped."""
    _armed: bool
    """A deadline is in force."""
    _due: float
    """When a deadline would be over that is only watched."""
    _attendance: Attendance | None
    """Who looks whether the client is still there."""
    _gone: bool
    """It is not, and the app was cancelled for it."""
    _reply: asyncio.Task[None] | None
    """The 504 that is being sent while the app still runs."""

    # -- its time -------------------------------------------------------------------------------------------------

    def time_for(self, deadlines: InboundDeadlines) -> float | None:
        """Seconds that the request has; None for one that came too late and is refused."""
        granted: float | None = deadlines.seconds(self._scope)
        if deadlines.guarded:
            granted = self._believed(deadlines, granted or 0.0)
        if deadlines.enforce or granted is None or granted == math.inf:
            return granted
        self._due, self._body_bounded = self._began + granted, deadlines.body
        return math.inf

    def _believed(self, deadlines: InboundDeadlines, seconds: float) -> float | None:
        now = self._resilience.clock.now()
        granted = deadlines.granted(seconds, now)
        if granted != seconds and (self.first_to_be_late() if granted is None else self.first_to_doubt()):
            self._resilience.outbox.emit(DeadlinePassed(at=now, side="inbound", limit="expired", enforced=granted is None))
        return granted

    def bounded(self, deadlines: InboundDeadlines | None, seconds: float, loop: Any) -> anyio.CancelScope:
        """A scope to serve the request in: cancelled after `seconds` unless that is lifted before, or once the client has gone."""
        slot: set[Any] | None = None
        if deadlines is not None and seconds != math.inf:
            self._armed = True
            self._body_bounded = deadlines.body
            self._own_at = at = self._began + seconds
            outer = DEADLINE.get()
            self._outer_at = outer_at = math.inf if outer is None else outer.at
            if at < outer_at or self._outer is not None:  # a limit further out may be lifted before ours
                self._deadline = deadline = _new_deadline(Deadline)  # filling it in costs half of what a call of its __init__ does
                deadline.at = at if at < outer_at else outer_at  # noqa: FURB136 - and so does this, of min()
                deadline.clock, deadline.inbound = self._resilience.clock, True
                self._deadline_token = DEADLINE.set(deadline)
            if self._task:
                self._slot = slot = slot_in(loop, seconds)
            self._hard = deadlines.hard and slot is not None
        if slot is not None or self._attendance is not None:
            self._context = copy_context()
        if self._attendance is not None:
            self._attendance.begin(self._context)
        self.native = slot is not None
        if slot is not None:
            self._cancel_scope = new_scope()
            slot.add(self)
        elif self._armed:
            self._cancel_scope = anyio.CancelScope(deadline=anyio.current_time() + seconds)
        else:
            self._cancel_scope = anyio.CancelScope()
        return self._cancel_scope

    def cancel(self) -> None:
        """The time is over; called by the event loop."""
        if self._hard and not self._started and not self._gone:
            # A thread may hold the app for as long as it likes; the client is told now.
            self._started = self._replaced = True
            self._tell_passed("inbound")
            # In the request's own context: the timer's is that of whichever request armed it first.
            self._reply = asyncio.get_running_loop().create_task(self._answer_late(), context=self._context)
        self.cut = True
        self._cancel_scope.cancel()

    def _lift(self) -> None:
        """From now on the request may take as long as it likes, and so may every call that is made for it."""
        self._disarm()
        self._own_at = math.inf
        if self._inner is None and self._deadline is not None:  # as `lifted` does, without its frame
            self._deadline.at = self._outer_at
        else:
            self.lifted(self._outer_at)

    def _disarm(self) -> None:
        self._armed = False
        if self._slot is not None:
            self._slot.discard(self)
        else:
            self._cancel_scope.deadline = math.inf

    def _look_at_time(self) -> None:
        """Tell of a limit that is only watched, if it was over by now."""
        now, due = self._resilience.clock.now(), self._due
        self._due = math.inf
        if now >= due and self.first_to_be_late():
            self._resilience.outbox.emit(DeadlinePassed(at=now, side="inbound", limit="inbound", enforced=False))

    # -- its client -----------------------------------------------------------------------------------------------

    def attended(self, disconnects: Disconnects, receive: Receive) -> Receive:
        """What the app is to receive through, so that its client's leaving is noticed, if it is to be."""
        if not disconnects.watches(self._scope):
            return receive
        self._attendance = attendance = Attendance(disconnects, self._scope, receive, self)
        return attendance.receive

    @property
    def is_attended(self) -> bool:
        """Whether somebody looks whether the client is still there."""
        return self._attendance is not None

    def left(self, *, enforce: bool) -> None:
        """The client has gone while the app is at work."""
        if self._replaced or (enforce and self._cancel_scope.cancel_called):
            return
        if not enforce:
            self._resilience.outbox.emit(ClientGone(at=self._resilience.clock.now(), enforced=False))
            return
        self._gone = self.cut = True
        self._cancel_scope.cancel()

    # -- its end --------------------------------------------------------------------------------------------------

    async def ended(self, *, caught: bool) -> None:
        """The scope was cancelled before the app was done; `caught` if the app was cancelled for it.

        Raises:
            DeadlineExceeded: the response had started, so that breaking it off is all that is left.
        """
        if self._gone:
            if caught:
                self._resilience.outbox.emit(ClientGone(at=self._resilience.clock.now()))
            if not self._started:
                body = {"type": MESSAGE_BODY, "body": b""}
                await self._answer({"type": MESSAGE_START, "status": CLIENT_GONE, "headers": [(b"content-length", b"0")]}, body)
            return
        reply, self._reply = self._reply, None
        if reply is not None:
            await reply
        elif not self._started:
            self._tell_passed("inbound")
            await self._answer_late()
        elif caught:
            self._tell_passed("inbound")
            raise DeadlineExceeded("the response was not complete in time", policy="deadline", reason="inbound")
        else:
            self._tell_passed("late")

    def _tell_passed(self, limit: str) -> None:
        resilience = self._resilience
        if self.first_to_be_late():
            resilience.outbox.emit(DeadlinePassed(at=resilience.clock.now(), side="inbound", limit=limit))

    if TYPE_CHECKING:  # what an exchange answers with

        async def _answer_late(self) -> None: ...
        async def _answer(self, start: Message, body: Message) -> None: ...
