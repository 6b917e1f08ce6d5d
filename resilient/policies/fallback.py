"""Fallback: what to answer when the dependency does not."""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, ClassVar

from ..context import RECORD
from ..core.bounds import exception_classes
from ..core.outcome import Outcome
from ..errors import ResilienceError
from ..events import FallbackServed
from ..substitute import Substitute
from .cached import CachedFallback
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["Fallback"]


class Fallback:
    """Answer in place of a dependency that failed, and say so.

    Served when the call failed (an error or an answer that is a failure of the dependency) or was refused or cut by
    this library; bugs and ordinary answers pass. Every use is counted, told on the degradation record of the request
    being served, and never taken for a success of the dependency.

    Args:
        fallback: a value, or a function that makes one. Lists, dicts, sets and tuples are copied for each use. A
            function is called with the call's own arguments (the request, for HTTP), or without any if it takes none,
            and awaited if need be; what it raises reaches the caller, with the failure as its context. For HTTP the
            value is a response of the client library, or anything that JSON can say, which is answered with 200; for any
            other value the caller gets a TypeError. What was not served is not told as served.
        on: an exception class, or several, that are answered by the fallback too.

    Raises:
        TypeError: from the constructor: `on` holds something that is no exception class.
    """

    __slots__ = ("_on", "_substitute")
    substitutes: ClassVar[bool] = True
    """That a call which fails is answered all the same, so that it may be cut as soon as there is no hope."""
    cached = CachedFallback
    """The last good value of a function, for as long as it may stand in for a failure: `Fallback.cached(ttl=60)`."""

    def __init__(self, fallback: Any, *, on: type[Exception] | Iterable[type[Exception]] = ()) -> None:
        self._on = exception_classes("on", on)
        self._substitute = Substitute(fallback)

    def __repr__(self) -> str:
        return shown(self, fallback=self._substitute.value, on=self._on)

    async def run(self, call: Call, inner: Inner) -> Any:
        mark = len(call.held)
        try:
            result = await inner(call)
            if call.plain:
                return result
            outcome = call.outcome_of(result)
            if not outcome.failed or call.late:
                return result  # an answer, even a late one, is better than its replacement
        except Exception as error:
            outcome = call.outcome_of_error(error)
            if not (outcome.failed or isinstance(error, (ResilienceError, *self._on)) or call.degradable(error)):
                raise
            return await self._serve(call, mark, outcome, call.cause_of(None, error), error)
        cause = call.cause_of(result, None)
        await call.discard(result)
        return await self._serve(call, mark, outcome, cause, None)

    async def _serve(self, call: Call, mark: int, outcome: Outcome, cause: str, error: Exception | None) -> Any:
        # Nothing may be held for the dependency while the replacement is made; that may itself be slow.
        call.settle(mark, outcome, error)
        args, kwargs = call.arguments()
        value = self._substitute.make(args, kwargs)
        if inspect.isawaitable(value):
            value = await value
        before, call.degraded = call.degraded, cause
        try:
            answer = call.replacement(value)
        except BaseException:
            call.degraded = before  # the caller gets the error, so nothing was served and nothing is told
            raise
        call.plain = False
        owner, level = call.owner, self._substitute.level
        record = RECORD.get()
        if record is not None:
            record.add(owner.name or "pipeline", level, cause, dependency=owner.name, own=True)
        owner.post(FallbackServed(at=call.runtime.now(), dependency=owner.name, level=level, cause=cause))
        return answer
