"""How time is shared between targets, and what the end of them all says.

Rules of this file: pure functions of numbers and outcomes.
"""

from __future__ import annotations

from collections.abc import Iterable

from .outcome import Outcome

__all__ = ["share_of", "worst"]

_BY_WEIGHT = (Outcome.IGNORED, Outcome.SUCCESS, Outcome.THROTTLED, Outcome.FAILURE, Outcome.OUTAGE)


def share_of(remaining: float, others: int) -> float:
    """Seconds that one target may take, of those that remain for it and for `others` that could follow it."""
    return remaining / (others + 1)


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of a call by those of its targets: that of the one who says most against the dependency."""
    return max(outcomes, key=_BY_WEIGHT.index)
