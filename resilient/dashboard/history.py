"""How things went in the last five minutes: a point every two seconds, made by whoever looks then."""

from __future__ import annotations

from collections import deque
from typing import Any

__all__ = ["POINTS", "SHOWN", "STEP", "History"]

STEP = 2.0
"""Seconds between two points."""

POINTS = 150
"""Points that are kept."""

SHOWN = 50
"""Dependencies that have a history: the first of those shown."""

OF_A_DEPENDENCY = ("calls", "failures", "p95")
OF_THE_LOAD = ("in_flight", "shed", "requests")

Series = dict[str, deque[float | None]]


class History:
    """Bounded series, newest last. While nobody looks there are no points, but for the gap."""

    def __init__(self) -> None:
        self._slot: int | None = None
        self._dependencies: dict[str, Series] = {}
        self._load = _series(OF_THE_LOAD)

    def add(self, document: dict[str, Any], now: float) -> None:
        """Take what a look has shown, if it is time for another point."""
        slot = int(now // STEP)
        if self._slot is not None and slot <= self._slot:
            return
        # One point that was missed by a little is no gap: what came next stands for it.
        missed = 0 if self._slot is None else min(slot - self._slot - 1, POINTS)
        self._slot = slot
        shown = {one["name"]: one for one in document["dependencies"][:SHOWN]}
        for name in self._dependencies.keys() - shown.keys():
            del self._dependencies[name]
        for name, one in shown.items():
            series = self._dependencies.get(name)
            if series is None:
                self._dependencies[name] = series = _series(OF_A_DEPENDENCY)
                _append(series, one, 0)
            else:
                _append(series, one, missed)
        _append(self._load, document["load"], missed)

    def document(self, now: float, wall: float) -> dict[str, Any]:
        """The series; the last point of each is the one of `until`, and one that began later is shorter."""
        until = wall if self._slot is None else wall - max(now - self._slot * STEP, 0.0)
        return {
            "step": STEP,
            "until": until,
            "dependencies": {name: _listed(series) for name, series in self._dependencies.items()},
            "load": _listed(self._load),
        }


def _series(names: tuple[str, ...]) -> Series:
    return {name: deque[float | None](maxlen=POINTS) for name in names}


def _append(series: Series, shown: dict[str, Any], missed: int) -> None:
    for name, points in series.items():
        value = shown[name]
        points.extend([value if missed == 1 else None] * missed)
        points.append(value)


def _listed(series: Series) -> dict[str, list[float | None]]:
    return {name: list(points) for name, points in series.items()}
