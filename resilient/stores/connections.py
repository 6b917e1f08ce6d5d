"""Connections to a SQLite file that several processes share, and to the next one when it is of no use any more."""

from __future__ import annotations

import contextlib
import glob
import logging
import os
import re
import secrets
import threading
from collections.abc import Iterator
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeAlias

from .forks import renewed_in_children
from .guarded import Busy

if TYPE_CHECKING:
    from sqlite3 import Connection

__all__ = ["APPLICATION", "Connections", "Unusable"]

logger = logging.getLogger("resilient")

APPLICATION = 0x72534331  # "rSC1", in the file's header
VERSION = 1
_SCHEMA = (
    # `id` tells what was saved before what; a record that is saved again gets a new one, and none is given twice.
    """CREATE TABLE records (id INTEGER PRIMARY KEY AUTOINCREMENT, key TEXT NOT NULL UNIQUE, mark INTEGER NOT NULL,
    expires REAL NOT NULL, used REAL NOT NULL, data BLOB NOT NULL)""",
    "CREATE INDEX by_use ON records (mark, used)",
    "CREATE INDEX by_expiry ON records (expires)",
    f"PRAGMA application_id = {APPLICATION}",
    f"PRAGMA user_version = {VERSION}",
)
_ENDINGS = ("", "-wal", "-shm")
# Connections that a forked child has got from its parent: closing them would end the parent's locks.
_INHERITED: list[Any] = []


Lease: TypeAlias = "tuple[str, Connection]"


class Unusable(Exception):
    """The file is somebody else's, or of another version: it is left as it is."""


class Connections:
    """Connections in WAL mode, each for one thread at a time, and no more than so many.

    A file that is corrupt, or of an earlier version, is left where it is, and the next one is begun: `path`, `path.1`,
    `path.2` ..., of which the two latest are kept. It is not renamed: another process may be at work on it, and would take
    the new one's journal away with the old one's.

    Args:
        path: of the first file.
        limit: bytes that the file may have, before a quarter that it may grow beyond it.
        timeout: seconds to wait for a lock or a connection.
        count: at the most.

    Attributes:
        corrupt: files that could not be read.
    """

    def __init__(self, path: str, limit: int, timeout: float, count: int) -> None:
        self._path = path
        self._limit = limit
        self._timeout = timeout
        self._count = count
        self.corrupt = 0
        self._free: list[Lease] = []
        self._begin()
        renewed_in_children(self)

    def _begin(self) -> None:
        self._opening = threading.Lock()
        # A token for each connection that there may be: on the way of each hit, where a semaphore costs ten times as much.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._count):
            self._places.put(None)
        # The file in use, and the one that would follow it.
        self._file = "", ""

    def renew(self) -> None:
        """Begin anew in a forked child, which must not use its parent's connections, nor close them."""
        _INHERITED.append(self._free)
        self._free = []
        self._begin()

    @contextlib.contextmanager
    def writing(self) -> Iterator[Connection]:
        """A connection for this thread alone, with the lock that a writer needs; committed unless something is raised."""
        with self.reading() as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def reading(self) -> _Reading:
        """A connection for this thread alone, as a context.

        Raises:
            Busy: on entering there was none, on leaving: there was no lock in time.
        """
        return _Reading(self)

    def take(self) -> Lease:
        """A connection for this thread alone, and its file before it; to be given back.

        Raises:
            Busy: there was none in time.
            Exception: whatever kept it from being opened, as `failed` says.
        """
        try:
            self._places.get(timeout=self._timeout)
        except Empty:
            raise Busy from None
        file = ""
        try:
            file, following = self._file
            if not file or os.access(following, os.F_OK):
                file = self._current()
            while self._free:
                lease = self._free.pop()  # which needs no lock: it is one step, as is the way back
                if lease[0] == file:
                    return lease
                lease[1].close()
            with self._opening:  # a change of the journal's mode waits for nobody
                return file, self._open(file)
        except BaseException as error:
            self._places.put(None)
            self.failed(file, error)
            raise

    def give_back(self, lease: Lease) -> None:
        """It can be taken by others."""
        self._free.append(lease)
        self._places.put(None)

    def failed(self, file: str, error: BaseException) -> None:
        """What was raised by a connection to a file, which is left where it is corrupt.

        Raises:
            Busy: it found no lock in time.
        """
        import sqlite3  # a Python without it has the other stores

        if not isinstance(error, sqlite3.DatabaseError):
            return
        code = getattr(error, "sqlite_errorcode", 0) & 0xFF
        if code in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
            raise Busy from error
        if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            self.corrupt += 1
            self._leave(file, f"is corrupt ({error})")

    def close(self) -> None:
        """Close those that nobody is using."""
        free, self._free = self._free, []
        for _, connection in free:
            connection.close()

    # -- files --------------------------------------------------------------------------------------------------------

    def _current(self) -> str:
        """The file in use; another process may have begun the next one."""
        file, following = self._file
        if not file:
            file = max(self._files(), key=self._number)
            following = self._following(file)
            self._file = file, following
        while os.access(following, os.F_OK):
            file, following = following, self._following(following)
            self._file = file, following
        return file

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
            _create(following)
            logger.warning("%s %s: it is left as it is, and %s is begun", file, why, following)
        for old in self._files():
            if self._number(old) < self._number(file):
                for ending in _ENDINGS:
                    with contextlib.suppress(OSError):
                        os.unlink(old + ending)

    def _open(self, file: str) -> Connection:
        import sqlite3

        with contextlib.suppress(FileExistsError):
            _create(file)
        connection = sqlite3.connect(file, timeout=max(self._timeout, 1.0), isolation_level=None, check_same_thread=False)
        try:
            self._prepare(connection, file)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: Connection, file: str) -> None:
        if not _pragma(connection, "application_id"):
            connection.execute("BEGIN IMMEDIATE")
            if not _pragma(connection, "application_id"):  # nobody was faster
                if connection.execute("SELECT 1 FROM sqlite_master").fetchone():
                    raise Unusable(f"{file} is another program's database")
                for statement in _SCHEMA:
                    connection.execute(statement)
                # In another file, were it at this very path, the same number is not to mean another record.
                connection.execute("INSERT INTO sqlite_sequence (name, seq) VALUES ('records', ?)", (secrets.randbits(42) << 20,))
            connection.execute("COMMIT")
        version = _pragma(connection, "user_version")
        if _pragma(connection, "application_id") != APPLICATION:
            raise Unusable(f"{file} is another program's database")
        if version < VERSION:
            self._leave(file, f"is of version {version}, before {VERSION}")
        if version != VERSION:
            raise Unusable(f"{file} is of version {version}, not {VERSION}")
        if _pragma(connection, "journal_mode") != "wal":
            connection.execute("PRAGMA journal_mode = WAL")
        for setting in (
            "synchronous = NORMAL",
            f"max_page_count = {self._limit // _pragma(connection, 'page_size') * 5 // 4 + 64}",
            f"journal_size_limit = {4 * 2**20}",
            f"busy_timeout = {int(self._timeout * 1000)}",
        ):
            connection.execute(f"PRAGMA {setting}")


class _Reading:
    """A connection that is taken, and given back."""

    __slots__ = ("_connections", "_lease")

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    def __enter__(self) -> Connection:
        self._lease = self._connections.take()
        return self._lease[1]

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        try:
            if error is not None:
                self._connections.failed(self._lease[0], error)
        finally:
            self._connections.give_back(self._lease)


def _create(file: str) -> None:
    """An empty file that its owner alone may read; its journal will be like it."""
    os.close(os.open(file, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _pragma(connection: Connection, name: str) -> Any:
    (value,) = connection.execute(f"PRAGMA {name}").fetchone()
    return value
