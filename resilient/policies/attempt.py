"""An attempt that has ended: what it came to, until another one is made or the caller is given it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..core.outcome import Outcome
from ..errors import DeadlineExceeded, Rejected

if TYPE_CHECKING:
    from ..call import Call
    from ..core.budget import Grant
    from .budget import RetryBudget

__all__ = ["NEVER", "Attempt", "never_made", "refused"]

NEVER = -math.inf
"""When an attempt began that was not made."""


class Attempt:
    """How one attempt ended, and what paid for the one that follows it."""

    __slots__ = ("_paid", "error", "lost", "outcome", "result")

    def __init__(self, result: Any, error: Exception | None, outcome: Outcome) -> None:
        self.result = result
        self.error = error
        self.outcome = outcome
        self.lost = False
        self._paid: tuple[RetryBudget, Grant] | None = None

    def followed(self, budget: RetryBudget, now: float) -> bool:
        """Pay for an attempt after this one. False if the budget refuses it."""
        grant = budget.withdraw(now)
        if grant is None:
            return False
        self._paid = budget, grant
        return True

    def unfollowed(self, now: float) -> None:
        """The one that was paid for was not made."""
        if self._paid is not None:
            budget, grant = self._paid
            budget.refund(grant, now)

    def lose(self, call: Call) -> None:
        """The answer was too large to keep; what is left of it is an error that tells of it."""
        self.error = call.failure_of(self.result)
        self.result = None
        self.lost = True

    def answer(self, refusal: Exception | None) -> Any:
        """Give this attempt's answer to the caller, as it was; where it is lost, why there was no other one."""
        error, result, lost = self.error, self.result, self.lost
        # Nothing that an error's traceback leads to may lead back to it.
        self.error = self.result = None
        try:
            if lost and refusal is not None:
                raise refusal from error
            if error is not None:
                raise error
            return result
        finally:
            del error, refusal


def refused(call: Call, error: Exception | None) -> bool:
    """Whether our own policies kept an attempt from being made: they refused it, or no time was left to start it in."""
    if error is None:
        return False
    return call.refused(error) or (isinstance(error, DeadlineExceeded) and call.timed and call.attempt_started == NEVER)


def never_made(call: Call, error: Exception) -> bool:
    """Whether an attempt that was `refused` was so by a policy of this very call, and not by one that its function met."""
    return call.turned_away(error) or not isinstance(error, Rejected)
