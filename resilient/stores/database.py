"""Records in one SQLite file that several processes share. What it raises is for `Guarded` to catch."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

from ..core.entry import Entry, Mark, Record
from .codec import check_value, encode, recover
from .connections import Connections
from .guarded import Busy
from .known import Kept, Known

if TYPE_CHECKING:
    from sqlite3 import Connection

__all__ = ["Database"]

MAX_MARKS = 10_000
SWEEP = 5.0
TOUCH = 60.0
_TOUCHED = 500
_KEYS = 1000  # at a time: SQLite reads at most 2000 columns


class Database:
    """A bounded map of records in a SQLite file.

    Args:
        path: of the file.
        max_bytes: of the pages in use; what is expired goes first, then the least recently used.
        timeout: seconds to wait for a lock or a connection.
        connections: at the most.
        wall: the source of wall time, which all processes share.

    Attributes:
        limit: `max_bytes`.
        size, count: bytes and records, as of the last write here, and of the last sweep.
        evictions: entries that this process let go for want of room.
        refused: records that were too large.
    """

    blocking = True

    def __init__(self, path: str, *, max_bytes: int, timeout: float, connections: int, wall: Callable[[], float] = time.time) -> None:
        self.connections = Connections(path, max_bytes, timeout, connections)
        self.limit = max_bytes
        self._largest = max_bytes // 8
        self._wall = wall
        self.size = self.count = self.evictions = self.refused = self._corrupt = 0
        # What was read, and when; noted rarely, so that a hit writes nothing.
        self._touched: dict[str, float] = {}
        self._known = Known()
        self._next_touch = self._next_sweep = 0.0

    @property
    def corrupt(self) -> int:
        """Records and files that could not be read."""
        return self._corrupt + self.connections.corrupt

    def check(self, record: Record) -> None:
        """Raise TypeError for a value that a file cannot keep."""
        if isinstance(record, Entry) and record.value is not None:
            check_value(record.value)

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        if not keys:
            return []
        if len(keys) > _KEYS:
            return [*self.load(keys[:_KEYS]), *self.load(keys[_KEYS:])]
        now = self._wall()
        records: list[Record | None] = []
        for key, kept in zip(keys, self._look(keys), strict=True):
            if kept is None or kept.until <= now:
                records.append(None)
                continue
            if kept.used < now - TOUCH and len(self._touched) < _TOUCHED:
                kept.used = self._touched[key] = now
            records.append(kept.record())
        if self._touched and now >= self._next_touch:
            self._touch(now)
        return records

    def _look(self, keys: Sequence[str]) -> list[Kept | None]:
        """What there is under keys. Their numbers take the index alone: what is known by its number is not read again."""
        with self.connections.reading() as connection:
            numbers = connection.execute(_numbering(len(keys)), keys).fetchone()
            found = self._known.look(keys, numbers)
            new = _new(keys, numbers, found) if None in found else {}
            if not new:
                return found
            rows = connection.execute(_selecting(len(new)), [*new]).fetchall()
        read = {row[0]: self._read(new[row[0]], *row) for row in rows}  # but those that went in between
        return [read.get(number) if kept is None else kept for number, kept in zip(numbers, found, strict=True)]

    def _read(self, key: str, number: int, mark: int, until: float, used: float, data: bytes) -> Kept | None:
        record, whole = recover(data, key=key, mark=bool(mark))
        kept = None if record is None else Kept(number, record, until=until, used=used)
        if not whole:
            self._corrupt += 1
        elif kept is not None:
            self._known.put(key, kept, len(data))
        return kept

    def _touch(self, now: float) -> None:
        self._next_touch = now + TOUCH / 4
        touched, self._touched = self._touched, {}
        try:
            with self.connections.writing() as connection:
                connection.executemany("UPDATE records SET used = ? WHERE key = ?", [(used, key) for key, used in touched.items()])
        except Busy:
            self._touched = touched | self._touched  # for the next time

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        now = self._wall()
        rows, firsts, refused = [], [], []
        for key, (record, keep) in records.items():
            mark = isinstance(record, Mark)
            data = None
            with contextlib.suppress(ValueError, TypeError):
                data = encode(record, key=key)
            if data is None or (len(data) > self._largest and not mark):
                refused.append((key,))
            elif isinstance(record, Mark) and record.first:
                firsts.append((key, mark, now + keep, now, data))
            else:
                rows.append((key, mark, now + keep, now, data))
        self.refused += len(refused)
        with self.connections.writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO records (key, mark, expires, used, data) VALUES (?, ?, ?, ?, ?)", rows)
            if firsts:
                known = [(key, now) for key, *_ in firsts]
                connection.executemany("DELETE FROM records WHERE key = ? AND (mark = 0 OR expires <= ?)", known)
                connection.executemany("INSERT OR IGNORE INTO records (key, mark, expires, used, data) VALUES (?, ?, ?, ?, ?)", firsts)
            if refused:  # what they would have replaced is out of date
                connection.executemany("DELETE FROM records WHERE key = ?", refused)
            self._make_room(connection, now)

    def remove(self, keys: Sequence[str]) -> None:
        with self.connections.writing() as connection:
            connection.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in keys])

    def clear(self) -> None:
        """Forget every entry. Marks stay, for answers that are still on their way."""
        self._known.renew()
        with self.connections.writing() as connection:
            connection.execute("DELETE FROM records WHERE mark = 0")

    def close(self) -> None:
        self._known.renew()
        self.connections.close()

    # -- bounds -------------------------------------------------------------------------------------------------------

    def _make_room(self, connection: Connection, now: float) -> None:
        if now >= self._next_sweep:
            self._next_sweep = now + SWEEP
            self._sweep(connection, now)
        size, page = _used(connection)
        if size <= self.limit:
            self.size = size
            return
        connection.execute("DELETE FROM records WHERE expires <= ?", (now,))
        while (over := _used(connection)[0] - self.limit) > 0:
            # A twentieth more than needed, or every write from now on would have to make room.
            going = _until(
                over + self.limit // 20, connection.execute("SELECT id, length(data) FROM records WHERE mark = 0 ORDER BY used"), page
            )
            if not going:  # there are but marks: nothing is left that they could tell apart
                connection.execute("DELETE FROM records WHERE id IN (SELECT id FROM records ORDER BY id LIMIT 1000)")
                continue
            connection.executemany("DELETE FROM records WHERE id = ?", going)
            self.evictions += len(going)
        self.size = _used(connection)[0]

    def _sweep(self, connection: Connection, now: float) -> None:
        """Forget what is expired, and marks beyond their bound together with all that was saved before them."""
        connection.execute("DELETE FROM records WHERE id IN (SELECT id FROM records WHERE expires <= ? LIMIT 1000)", (now,))
        newest = connection.execute("SELECT id FROM records WHERE mark = 1 ORDER BY id DESC LIMIT 1 OFFSET ?", (MAX_MARKS,)).fetchone()
        if newest is not None:
            connection.execute("DELETE FROM records WHERE id <= ?", newest)
        (self.count,) = connection.execute("SELECT count(*) FROM records").fetchone()


def _new(keys: Sequence[str], numbers: Sequence[int | None], found: Sequence[Kept | None]) -> dict[int, str]:
    """What there is and is not known, by its number."""
    return {number: key for key, number, kept in zip(keys, numbers, found, strict=True) if kept is None and number is not None}


@lru_cache(64)
def _numbering(keys: int) -> str:
    """One row; a list of keys would be sorted first, and takes twice as long."""
    return f"SELECT {','.join(['(SELECT id FROM records WHERE key = ?)'] * keys)}"


@lru_cache(64)
def _selecting(numbers: int) -> str:
    return f"SELECT id, mark, expires, used, data FROM records WHERE id IN ({','.join('?' * numbers)})"


def _used(connection: Connection) -> tuple[int, int]:
    """Bytes of the pages in use, and of a page."""
    (pages,) = connection.execute("PRAGMA page_count").fetchone()
    (free,) = connection.execute("PRAGMA freelist_count").fetchone()
    (page,) = connection.execute("PRAGMA page_size").fetchone()
    return (pages - free) * page, page


def _until(wanted: int, rows: Iterable[tuple[int, int]], page: int) -> list[tuple[int]]:
    """The first rows that take so many bytes together."""
    going: list[tuple[int]] = []
    for number, length in rows:
        if wanted <= 0:
            break
        going.append((number,))
        wanted -= length + page // 8
    return going
