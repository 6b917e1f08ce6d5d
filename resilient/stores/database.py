"""Records in one SQLite file that several processes share. What it raises is for `Guarded` to catch."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.entry import Entry, Mark, Record
from .codec import check_value, encode, recover
from .forks import renewed_in_children
from .guarded import Busy

if TYPE_CHECKING:
    from sqlite3 import Connection

__all__ = ["Database", "Unusable"]

logger = logging.getLogger("resilient")

APPLICATION = 0x72534331  # "rSC1", in the file's header
VERSION = 1
MAX_MARKS = 10_000
SWEEP = 5.0
TOUCH = 60.0
_TOUCHED = 500
_SCHEMA = (
    # `id` tells what was saved before what; a record that is saved again gets a new one.
    """CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, mark INTEGER NOT NULL,
    expires REAL NOT NULL, used REAL NOT NULL, data BLOB NOT NULL)""",
    "CREATE INDEX by_use ON records (mark, used)",
    "CREATE INDEX by_expiry ON records (expires)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
# Connections that a forked child has got from its parent: closing them would end the parent's locks.
_INHERITED: list[Any] = []


class Unusable(Exception):
    """The file is somebody else's, or of a later version: it is left as it is."""


class Database:
    """A bounded map of records in a SQLite file, in WAL mode.

    A file that is corrupt, or of an earlier version, is left where it is, and the next one is begun: `path`, `path.1`,
    `path.2` ..., of which the two latest are kept. It is not renamed, since another process may be at work on it, and would
    tear the new one's journal down with the old one's.

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
        corrupt: records, and files, that could not be read.
        refused: records that were too large.
    """

    blocking = True

    def __init__(self, path: str, *, max_bytes: int, timeout: float, connections: int, wall: Callable[[], float] = time.time) -> None:
        self._path = path
        self.limit = max_bytes
        self._largest = max_bytes // 8
        self._timeout = timeout
        self._connections = connections
        self._wall = wall
        self.size = self.count = self.evictions = self.corrupt = self.refused = 0
        self._free: list[tuple[str, Connection]] = []
        self._begin()
        renewed_in_children(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._opening = threading.Lock()
        self._places = threading.BoundedSemaphore(self._connections)
        self._file = ""
        self._touched: dict[str, float] = {}
        self._next_touch = self._next_sweep = 0.0

    def renew(self) -> None:
        """Begin anew in a forked child, which must not use its parent's connections, nor close them."""
        _INHERITED.append(self._free)
        self._free = []
        self._begin()

    def check(self, record: Record) -> None:
        """Raise TypeError for a value that a file cannot keep."""
        if isinstance(record, Entry) and record.value is not None:
            check_value(record.value)

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        now = self._wall()
        marks = ",".join("?" * len(keys))
        with self._connection() as connection:
            rows = connection.execute(
                f"SELECT key, data, used, mark FROM records WHERE key IN ({marks}) AND expires > ?", (*keys, now)
            ).fetchall()
        found: dict[str, Record] = {}
        for key, data, used, mark in rows:
            record, whole = recover(data, key=key, mark=bool(mark))
            self.corrupt += not whole
            if record is not None:
                found[key] = record
            if used < now - TOUCH and len(self._touched) < _TOUCHED:
                self._touched[key] = now
        if self._touched and now >= self._next_touch:
            self._touch(now)
        return [found.get(key) for key in keys]

    def _touch(self, now: float) -> None:
        """Note what was used, rarely: a hit writes nothing."""
        self._next_touch = now + TOUCH / 4
        touched, self._touched = self._touched, {}
        with contextlib.suppress(Busy), self._writing() as connection:
            connection.executemany("UPDATE records SET used = ? WHERE key = ?", [(used, key) for key, used in touched.items()])

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        now = self._wall()
        rows, refused = [], []
        for key, (record, keep) in records.items():
            mark = isinstance(record, Mark)
            data = None
            with contextlib.suppress(ValueError, TypeError):
                data = encode(record, key=key)
            if data is None or (len(data) > self._largest and not mark):
                refused.append((key,))
            else:
                rows.append((key, mark, now + keep, now, data))
        self.refused += len(refused)
        with self._writing() as connection:
            connection.executemany("INSERT OR REPLACE INTO records (key, mark, expires, used, data) VALUES (?, ?, ?, ?, ?)", rows)
            if refused:  # what they would have replaced is out of date
                connection.executemany("DELETE FROM records WHERE key = ?", refused)
            self._make_room(connection, now)

    def remove(self, keys: Sequence[str]) -> None:
        with self._writing() as connection:
            connection.executemany("DELETE FROM records WHERE key = ?", [(key,) for key in keys])

    def clear(self) -> None:
        """Forget every entry. Marks stay, for answers that are still on their way."""
        with self._writing() as connection:
            connection.execute("DELETE FROM records WHERE mark = 0")

    def close(self) -> None:
        with self._lock:
            free, self._free = self._free, []
        for _, connection in free:
            connection.close()

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

    # -- connections --------------------------------------------------------------------------------------------------

    @contextlib.contextmanager
    def _writing(self) -> Iterator[Connection]:
        with self._connection() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _connection(self) -> Iterator[Connection]:
        """A connection for this thread alone."""
        import sqlite3  # a Python without it has the other stores

        places = self._places
        if not places.acquire(timeout=self._timeout):
            raise Busy
        connection = None
        try:
            file = self._current()
            connection = self._taken(file)
            if connection is None:
                with self._opening:  # a change of the journal's mode waits for nobody
                    connection = self._open(file)
            yield connection
        except sqlite3.DatabaseError as error:
            code = getattr(error, "sqlite_errorcode", 0) & 0xFF
            if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
                raise Busy from error
            if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
                self.corrupt += 1
                self._leave(file, f"is corrupt ({error})")
            raise
        finally:
            if connection is not None:
                with self._lock:
                    self._free.append((file, connection))
            places.release()

    def _taken(self, file: str) -> Connection | None:
        with self._lock:
            while self._free:
                of, connection = self._free.pop()
                if of == file:
                    return connection
                connection.close()
        return None

    def _current(self) -> str:
        """The file in use; another process may have begun the next one."""
        if not self._file:
            self._file = max(self._files(), key=self._number)
        while os.path.exists(following := self._following(self._file)):
            self._file = following
        return self._file

    def _files(self) -> list[str]:
        """The file and those that followed it."""
        followers = glob.glob(glob.escape(self._path) + ".*")
        return [self._path, *(name for name in followers if re.fullmatch(r"[1-9][0-9]{0,8}", name[len(self._path) + 1 :]))]

    def _number(self, file: str) -> int:
        return int(file[len(self._path) + 1 :] or 0)

    def _following(self, file: str) -> str:
        return f"{self._path}.{self._number(file) + 1}"

    def _leave(self, file: str, why: str) -> None:
        """Begin the next file, unless somebody has."""
        following = self._following(file)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(following, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
            logger.warning("%s %s: it is left as it is, and %s is begun", file, why, following)
        for old in self._files():
            if self._number(old) < self._number(file):
                for ending in ("", "-wal", "-shm"):
                    with contextlib.suppress(OSError):
                        os.unlink(old + ending)

    def _open(self, file: str) -> Connection:
        import sqlite3

        with contextlib.suppress(FileExistsError):  # readable for its owner alone, its journal too
            os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        connection = sqlite3.connect(file, timeout=max(self._timeout, 1.0), isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection, file)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection, file: str) -> None:
        (application,) = connection.execute("PRAGMA application_id").fetchone()
        if not application:
            connection.execute("BEGIN IMMEDIATE")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
            if not application:
                if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise Unusable(f"{file} is another program's database")
                for statement in _SCHEMA:
                    connection.execute(statement)
            connection.execute("COMMIT")
            (application,) = connection.execute("PRAGMA application_id").fetchone()
        (version,) = connection.execute("PRAGMA user_version").fetchone()
        if application != APPLICATION:
            raise Unusable(f"{file} is another program's database")
        if version < VERSION:
            self._leave(file, f"is of version {version}, before {VERSION}")
        if version != VERSION:
            raise Unusable(f"{file} is of version {version}, not {VERSION}")
        (page,) = connection.execute("PRAGMA page_size").fetchone()
        if connection.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            connection.execute("PRAGMA journal_mode = WAL")
        for pragma in (
            "synchronous = NORMAL",
            f"max_page_count = {self.limit // page * 5 // 4 + 64}",
            f"journal_size_limit = {4 * 2**20}",
            f"busy_timeout = {int(self._timeout * 1000)}",
        ):
            connection.execute(f"PRAGMA {pragma}")


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
