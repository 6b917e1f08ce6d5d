"""What comes after an answer has begun: a streamed body or a generator, timed chunk by chunk and settled at its end."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import Context, copy_context
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from .core.outcome import Outcome, outcome_of_cut
from .interruption import EXPIRED

if TYPE_CHECKING:
    from .call import Call
    from .errors import DeadlineExceeded

__all__ = ["END", "INFINITY", "Body"]

INFINITY = math.inf
SUCCESS = Outcome.SUCCESS
R = TypeVar("R")

END: Any = object()
"""What a fetch returns instead of raising at the end: a StopIteration must not cross a coroutine."""


class Body:
    """Holds what its call holds until the last chunk, an error or a close; settles it exactly once.

    Args:
        call: the call whose answer has begun.
        outcome: what the beginning says of the dependency. The call's outcome is the worse of this and the body's end.
        silent: whether the stream may pause for as long as it likes (event streams, upgraded connections).
        interim: whether more of the same call is to follow (a redirect, a challenge), so that its deadline holds here.
    """

    __slots__ = ("_away", "_context", "_first", "_idle", "_limit", "_now", "_outcome", "_reason", "_returned", "_total", "call", "settled")

    def __init__(self, call: Call, outcome: Outcome, *, silent: bool = False, interim: bool = False) -> None:
        timeout = call.timeout
        self.call = call
        self._outcome = outcome
        self._now = call.runtime.now
        # Seconds for a chunk that is not the first, which `first_byte` may give others.
        self._idle = INFINITY if timeout is None else timeout.chunk_limit(first=False, silent=silent)
        self._first = timeout is not None and timeout.first_byte is not None
        bounded = interim or (timeout is not None and timeout.body == "total" and not silent)
        self._total = call.deadline if bounded else INFINITY
        # Seconds that the reader was busy with what it had, and when it was given that: not the dependency's time.
        self._away = 0.0
        self._returned = self._now() if bounded else 0.0
        self.settled = False
        # Who reads it, or collects it, may be anybody; what happens to it has happened to the caller.
        self._context: Context | None = copy_context() if call.owner.outbox.in_context else None
        call.answered = self._now()
        if call.trial is not None and not outcome.failed:
            call.trial.answered = True

    def end_by(self, moment: float) -> None:
        """Have all of it come by `moment`."""
        if moment < self._total:
            self._total, self._returned = moment, self._now()

    @property
    def read_limit(self) -> float:
        """Seconds that a single read may take from here on.

        Looked up once for all of a body over HTTP/1.1, so that it must not be too short for the first chunk, nor for the
        others; each chunk's own limit is kept to where a read can be interrupted.
        """
        limit = self._idle
        if self._first:
            limit = max(limit, self.call.timeout.first_byte or 0.0)  # type: ignore[union-attr]  # it is why this is the first
        return limit if self._total == INFINITY else min(limit, self._total - self._now())

    @property
    def bounded(self) -> bool:
        """Whether any of its chunks has a limit."""
        return self._first or self._idle != INFINITY or self._total != INFINITY

    async def next(self, fetch: Callable[[], Any]) -> Any:
        """The next chunk, or END.

        Args:
            fetch: returns (on the async runtime: awaits) the next chunk or END.

        Raises:
            DeadlineExceeded: it did not come in time, or the time was over before it was asked for.
        """
        limit = self.begin()
        try:
            chunk = await self.call.runtime.bounded(limit, fetch)
        except BaseException as error:
            self.broken(error)
            raise
        if chunk is EXPIRED:
            raise self.late()
        if chunk is END:
            self.end()
        else:
            self.came()
        return chunk

    def begin(self) -> float:
        """The moment by which the next chunk has to be there, which is about to be asked for; infinity for none.

        Raises:
            DeadlineExceeded: the time is over already.
        """
        total = self._total
        now = self._now()
        if self._first:
            self._limit = now + (self.call.timeout.first_byte or INFINITY)  # type: ignore[union-attr]  # it is why this is the first
            self._reason = "first_byte"
        else:
            self._limit = now + self._idle
            self._reason = "idle"
        if total != INFINITY:
            self._away += now - self._returned
            if total <= self._limit:
                self._limit, self._reason = total, self.call.limit
                if now >= total:
                    # A chunk that is buffered already would come without any wait, and no timer would ever see it.
                    raise self._cut(now)
        return self._limit

    def came(self) -> None:
        """The chunk that was asked for is there."""
        self._first = False
        if self._total != INFINITY:
            self._returned = self._now()

    def late(self) -> DeadlineExceeded:
        """The error for a chunk that did not come in time."""
        return self._cut(self._now())

    def broken(self, error: BaseException) -> None:
        """An error came in place of the next chunk.

        Raises:
            DeadlineExceeded: it was the client library's timer, told not to run longer than ours, and only quicker.
        """
        call = self.call
        if call.is_timeout(error) and self._now() >= self._limit - 0.001:
            raise self.late() from error
        self.fail(error)

    def _cut(self, now: float) -> DeadlineExceeded:
        call, reason = self.call, self._reason
        ran = now - call.attempt_started - self._away
        outcome = Outcome.OUTAGE if reason in ("idle", "first_byte") else outcome_of_cut(ran, call.attempt_timeout, call.owner.stats.p95())
        error = self.within(partial(call.cut, "the body did not come in time", policy="timeout", reason=reason, outcome=outcome))
        self.settle(outcome, error, sampled=False)
        return error

    def fail(self, error: BaseException) -> None:
        """The body broke, or its reader was cancelled."""
        self.settle(self.call.outcome_of_error(error), error, sampled=False)

    def end(self) -> None:
        """The body came to its end."""
        self.settle(SUCCESS, None, sampled=True)

    def close(self) -> None:
        """The reader has had enough: the beginning decides, and there is no latency to learn from."""
        self.settle(SUCCESS, None, sampled=False)

    def settle(self, outcome: Outcome, error: BaseException | None, *, sampled: bool) -> None:
        if self.settled:
            return
        self.settled = True
        if outcome is SUCCESS or (self._outcome.failed and not outcome.failed):
            outcome = self._outcome
        if self._context is None:  # as for most: it has a frame less
            self.call.owner.close(self.call, outcome, error, sampled=sampled)
        else:
            self.within(partial(self.call.owner.close, self.call, outcome, error, sampled=sampled))

    def within(self, act: Callable[[], R]) -> R:
        """Do something that listeners may be told of, in the context of the call where one of them wants that."""
        # A context is entered by one at a time; a copy of it costs no more than a reference.
        return act() if self._context is None else self._context.copy().run(act)
