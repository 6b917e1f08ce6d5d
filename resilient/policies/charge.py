"""What a call was charged, and the handle by which it is corrected once its real cost is known."""

from __future__ import annotations

import math
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

from ..call import HANDLES

if TYPE_CHECKING:
    from ..call import Call
    from .ratelimit import RateLimit

__all__ = ["CHARGES", "Charge", "amount", "charge_of"]

MOST_PARTS = 8  # corrections upwards that are told apart, for the case that a later one goes down again

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

    __slots__ = ("attempts", "bucket", "call", "cost", "limit", "parts")

    def __init__(
        self, cost: float = 0.0, bucket: Any = None, limit: RateLimit | None = None, call: Any = None, ticket: Any = None, attempts: int = 1
    ) -> None:
        self.cost = cost
        # What only the limit itself is concerned with: whose it is, and what of it was taken for which attempt.
        self.bucket = bucket
        self.limit = limit
        self.call: Call = call
        self.parts = [(ticket, cost)]
        self.attempts = attempts

    def settle(self, actual: float) -> None:
        """Correct the cost to what the call really came to: the difference is given back, or booked on top.

        It may be called at any time, from any thread, and again when more is known; the last word counts. A cost above
        the one that was charged makes later calls wait; it is never an error.

        Raises:
            TypeError, ValueError: `actual` is no finite number of 0 or more.
        """
        actual = amount("actual", actual)
        if self.limit is not None:
            self.limit._correct(self, actual)

    def book(self, actual: float, now: float, *, unsent: bool = False) -> None:
        """Make it `actual`; the lock of the limit is held."""
        excess, self.cost = actual - self.cost, actual
        if excess > 0:
            ticket = self.bucket.charge(excess, now)
            if len(self.parts) < MOST_PARTS:
                self.parts.append((ticket, excess))
            else:  # an older ticket is good for no more than a newer one
                ticket, cost = self.parts[-1]
                self.parts[-1] = ticket, cost + excess
        while excess < 0:
            ticket, cost = self.parts.pop()
            back = min(cost, -excess)
            self.bucket.give_back(ticket, back, now, unsent=unsent)
            excess = excess + back if self.parts else 0.0
            if back < cost or not self.parts:
                self.parts.append((ticket, cost - back))

    def __repr__(self) -> str:
        return f"<Charge {self.cost:g}>"


def charge_of(limit: RateLimit, answer: Any) -> Charge:
    """What `limit` charged for a response, or, without one, for the call under way; an empty charge if it did not."""
    if answer is not None:
        handles = getattr(answer, "extensions", {}).get(HANDLES, {})
        return handles.get(limit) or Charge()
    under_way = CHARGES.get()
    while under_way is not None:
        policy, charge, under_way = under_way
        if policy is limit:
            return charge
    return Charge()
