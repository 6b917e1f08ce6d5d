"""Controlled delay: what tells a burst, which a queue is for, from an overload, which it only delays.

Rules of this file: no clock, no lock, no waiting; `now` is an argument.

A queue that is empty again and again absorbs bursts; one that is not for a whole interval is a standing one, and who joins
it waits for nothing (Nichols & Jacobson, "Controlling Queue Delay", ACM Queue 10:5, 2012). `Line` is that rule as servers
use it, with the wait of each request as the thing controlled (Maurer, "Fail at Scale", ACM Queue 13:8, 2015: 100 ms, and
5 ms in a standing queue); `Lateness` is that rule for a delay that is only seen in samples (folly's `Codel`).
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Any

from .bounds import not_negative, positive

__all__ = ["Lateness", "Line"]


class Line:
    """Who waits, first come first served, and how long each may.

    Args:
        patience: seconds that one may wait.
        standing_after: seconds without an empty line after which it is a standing one ...
        standing_patience: ... in which one may wait so long, also who joined before.
        relapse: seconds; a standing line that was empty for less than this is one again as soon as somebody joins it.
    """

    __slots__ = ("_entries", "_since", "_stood", "patience", "relapse", "standing_after", "standing_patience")

    def __init__(self, patience: float, standing_after: float, standing_patience: float, relapse: float = 0.0) -> None:
        positive("patience", patience)
        positive("standing_after", standing_after)
        positive("standing_patience", standing_patience)
        not_negative("relapse", relapse)
        self.patience = patience
        self.standing_after = standing_after
        self.standing_patience = standing_patience
        self.relapse = relapse
        # By identity, so that any object can wait, and may leave from the middle at no cost.
        self._entries: OrderedDict[int, tuple[Any, float]] = OrderedDict()
        self._since = 0.0
        self._stood = -math.inf

    def __len__(self) -> int:
        return len(self._entries)

    def standing(self, now: float) -> bool:
        """Whether it has not been empty for so long that it is no burst."""
        if not self._entries or now - self._since < self.standing_after:
            return False
        self._stood = now
        return True

    def limit(self, now: float) -> float:
        """Seconds that one may wait, as it looks now."""
        return min(self.patience, self.standing_patience) if self.standing(now) else self.patience

    def join(self, entry: object, now: float) -> None:
        """Wait at its end."""
        if not self._entries:
            self._since = now - self.standing_after if now - self._stood < self.relapse else now
        self._entries[id(entry)] = entry, now

    def leave(self, entry: object) -> bool:
        """Wait no more. False if it did not."""
        return self._entries.pop(id(entry), None) is not None

    def first(self) -> Any:
        """Take the one who has waited longest."""
        return self._entries.popitem(last=False)[1][0]

    def last(self) -> Any:
        """Take the one who has waited shortest."""
        return self._entries.popitem()[1][0]

    def overdue(self, now: float) -> list[Any]:
        """Take those who have waited for too long."""
        limit, found = self.limit(now), []
        while self._entries:
            entry, joined = next(iter(self._entries.values()))
            if now - joined <= limit:
                break
            del self._entries[id(entry)]
            found.append(entry)
        return found


class Lateness:
    """Whether a delay that is seen in samples stays: its least value of an interval is above the target.

    Args:
        target: seconds that are no sign of load.
        interval: seconds.

    Attributes:
        latest: the last sample.
        late: whether the delay stays, by the last interval that is over. One sample within the target says at once that
            it does not.
    """

    __slots__ = ("_least", "_until", "interval", "late", "latest", "target")

    def __init__(self, target: float = 0.005, interval: float = 0.1) -> None:
        positive("target", target)
        positive("interval", interval)
        self.target = target
        self.interval = interval
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.latest = 0.0
        self.late = False
        self._least: float | None = None
        self._until = 0.0

    def add(self, delay: float, now: float) -> bool:
        """Take a sample. Returns whether it is late from now on."""
        self.latest = delay
        if self._least is None:
            self._least, self._until = delay, now + self.interval
        self._least = min(self._least, delay)
        if self._least <= self.target:
            self.late = False
        if now >= self._until:
            self.late = self._least > self.target
            self._least = None
        return self.late
