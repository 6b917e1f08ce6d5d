"""What a call was charged, and the handle by which it is corrected once its real cost is known."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..call import Call
    from .ratelimit import RateLimit

__all__ = ["CHARGES", "Charge", "amount"]

# The charges of the calls under way, the innermost first: (policy, charge, those further out).
CHARGES: ContextVar[tuple[Any, Charge, Any] | None] = ContextVar("resilient_charges", default=None)


def amount(name: str, value: Any) -> float:
    """A cost that a program gave.

    Raises:
        TypeError, ValueError: it is no finite number of 0 or more; `name` says whose word it was.
    """
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: expected a number, got {value!r}")
    if not (math.isfinite(value) and value >= 0):
        raise ValueError(f"{name}: expected a finite number of 0 or more, got {value!r}")
    return float(value)


class Charge:
    """What one call was charged by one `RateLimit`.

    Attributes:
        cost: as charged, or as settled since; 0 where nothing was, because the limit only watches or is switched off.
    """

    __slots__ = ("_attempts", "_bucket", "_call", "_limit", "_now", "_ticket", "cost")

    def __init__(self, cost: float = 0.0, bucket: Any = None, ticket: Any = None, limit: RateLimit | None = None, call: Any = None) -> None:
        self.cost = cost
        self._bucket = bucket
        self._ticket = ticket
        self._limit = limit
        self._call: Call | None = call
        if call is not None:
            self._attempts = call.attempts
            self._now: Callable[[], float] = call.runtime.now

    def settle(self, actual: float) -> None:
        """Correct the cost to what the call really came to: the difference is given back, or booked on top.

        It may be called at any time, from any thread, and again when more is known; the last word counts. A cost above
        the one that was charged makes later calls wait; it is never an error.

        Raises:
            TypeError, ValueError: `actual` is no finite number of 0 or more.
        """
        actual = amount("actual", actual)
        if self._limit is not None:
            self._limit.correct(self, actual)

    def __repr__(self) -> str:
        return f"<Charge {self.cost:g}>"
