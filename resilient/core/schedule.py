"""When a feature is not to be full: windows of the week, and single ones, in UTC.

Rules of this file: no clock. The moment is an argument, in seconds since 1970 (Unix time). Windows are half open: the end
belongs to no window.

    "static 02:00-04:00"                            every day
    "off sat,sun"                                   whole days
    "reduced mon-fri 22:00-06:00"                   over midnight: it belongs to the day on which it begins
    "off 2026-12-24T18:00/2026-12-26T06:00"         once, as ISO 8601 writes intervals
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import Any, NamedTuple

from .degradation import Level, worse

__all__ = ["Schedule"]

DAY = 86_400
MONDAY = 4 * DAY  # 1970-01-05
DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
MOST = 100

_DAY = "(?:mon|tue|wed|thu|fri|sat|sun)"
_TIME = r"(?:[01]\d|2[0-3]):[0-5]\d"
_WEEKLY = re.compile(
    rf"(?P<level>reduced|static|off)(?: (?P<days>{_DAY}(?:-{_DAY})?(?:,{_DAY}(?:-{_DAY})?)*))?(?: (?P<from>{_TIME})-(?P<to>{_TIME}|24:00))?"
)
_ONCE = re.compile(r"(?P<level>reduced|static|off) (?P<from>\d{4}-\d\d-\d\dT\d\d:\d\d)Z?/(?P<to>\d{4}-\d\d-\d\dT\d\d:\d\d)Z?")
EXAMPLE = "such as 'static 02:00-04:00', 'off sat,sun' or 'off 2026-12-24T18:00/2026-12-26T06:00' (UTC)"


class _Weekly(NamedTuple):
    level: Level
    days: frozenset[int]
    begin: int  # seconds of the day
    length: int

    def covers(self, moment: float) -> bool:
        """Whether a window that began today or yesterday still lasts."""
        day, second = divmod(moment - MONDAY, DAY)
        return any((day - ago) % 7 in self.days and 0 <= second + ago * DAY - self.begin < self.length for ago in (0, 1))


class _Once(NamedTuple):
    level: Level
    begin: float
    end: float

    def covers(self, moment: float) -> bool:
        return self.begin <= moment < self.end


class Schedule:
    """Windows in which a feature is at a level other than full.

    Args:
        windows: one as text, or several; at most 100. Where several cover a moment, the most severe holds.

    Raises:
        TypeError, ValueError: one cannot be read; the message shows it, and what is expected.
    """

    __slots__ = ("_windows", "windows")

    def __init__(self, windows: str | Iterable[str]) -> None:
        given = (windows,) if isinstance(windows, str) else windows
        if not isinstance(given, Iterable):
            raise TypeError(f"schedule: expected windows {EXAMPLE}, got {windows!r}")
        self.windows: tuple[str, ...] = tuple(given)
        if len(self.windows) > MOST:
            raise ValueError(f"schedule: at most {MOST} windows, got {len(self.windows)}")
        self._windows = tuple(_read(window) for window in self.windows)

    def __repr__(self) -> str:
        return f"Schedule({list(self.windows)!r})"

    @property
    def levels(self) -> frozenset[Level]:
        """Those that its windows name."""
        return frozenset(window.level for window in self._windows)

    def level(self, moment: float) -> Level:
        """The level for this moment; full outside of every window."""
        level = Level.FULL
        for window in self._windows:
            if window.covers(moment):
                level = worse(level, window.level)
        return level


def _read(window: Any) -> _Weekly | _Once:
    if not isinstance(window, str):
        raise TypeError(f"schedule: expected a window {EXAMPLE}, got {window!r}")
    once = _ONCE.fullmatch(window)
    if once is not None:
        begin, end = _moment(once["from"], window), _moment(once["to"], window)
        if end <= begin:
            raise ValueError(f"schedule: {window!r} ends before it begins")
        return _Once(Level(once["level"]), begin, end)
    read = _WEEKLY.fullmatch(window)
    if read is None or (read["days"] is None and read["from"] is None):
        raise ValueError(f"schedule: expected a window {EXAMPLE}, got {window!r}")
    begins, ends = (0, DAY) if read["from"] is None else (_seconds(read["from"]), _seconds(read["to"]))
    if begins == ends:
        raise ValueError(f"schedule: {window!r} is empty; a whole day is written without times")
    return _Weekly(Level(read["level"]), _days(read["days"]), begins, (ends - begins) % DAY or DAY)


def _days(written: str | None) -> frozenset[int]:
    if written is None:
        return frozenset(range(7))
    days: set[int] = set()
    for part in written.split(","):
        first, _, last = part.partition("-")
        begin = DAYS.index(first)
        days.update((begin + number) % 7 for number in range((DAYS.index(last or first) - begin) % 7 + 1))
    return frozenset(days)


def _seconds(time: str) -> int:
    hours, minutes = time.split(":")
    return int(hours) * 3600 + int(minutes) * 60


def _moment(written: str, window: str) -> float:
    try:
        return datetime.fromisoformat(written).replace(tzinfo=UTC).timestamp()
    except ValueError as error:
        raise ValueError(f"schedule: {window!r}: {error}") from None
