"""What happened lately: transitions and orders, the last 200 of them, each with a number that a reader goes on from."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..events import Event
from ..protocols import Waiter
from .telling import QUIET, about, severity, text

__all__ = ["KEPT", "Entry", "Journal"]

KEPT = 200
"""Events that are kept; one more drops the oldest."""

OLDEST = 86400.0  # seconds; what says that it is older says nothing of when it was
MOST_CHANGES = 1000  # dependencies whose last transition is remembered


@dataclass(frozen=True, slots=True)
class Entry:
    """One event, as it is shown.

    Attributes:
        number: counts from 1 in each run of a process.
    """

    number: int
    document: dict[str, Any]


class Journal:
    """A listener that keeps what operators want to read, and wakes those who do.

    Args:
        now: the clock that events are timed by.
        wall: the wall clock, in seconds since 1970.
    """

    def __init__(self, now: Callable[[], float], wall: Callable[[], float]) -> None:
        self.run = ""
        self.heard: int = 0
        """How many were kept since the start."""
        self.last_changes: dict[str, dict[str, Any]] = {}
        """The last transition of each dependency's circuit."""
        self._now = now
        self._wall = wall
        self._kept: deque[Entry] = deque(maxlen=KEPT)
        self._waiting: set[Waiter] = set()
        self._lock = threading.Lock()

    def on_event(self, event: Event) -> None:
        """Keep an event, unless it is of a kind that comes with every call. Part of being a `Listener`."""
        kind = type(event)
        if kind in QUIET:
            return
        age = self._now() - event.at
        at = self._wall() - (age if 0 < age < OLDEST else 0.0)
        said = {"at": at, "kind": kind.__name__, "about": about(event), "text": text(event), "severity": severity(event)}
        with self._lock:
            self.heard += 1
            self._kept.append(Entry(self.heard, {"id": self.heard, **said}))
            if kind.__name__ == "CircuitChanged":
                self._remember(event, at)
            waiting, self._waiting = self._waiting, set()
        for waiter in waiting:
            waiter.wake()

    def _remember(self, event: Any, at: float) -> None:
        self.last_changes.pop(event.dependency, None)
        self.last_changes[event.dependency] = {"at": at, "old": event.old, "new": event.new, "reason": event.reason}
        if len(self.last_changes) > MOST_CHANGES:
            del self.last_changes[next(iter(self.last_changes))]

    # -- readers --------------------------------------------------------------------------------------------------

    def entries(self) -> list[Entry]:
        """All that is kept, oldest first."""
        with self._lock:
            return list(self._kept)

    def since(self, number: int) -> list[Entry] | None:
        """What came after that number; None if some of it is gone, or the number is none of this run's."""
        with self._lock:
            oldest = self.heard - len(self._kept)
            if not oldest <= number <= self.heard:
                return None
            return [entry for entry in self._kept if entry.number > number]

    def name(self, number: int) -> str:
        """What a reader is to say so that he is told what came after."""
        return f"{self.run}-{number}"

    def cursor(self, entries: list[Entry]) -> str:
        """Where a reader of these entries goes on."""
        return self.name(entries[-1].number if entries else 0)

    def number(self, name: str) -> int | None:
        """The number in what a reader says; None if it is no name of this run's."""
        run, dash, digits = name.rpartition("-")
        if run != self.run or not dash or not digits.isascii() or not digits.isdigit() or len(digits) > 15:
            return None
        return int(digits)

    # -- those who wait -------------------------------------------------------------------------------------------

    def wait(self, waiter: Waiter, seen: int) -> bool:
        """Wake `waiter` at the next event. False if there is one after `seen` already."""
        with self._lock:
            if self.heard != seen:
                return False
            self._waiting.add(waiter)
            return True

    def forget(self, waiter: Waiter) -> None:
        """It waits no more."""
        with self._lock:
            self._waiting.discard(waiter)

    @property
    def waiting(self) -> int:
        """How many wait."""
        return len(self._waiting)
