"""Records in this process, as they are."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping, Sequence

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import whole
from ..core.entry import Entry, Mark, Record, Variants
from ..core.segmented import Segmented
from .forks import renewed_in_children

__all__ = ["MemoryStore", "weight"]

# What a small record takes besides its text: measured, rounded up.
_SMALL = 256
_Kept = tuple[Record, int, float]


def weight(key: str, record: Record | None) -> int:
    """Bytes that a record, or the knowledge that there is none, takes in memory together with its key."""
    match record:
        case Entry():
            return record.size + len(key)
        case Variants():
            return _SMALL + len(key) + sum(map(len, record.keys)) + sum(len(name) for spec in record.specs for name in spec)
        case Mark():
            return _SMALL + len(key) + len(record.token)
        case None:
            return _SMALL + len(key)


class MemoryStore:
    """Keeps the records of one process, in so many bytes; what is worth least goes first.

    Entries and variants are dropped as `core/segmented.py` says. Marks are not: they have up to an eighth of the bytes, and
    `max_marks`; where there is no room for another, the oldest goes, and with it everything that was saved before it.

    Args:
        max_bytes: bound of all that is kept.
        max_entries: bound of the number of entries.
        max_marks: bound of the number of marks.
        clock: the source of time.

    Attributes:
        blocking: False; no method waits.
        limit: `max_bytes`.
        refused: records that were larger than there is room for.
    """

    blocking = False

    def __init__(
        self,
        max_bytes: int = 64 * 2**20,
        max_entries: int = 100_000,
        *,
        max_marks: int = 10_000,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        whole("max_bytes", max_bytes)
        whole("max_entries", max_entries)
        whole("max_marks", max_marks)
        self.limit = max_bytes
        self.refused = 0
        self._max_marks = max_marks
        self._clock = clock
        self._kept: Segmented[str, _Kept] = Segmented(max_bytes, max_entries)
        self._lock = threading.Lock()
        self._forget_marks()
        renewed_in_children(self)

    def _forget_marks(self) -> None:
        self._marks: OrderedDict[str, tuple[Mark, int, float]] = OrderedDict()
        self._marks_size = 0
        # Numbers what is saved, and the last number that went with a mark that had to go.
        self._number = self._floor = 0

    @property
    def marked(self) -> bool:
        """Whether there are any marks."""
        return bool(self._marks)

    @property
    def size(self) -> int:
        """Bytes that are kept."""
        return self._kept.size + self._marks_size

    @property
    def count(self) -> int:
        """Records that are kept."""
        return len(self._kept) + len(self._marks)

    @property
    def evictions(self) -> int:
        """Entries that went while they could still have been used."""
        return self._kept.evictions

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        """What is kept under each key, None for nothing."""
        now = self._clock.now()
        with self._lock:
            return [self._find(key, now) for key in keys]

    peek = load

    def _find(self, key: str, now: float) -> Record | None:
        kept = self._kept.get(key)
        if kept is None:
            mark = self._marks.get(key)
            return None if mark is None or mark[2] <= now else mark[0]
        if kept[2] <= now or kept[1] <= self._floor:
            self._kept.remove(key)
            return None
        return kept[0]

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        """Keep records, each for so many seconds."""
        now = self._clock.now()
        with self._lock:
            for key, (record, keep) in records.items():
                if type(record) is Mark:
                    self._save_mark(key, record, keep, now)
                    continue
                self._number += 1
                until = now + keep
                if key in self._marks:
                    self._drop(key)
                self._kept.max_bytes = self.limit - self._marks_size
                if not self._kept.put(key, (record, self._number, until), weight(key, record), worthless_at=until, now=now):
                    self.refused += 1

    def _save_mark(self, key: str, mark: Mark, keep: float, now: float) -> None:
        if mark.first and key in self._marks and self._marks[key][2] > now:
            return
        self._number += 1
        self._drop(key)
        self._marks[key] = mark, self._number, now + keep
        self._marks_size += weight(key, mark)
        self._make_room_for_marks(now)

    def _drop(self, key: str) -> None:
        if self._kept.remove(key) is None:
            mark = self._marks.pop(key, None)
            if mark is not None:
                self._marks_size -= weight(key, mark[0])

    def _make_room_for_marks(self, now: float) -> None:
        while len(self._marks) > self._max_marks or self._marks_size > self.limit // 8:
            key, (mark, number, until) = self._marks.popitem(last=False)
            self._marks_size -= weight(key, mark)
            if until > now:
                self._floor = number
        self._kept.pop_expired(now)
        while self._kept.size > self.limit - self._marks_size:
            self._kept.remove(next(iter(self._kept)))
            self._kept.evictions += 1

    def remove(self, keys: Sequence[str]) -> None:
        """Forget what is kept under keys."""
        with self._lock:
            for key in keys:
                self._drop(key)

    def clear(self) -> None:
        """Forget every entry. Marks stay, for answers that are still on their way."""
        with self._lock:
            self._kept.clear()

    def close(self) -> None:
        """Forget everything. It may be used again."""
        with self._lock:
            self._kept.clear()
            self._forget_marks()

    def renew(self) -> None:
        """Begin anew in a forked child, if a thread of the parent was just at work on the maps."""
        torn = self._lock.locked()
        self._lock = threading.Lock()
        if torn:
            self._kept.clear()
            self._forget_marks()
