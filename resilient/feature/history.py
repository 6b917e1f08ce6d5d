"""What became of a feature, for whoever asks later: what, when, who and why."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

__all__ = ["LONGEST_HISTORY", "HistoryEntry", "moment"]

LONGEST_HISTORY = 100
"""Entries that a feature keeps; one more drops the oldest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HistoryEntry:
    """One thing that happened to a feature.

    Attributes:
        when: in UTC, by the wall clock.
        what: changed (the level), ordered (by an operator), lifted (by one), expired (an order's time was over).
        level: the new level, or the one that the order is about.
        old: the level before, of a change.
        cause: the trigger: what a use failed with, recovered, dependency:<name>, feature:<name>, load, operator,
            schedule, read_only.
        by: who, where somebody did it.
        why: in their words.
        tenant: whose uses an order is about; None for everybody's.
        share: how many of the uses an order is about.
    """

    when: datetime
    what: str
    level: str
    old: str = ""
    cause: str = ""
    by: str = ""
    why: str = ""
    tenant: str | None = None
    share: float = 1.0


def moment(wall: float) -> datetime:
    """A reading of the wall clock as a date; the epoch for one that no date has."""
    try:
        return datetime.fromtimestamp(wall, UTC)
    except (OverflowError, OSError, ValueError):
        return datetime.fromtimestamp(0, UTC)
