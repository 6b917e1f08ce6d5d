"""Writers that are killed at any point, and how one tells whether what they wrote is whole."""

from __future__ import annotations

import os
import random
import re
import signal
import time
import warnings
from collections.abc import Callable

from resilient.core.entry import Entry, Mark
from resilient.protocols import Store

KEYS = 12


def killed(make: Callable[[], Store], seed: int, after: float) -> None:
    """Fork a writer, and kill it so many seconds after it has begun."""
    ready, told = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads and forks
        pid = os.fork()
    if pid == 0:
        try:
            write(make(), random.Random(seed), told)
        finally:
            os._exit(1)
    os.close(told)
    with os.fdopen(ready, "rb") as pipe:
        assert pipe.readline() == b"ready\n"
        time.sleep(after)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0), "it runs until it is killed"
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def write(store: Store, chance: random.Random, told: int) -> None:
    for version in range(1_000_000):
        key = chance.randrange(KEYS)
        size = chance.choice([10, 2000, 60_000, 400_000])
        wall = time.time()
        entry = Entry(status=200, body=body(key, version, size), requested_at=wall, received_at=wall, arrived=0.0, lifetime=60.0)
        store.save({f"entry {key}": (entry, 3600.0)})
        if version % 7 == 0:
            store.save({f"mark {key}": (Mark(str(version)), 3600.0)})
        if version % 11 == 0:
            store.remove([f"entry {chance.randrange(KEYS)}"])
        store.load([f"entry {chance.randrange(KEYS)}", f"mark {key}"])
        if version == 3:
            os.write(told, b"ready\n")


def body(key: int, version: int, size: int) -> bytes:
    """One that tells whether it is whole: its own words, again and again."""
    word = b"<%d %d %d>" % (key, version, size)
    return word + word * (size // len(word))


def whole(record: object) -> bool:
    """Whether an entry is what a writer wrote."""
    assert isinstance(record, Entry)
    match = re.match(rb"<(\d+) (\d+) (\d+)>", record.body)
    return match is not None and record.body == body(*map(int, match.groups()))
