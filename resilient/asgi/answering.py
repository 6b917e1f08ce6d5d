"""One inbound request as far as this library answers it in the app's place: refusals, problems, answers that were kept."""

from __future__ import annotations

import logging
from collections.abc import Awaitable
from typing import TYPE_CHECKING

from ..errors import DeadlineExceeded, Overloaded, ResilienceError, cause_of
from .limit import LATE, Limited
from .protocols import Message, Send
from .responses import Problem, told_to_close
from .route import route_template

if TYPE_CHECKING:
    from .admission import Admission
    from .copies import Copy
    from .drain import DrainGate
    from .inbound import Inbound
    from .permit import Permit

__all__ = ["Answering"]

logger = logging.getLogger("resilient")


class Answering(Limited):
    """A request that may be answered without the app."""

    __slots__ = ("_copy", "_inbound", "_observed", "_permit", "_send", "_status")

    _inbound: Inbound
    _send: Send
    _copy: Copy | None
    """What is known of an answer that could be given in the place of an error."""
    _permit: Permit | None
    """What it holds of the app's slots."""
    _status: int
    """Of the response, once it has begun."""
    _observed: bool
    """The brownout knows how long the app took."""

    # -- at the door ----------------------------------------------------------------------------------------------

    def comes_too_late(self, drain: DrainGate) -> bool:
        """Whether the service takes on no new work any more, and this is new."""
        return drain.refuses(self._inbound, self._scope, self._outer)

    def send_away(self, drain: DrainGate) -> Awaitable[None]:
        """Answer that the service is about to stop."""
        return self._answer(*drain.settings.refusal(self._scope))

    async def turn_away(self, admission: Admission) -> None:
        """Answer that there are too many, unless an answer that was kept can stand in."""
        if self._copy is None or not await self._stood_in(Overloaded.cause, 503):
            await self._answer(*admission.refusal(head=self._scope["method"] == "HEAD"))

    def refuse(self, problem: Problem) -> Awaitable[None]:
        """Answer without the app."""
        return self._answer_problem(problem)

    # -- the last good answer -------------------------------------------------------------------------------------

    async def _stood_in(self, cause: str, status: int) -> bool:
        """Whether the client was given an answer that was kept, in the place of an error that would have had this status."""
        kept = None if self._copy is None else await self._copy.instead(cause, status)
        if kept is None:
            return False
        if self._permit is not None:
            self._permit.failed(status)  # what the client sees says nothing of it
        await self._answer(*kept)
        return True

    async def _unless_stood_in(self, start: Message) -> None:
        """The app's answer begins, and is an error. It tells of the load what it tells, whatever the client is given."""
        self._observe()
        if self._permit is not None:
            self._permit.answered(start["status"], silent=False)
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

    # -- our own answer -------------------------------------------------------------------------------------------

    def _marked(self, start: Message) -> Message:
        """The response's start, with what it was degraded by, and whether the connection is to be closed for a drain."""
        inbound = self._inbound
        if self._record is not None:
            degradations = self._record.close()
            if degradations:
                assert inbound.degradation is not None  # or there would be no record
                field = inbound.degradation.field(degradations, expose_causes=inbound.exposes(self._scope))
                start = {**start, "headers": [*start.get("headers", ()), field]}
        drain = inbound.drain
        if drain is not None and drain.leaving.order is not None:
            start = told_to_close(start, self._scope)
        return start

    def _observe(self) -> None:
        """The app took until now; what is refused at the door says nothing of the load."""
        inbound = self._inbound
        if inbound.brownout is not None and self.counts and not self._observed:
            self._observed = True
            inbound.brownout.observe(inbound.now() - self._began)

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
        await self._send(self._marked(start))
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

    if TYPE_CHECKING:  # what an exchange does with the app's

        def _begin(self, start: Message) -> Awaitable[None]: ...


def status_of(error: BaseException) -> int:
    """The status that an error which escapes the app is answered with."""
    if isinstance(error, DeadlineExceeded):
        return 504
    return 503 if isinstance(error, ResilienceError) else 500
