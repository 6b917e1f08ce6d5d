"""What was read of late: the same record is not taken apart twice."""

from __future__ import annotations

import math
import threading
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import fields
from functools import partial

from ..core.entry import OVERHEAD, Entry, Record
from .forks import renewed_in_children

__all__ = ["Kept", "Known"]

LIMIT = 4 * 2**20  # bytes, of what was read and of what it was read from
_LARGEST = LIMIT // 16
# When it came is for each reader to find out.
_FIELDS = [field.name for field in fields(Entry) if field.name != "arrived"]


class Kept:
    """A record that was read.

    Args:
        sign: what it is known again by.
        record: what was read.
        until: when it is over, in wall time.
        used: when it was last said to be of use, likewise.
    """

    __slots__ = ("_copy", "_given", "_record", "sign", "until", "used")

    def __init__(self, sign: bytes | int, record: Record, *, until: float = math.inf, used: float = math.inf) -> None:
        self.sign = sign
        self.until = until
        self.used = used
        self._record = record
        # The first reader has what was read; only then, if there is another, is it made ready to be copied.
        self._given: list[Record] | None = [record] if type(record) is Entry else None
        self._copy: partial[Entry] | None = None

    def record(self) -> Record:
        """The record; an entry is the reader's own, and not yet placed in time."""
        if self._copy is not None:
            return self._copy()
        given, record = self._given, self._record
        if given is None:
            return record
        if given:
            with suppress(IndexError):  # another thread was faster
                return given.pop()
        self._copy = copy = partial(Entry, **{name: getattr(record, name) for name in _FIELDS})
        return copy()


class Known:
    """The records that were read of late, each with what it is known again by; the oldest goes first.

    That is the very bytes, or a number that no other record has or will have. Reading one again costs a comparison. It says
    nothing of what is in the store now: bytes or number come from there, each time.
    """

    def __init__(self, limit: int = LIMIT) -> None:
        self._limit = limit
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Begin with nothing."""
        self._lock = threading.Lock()
        self._kept: dict[str, tuple[Kept, int]] = {}
        self.size = 0

    def get(self, key: str, sign: bytes | int) -> Kept | None:
        """What was read under a key, if it is known again by `sign`."""
        held = self._kept.get(key)
        return held[0] if held is not None and held[0].sign == sign else None

    def look(self, keys: Iterable[str], signs: Iterable[bytes | int | None]) -> list[Kept | None]:
        """The same for many; None where there is no sign."""
        return [None if sign is None else self.get(key, sign) for key, sign in zip(keys, signs, strict=True)]

    def put(self, key: str, kept: Kept, size: int) -> None:
        """Remember what was read under a key: so many bytes, whatever an entry says of its own size."""
        size += len(key) + OVERHEAD
        if size > min(_LARGEST, self._limit):
            return
        with self._lock:
            self._drop(key)
            while self.size + size > self._limit:
                self._drop(next(iter(self._kept)))
            self._kept[key] = kept, size
            self.size += size

    def _drop(self, key: str) -> None:
        held = self._kept.pop(key, None)
        if held is not None:
            self.size -= held[1]
