"""Records in a file."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import positive, whole
from .connections import APPLICATION
from .database import Database
from .layered import LayeredStore

__all__ = ["SQLiteStore"]

_LEAST = 2**20


class SQLiteStore(LayeredStore):
    """Keeps records in one SQLite file, for several processes and threads of one machine, over a restart too.

    It is a `LayeredStore` over the file: what it knows is believed for `trust` seconds, entries are written behind, and
    trouble with the file is a miss, counted and logged. The file is in WAL mode with `synchronous=NORMAL`: a process that
    is killed at any point leaves it readable; a power cut may take the last writes, but tears nothing. One that is corrupt
    all the same, or of an earlier version, is left as it is, and `path.1` is begun, then `path.2`, of which the two latest
    are kept.

    Args:
        path: of the file, on a local disk. It is made readable for its owner alone.
        max_bytes: bound of the pages in use: beyond it, what is expired goes first, then the least recently used. The file
            itself is at most a quarter larger, its journal a few MiB.
        timeout: seconds to wait for a lock or a connection.
        connections: SQLite connections at the most.
        l1_bytes: bytes for the first level, in memory; 0 for none.
        trust: seconds for which it is believed.
        clock: the source of monotonic time.
        wall: the source of wall time.

    Raises:
        ValueError: `path` is in no directory, or another program's database.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_bytes: int = 256 * 2**20,
        timeout: float = 0.05,
        connections: int = 8,
        l1_bytes: int = 16 * 2**20,
        trust: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
    ) -> None:
        whole("max_bytes", max_bytes, least=_LEAST)
        positive("timeout", timeout)
        whole("connections", connections)
        file = _own(Path(path).absolute())
        database = Database(str(file), max_bytes=max_bytes, timeout=timeout, connections=connections, wall=wall)
        super().__init__(database, l1_bytes=l1_bytes, trust=trust, name=f"SQLiteStore({file.name})", clock=clock, wall=wall)


def _own(path: Path) -> Path:
    """Require a path where there is nothing yet, or a file that could be ours: a corrupt one may be."""
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"path must be of a file in a directory that there is, not {str(path)!r}")
    try:
        with path.open("rb") as file:
            header = file.read(100)
    except OSError:  # not there, or not readable: told when it is used
        return path
    if header.startswith(b"SQLite format 3\0") and header[68:72] != APPLICATION.to_bytes(4, "big"):
        raise ValueError(f"path must not be another program's database: {str(path)!r}")
    return path
