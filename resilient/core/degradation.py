"""How far a feature is from its full self, and what one request was served instead.

Rules of this file: no clock, no await, no events. `now` is an argument; whoever calls owns the time and the telling.
"""

from __future__ import annotations

import enum
import math
import threading
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

__all__ = ["Degradation", "DegradationRecord", "Hysteresis", "Level", "LevelChange", "service_level", "worse"]


class Level(enum.StrEnum):
    """How much of a feature its users get. Compare by `severity`, not by the words."""

    FULL = "full"
    """The dependency's own, fresh answer."""
    REDUCED = "reduced"
    """A lesser answer made for this use: cached, stale, or computed."""
    STATIC = "static"
    """A fixed default."""
    OFF = "off"
    """Nothing: the feature is absent or its error was raised."""

    @property
    def severity(self) -> int:
        """0 for full, up to 3 for off."""
        return _SEVERITY[self]


_SEVERITY = {level: severity for severity, level in enumerate(Level)}


def worse(one: Level, other: Level) -> Level:
    """The more severe of two."""
    return one if one.severity >= other.severity else other


def service_level(features: Iterable[tuple[Level, bool]]) -> str:
    """What the features say of the whole service, given as pairs of level and whether the feature is critical.

    Returns:
        "healthy" when every critical feature is full, "critical" when one is off, else "degraded".
    """
    worst = max((level.severity for level, critical in features if critical), default=0)
    if worst == Level.OFF.severity:
        return "critical"
    return "degraded" if worst else "healthy"


@dataclass(frozen=True, slots=True)
class Degradation:
    """One thing that a request was served below its full level.

    Attributes:
        feature: the feature's name, or the dependency's where a call outside every feature fell back.
        cause: the machine-readable why.
        dependency: the dependency that failed; empty if unknown.
        age: seconds since what was served instead was made; None where that has no meaning.
        own: whether it is the dependency's own fallback, and `feature` its name.
    """

    feature: str
    level: Level
    cause: str
    dependency: str = ""
    age: float | None = None
    own: bool = False


# Shared by all records: it is only taken once something was degraded, and a lock each would be paid by every request.
_ADDING = threading.Lock()


class DegradationRecord:
    """What one request was served below its full level, a feature once, at its worst.

    Code that runs for the request adds to it, from any thread; `close` ends that when the response starts, since
    nothing can be told to the client any more.

    Attributes:
        dropped: how many features were left out because the record was full.
        late: how many additions came after the response had started.
    """

    CAPACITY = 32

    __slots__ = ("_closed", "_entries", "dropped", "late")

    def __init__(self) -> None:
        # Most requests are never degraded: the dict is made by the first one to need it.
        self._entries: dict[str, Degradation] | None = None
        self._closed = False
        self.dropped = 0
        self.late = 0

    def add(
        self, feature: str, level: Level | str, cause: str, *, dependency: str = "", age: float | None = None, own: bool = False
    ) -> bool:
        """Note that `feature` was served at `level`. Returns whether the client can still be told of it."""
        entry = Degradation(feature, Level(level), cause, dependency, age, own)
        with _ADDING:
            if self._closed:
                self.late += 1
                return False
            if self._entries is None:
                self._entries = {}
            known = self._entries.get(feature)
            if known is None and len(self._entries) >= self.CAPACITY:
                self.dropped += 1
                return False
            if known is None or entry.level.severity > known.level.severity:
                self._entries[feature] = entry
            return True

    def close(self) -> tuple[Degradation, ...]:
        """Take no more additions. Returns what there is, in the order of first addition."""
        self._closed = True
        if self._entries is None:
            return ()
        with _ADDING:
            return tuple(self._entries.values())

    @property
    def entries(self) -> tuple[Degradation, ...]:
        """What was added so far."""
        with _ADDING:
            return tuple(self._entries.values()) if self._entries else ()


class LevelChange(NamedTuple):
    """A level that is left for another, and why."""

    old: Level
    new: Level
    cause: str


class Hysteresis:
    """A feature's level as its recent uses show it, slow enough to be worth telling.

    It falls with the first use that was served less, or when something begins to hold it down, and rises only when
    nothing has confirmed the present level for `recover_after` seconds: to the worst that was served in that time, or to
    full. A level is kept for `dwell` seconds at least; a fall that would come earlier waits. Changes that became due
    while nobody looked are reported by the next look, in order.

    Args:
        dwell: seconds that a level is kept at least.
        recover_after: seconds without a use as bad as the present level before it rises.

    Attributes:
        level: the present one.
        steady: whether it is full and will stay so: nothing to look for.
    """

    __slots__ = ("_cause", "_changed_at", "_held", "_pending", "_served", "dwell", "level", "recover_after", "steady")

    def __init__(self, dwell: float, recover_after: float) -> None:
        self.dwell = dwell
        self.recover_after = recover_after
        self.reset()

    def reset(self) -> None:
        """Full again, nothing remembered."""
        self.level = self._held = Level.FULL
        self.steady = True
        self._cause = ""  # of the pending fall
        self._changed_at = -math.inf
        self._served = [-math.inf] * len(Level)  # when each level was last served, by severity
        self._pending = Level.FULL  # a fall that waits for the dwell to be over; FULL if there is none

    def degraded(self, level: Level, cause: str, now: float) -> list[LevelChange]:
        """One use was served at `level`, which is not full. Returns the changes that are now to be told."""
        changes = self.look(now)
        self._served[level.severity] = now
        if level.severity <= self.level.severity:
            return changes
        if level.severity >= self._pending.severity:
            self._pending, self._cause = level, cause
        return changes + self.look(now)

    def hold(self, level: Level, cause: str, now: float) -> list[LevelChange]:
        """Something keeps it at `level` or below from now on, until the next hold; FULL is nothing.

        It counts like a use that lasts: after its end comes `recover_after`. Returns the changes that are now to be told.
        """
        changes = self.look(now)  # what held it has done so up to this moment
        self._held = level
        if level is not Level.FULL:
            changes += self.degraded(level, cause, now)
        else:
            self._steady()
        return changes

    def look(self, now: float) -> list[LevelChange]:
        """Let time pass: a fall that waited, recoveries that are due."""
        changes: list[LevelChange] = []
        if self._held is not Level.FULL:
            self._served[self._held.severity] = now
        if self._pending is not Level.FULL and now - self._changed_at >= self.dwell:
            changes.append(self._go(self._pending, max(self._changed_at + self.dwell, self._confirmed_at), self._cause))
        while self.level is not Level.FULL and self._pending is Level.FULL:
            recovers_at = max(self._confirmed_at + self.recover_after, self._changed_at + self.dwell)
            if now < recovers_at:
                break
            changes.append(self._go(self._recent(recovers_at), recovers_at, "recovered"))
        self._steady()
        return changes

    @property
    def held(self) -> bool:
        """Whether something holds it down."""
        return self._held is not Level.FULL

    @property
    def _confirmed_at(self) -> float:
        """When the present level or a worse one was last served."""
        return max(self._served[max(self.level.severity, self._pending.severity) :])

    def _recent(self, at: float) -> Level:
        """The worst level above the present one that was served less than `recover_after` before."""
        levels = list(Level)[: self.level.severity]
        return next((level for level in reversed(levels) if at < self._served[level.severity] + self.recover_after), Level.FULL)

    def _steady(self) -> None:
        self.steady = self.level is self._pending is self._held is Level.FULL

    def _go(self, level: Level, at: float, cause: str) -> LevelChange:
        change = LevelChange(self.level, level, cause)
        self.level, self._changed_at = level, at
        self._pending = Level.FULL
        return change
