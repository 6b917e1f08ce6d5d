"""Hearing what servers say about their limits: in every answer, those that a retry inside throws away included."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..call import Call
    from ..core.ratelimit import Limiter
    from .turns import Turns

__all__ = ["Listening"]

logger = logging.getLogger("resilient")


class Listening:
    """Tells limiters what the answers of calls say.

    Args:
        turns: wakes those whose turn comes by it.
        longest: seconds for which anything is believed.
        fields: whether to read more than `Retry-After`.

    Attributes:
        garbage: fields that could not be understood.
    """

    __slots__ = ("_fields", "_longest", "_turns", "_unread", "garbage")

    def __init__(self, turns: Turns, longest: float, *, fields: bool) -> None:
        self._turns = turns
        self._longest = longest
        self._fields = fields
        self._unread = False
        self.garbage = 0

    def attend(self, call: Call, limiter: Limiter) -> None:
        """Listen to each answer that the call gets; once, however often it is tried."""
        ear = call.fn
        while type(ear) is Ear:
            if ear.limiter is limiter:
                return
            ear = ear.fn
        call.fn = Ear(call.fn, call, self, limiter)

    def hear(self, call: Call, limiter: Limiter, result: Any, error: BaseException | None) -> None:
        """Learn from one answer."""
        told = call.told(result, error, fields=self._fields)
        if told is None:
            return
        now = call.runtime.now()
        with self._turns.lock:
            self.garbage += told.garbage
            if told.wait is not None:
                limiter.push_back(now + min(told.wait, self._longest))
            elif told.remaining is not None:
                limiter.allow(told.remaining, told.reset, now, self._longest)
            woken = limiter.advance(now)
        self._turns.wake(limiter, woken, now)
        if told.unread and not self._unread:
            self._unread = True
            logger.warning("%s: its RateLimit fields can only be read with http-sf: pip install resilient-asgi[ratelimit]", call.owner.name)


class Ear:
    """A call's function, whose answers are listened to."""

    __slots__ = ("_call", "_listening", "fn", "limiter")

    def __init__(self, fn: Callable[..., Any], call: Call, listening: Listening, limiter: Limiter) -> None:
        self.fn = fn
        self.limiter = limiter
        self._call = call
        self._listening = listening

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        call = self._call
        if not call.runtime.sync:
            return self._awaited(*args, **kwargs)
        result = self.fn(*args, **kwargs)
        self._listening.hear(call, self.limiter, result, None)
        return result

    async def _awaited(self, *args: Any, **kwargs: Any) -> Any:
        result = await self.fn(*args, **kwargs)
        self._listening.hear(self._call, self.limiter, result, None)
        return result
