"""How well a MemoryStore keeps to its bytes, as tracemalloc counts them, under answers of random sizes."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc
from dataclasses import dataclass

from resilient.core.asked import Asked
from resilient.core.caching import CachingRules
from resilient.core.entry import Entry
from resilient.stores import MemoryStore

__all__ = ["Bound", "fill"]

MIB = 2**20
LOOKS = 20


@dataclass(frozen=True)
class Bound:
    """What a store of so many bytes took, once it was full: the least and the most, as parts of its bound.

    Attributes:
        counted: what it says that it has.
        real: what there is, the fields of entries, the keys and the maps included.
    """

    kind: str
    limit: int
    entries: int
    counted: tuple[float, float]
    real: tuple[float, float]


def fill(kind: str, limit: int = 16 * MIB, seed: int = 20) -> Bound:
    """Store answers until three times as much came as there is room for.

    Args:
        kind: how their sizes are spread: "small" (up to 2 KB), "even" (up to 64 KB), "skewed" (lognormal, median 8 KB).
        limit: of the store.
        seed: of chance.
    """
    chance = random.Random(seed)
    sizes = {
        "small": lambda: chance.randrange(2_048),
        "even": lambda: chance.randrange(65_536),
        "skewed": lambda: min(int(chance.lognormvariate(9.0, 1.2)), limit // 8),
    }[kind]
    gc.collect()
    tracemalloc.start()
    try:
        store = MemoryStore(limit)
        before = tracemalloc.get_traced_memory()[0]
        came, counted, real = 0, [], []
        while came < 3 * limit:
            came += _keep(store, chance, sizes())
            if came > limit * (1 + 2 * len(counted) / LOOKS):
                counted.append(store.size / limit)
                gc.collect()
                real.append((tracemalloc.get_traced_memory()[0] - before) / limit)
        return Bound(kind, limit, store.count, (min(counted), max(counted)), (min(real), max(real)))
    finally:
        tracemalloc.stop()


def _keep(store: MemoryStore, chance: random.Random, size: int) -> int:
    number = chance.getrandbits(64)
    asked = Asked("GET", f"https://catalog.test/items/{number}")
    fields = tuple((b"Header-%d" % one, b"value %d of %d" % (one, number)) for one in range(8))
    fields += ((b"Cache-Control", b"max-age=%d" % chance.randrange(60, 86_400)), (b"ETag", b'"%x"' % number))
    wall = time.time()
    entry = Entry.made(
        asked, 200, fields, chance.randbytes(size), requested_at=wall, received_at=wall, now=time.monotonic(), rules=CachingRules()
    )
    store.save({f"e\n{asked.uri}\n": (entry, entry.lifetime)})
    return entry.size
