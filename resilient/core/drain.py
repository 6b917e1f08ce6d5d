"""When a service that is about to stop does what.

Rules of this file: no clock, no events. `now` is an argument; what is drained, the callers know.
"""

from __future__ import annotations

from typing import NamedTuple

__all__ = ["DrainOrder"]


class DrainOrder(NamedTuple):
    """That a service takes leave, and its timetable. It serves on until `closes_at`; what is under way has until `ends_at`.

    Attributes:
        began: when it was ordered, on the clock of the `Resilience`; readiness fails from then on.
        closes_at: from then on no new work is taken on.
        ends_at: by then what is under way should have ended.
        by, why: who says so.
        final: whether the process stops afterwards; a service that is started again in it is ready again.
    """

    began: float
    closes_at: float
    ends_at: float
    by: str = ""
    why: str = ""
    final: bool = False

    def closed(self, now: float) -> bool:
        """Whether no new work is taken on any more."""
        return now >= self.closes_at

    def over(self, now: float) -> bool:
        """Whether the time is over that what is under way had."""
        return now >= self.ends_at

    def joined(self, other: DrainOrder) -> DrainOrder:
        """Both orders at a time: the earlier moments, and the first word of who and why."""
        return DrainOrder(
            self.began,
            min(self.closes_at, other.closes_at),
            min(self.ends_at, other.ends_at),
            self.by or other.by,
            self.why or other.why,
            self.final or other.final,
        )
