"""Label values cost memory here and in every Prometheus that scrapes them, so each label name has a cap."""

from __future__ import annotations

import threading
from collections.abc import Mapping

from ..core.bounds import whole
from .families import ALL, Family, Key

__all__ = ["OTHER", "LabelCap"]

OTHER = "other"
"""The value that stands for all those beyond a cap."""

CAPS = {"dependency": 1000, "feature": 1000, "route": 1000, "reason": 200, "cause": 200}
OTHERWISE = 50  # for the labels whose values are words of this library or of HTTP: outcome, policy, state, method, status and so on
MAX_SERIES = 10_000  # of one family: caps of single labels still multiply


class LabelCap:
    """Admits the first so many values of a label name; later ones become `other`.

    Args:
        limits: cap by label name, for those that shall differ from the defaults (1000 dependencies, 1000 features, 1000
            routes, 200 reasons, 200 causes, 50 of anything else).

    Raises:
        ValueError: a name in `limits` is no label name, or its cap is not at least 1.
        TypeError: a cap is not a whole number.
    """

    def __init__(self, limits: Mapping[str, int] | None = None) -> None:
        names = {name for family in ALL for name in family.labels}
        for name, cap in (limits or {}).items():
            if name not in names:
                raise ValueError(f"limits: {name!r} is not a label name; they are {', '.join(sorted(names))}")
            whole(f"limits[{name!r}]", cap)
        self._caps = dict.fromkeys(names, OTHERWISE) | CAPS | dict(limits or {})
        self._seen: dict[str, set[str]] = {name: set() for name in names}
        self._lock = threading.RLock()  # as the counters: a finalizer may have an event to tell

    def admit(self, name: str, value: str) -> str:
        """The value to export for `value` of the label `name`: itself, or `other` if it came too late."""
        seen = self._seen[name]
        if value in seen:
            return value
        with self._lock:
            if len(seen) < self._caps[name]:
                seen.add(value)
        return value if value in seen else OTHER

    def admit_key(self, family: Family, key: Key, series: int) -> Key:
        """The label values to export for `key`, in a family that has `series` of them already."""
        if series >= MAX_SERIES:
            return (OTHER,) * len(key)
        return tuple(map(self.admit, family.labels, key))

    def free(self, name: str, value: str) -> None:
        """Make room: nothing is exported with this value any more."""
        with self._lock:
            self._seen[name].discard(value)
