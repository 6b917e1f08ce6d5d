"""Which processes behind the files in PROMETHEUS_MULTIPROC_DIR are still there.

prometheus_client names each file by the process that writes it and leaves it to the server to say when one has died.
Servers do not, so that a killed worker's gauges would be summed for ever.
"""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path

from prometheus_client.multiprocess import mark_process_dead

__all__ = ["identify", "sweep_dead"]

LIVE_GAUGES = re.compile(r"gauge_live[a-z]+_(\d+)\.db")


def identify(directory: Path) -> None:
    """Leave word of when this process started, so that a later one with its number is not taken for it."""
    started = _started(os.getpid())
    if started:
        _birth_file(directory, os.getpid()).write_text(started)


def sweep_dead(directory: Path) -> list[int]:
    """Remove the live gauges of processes that are gone. Their counters stay: those calls were made.

    Returns:
        The numbers of the processes whose gauges were removed.
    """
    own = os.getpid()
    pids = {int(match[1]) for path in directory.iterdir() if (match := LIVE_GAUGES.fullmatch(path.name))}
    if own not in pids:
        # A process that has set gauges has a file by its number, unless the program names files by something else
        # (`MultiProcessValue(process_identifier)`): then no number here says who is alive.
        return []
    dead = [pid for pid in pids if pid != own and not _alive(directory, pid)]
    for pid in dead:
        # Another worker may be sweeping at this moment.
        with contextlib.suppress(FileNotFoundError):
            mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        _birth_file(directory, pid).unlink(missing_ok=True)
    return dead


def _alive(directory: Path, pid: int) -> bool:
    if os.name != "posix":
        return True  # os.kill would do more than ask
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    started = _started(pid)
    if started == "":
        return False
    try:
        noted = _birth_file(directory, pid).read_text()
    except FileNotFoundError:
        return True
    # Empty: it is being written.
    return started is None or not noted or noted == started


def _started(pid: int) -> str | None:
    """Ticks from boot to the start of a process; empty for one that is dead and not yet waited for; None if unknown.

    The wall clock has no part in it, so that a step of it does not make the living look like somebody else.
    """
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None  # not Linux, or gone since it was asked
    # The command stands in brackets and may hold anything; the state follows it, and the start time is field 22.
    fields = stat.rpartition(")")[2].split()
    return "" if fields[0] in "ZX" else fields[19]


def _birth_file(directory: Path, pid: int) -> Path:
    return directory / f"resilient_{pid}.started"
