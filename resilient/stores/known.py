"""What records were made of: the same bytes are not taken apart twice."""

from __future__ import annotations

import threading
from dataclasses import fields
from functools import partial

from ..core.entry import OVERHEAD, Entry, Record
from .forks import renewed_in_children

__all__ = ["Known"]

LIMIT = 4 * 2**20  # bytes, of what was read and of what it was read from
_LARGEST = LIMIT // 16
# When it came is for each reader to find out.
_FIELDS = [field.name for field in fields(Entry) if field.name != "arrived"]


class Known:
    """The records that were read of late, each with the bytes that it was read from; the oldest goes first.

    Reading one again costs a comparison. It says nothing of what is in the store now: the bytes come from there, each time.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[bytes, Record | partial[Entry], int]] = {}
        self.size = 0

    def get(self, key: str, raw: bytes) -> Record | None:
        """What was made of these very bytes under a key; an entry is one's own, and not yet placed in time."""
        kept = self._kept.get(key)
        if kept is None or kept[0] != raw:
            return None
        record = kept[1]
        return record() if isinstance(record, partial) else record

    def put(self, key: str, raw: bytes, record: Record) -> None:
        """Remember what was made of these bytes, which have to be whole."""
        size = 2 * len(raw) + len(key) + OVERHEAD  # what an entry says of its own size may be anybody's word
        if size > min(_LARGEST, self._limit):
            return
        again: Record | partial[Entry]
        again = partial(Entry, **{name: getattr(record, name) for name in _FIELDS}) if isinstance(record, Entry) else record
        with self._lock:
            self._drop(key)
            while self.size + size > self._limit:
                self._drop(next(iter(self._kept)))
            self._kept[key] = raw, again, size
            self.size += size

    def _drop(self, key: str) -> None:
        kept = self._kept.pop(key, None)
        if kept is not None:
            self.size -= kept[2]
