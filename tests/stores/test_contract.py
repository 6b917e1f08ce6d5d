"""The contract that users may run on their own stores, run on ours, in each of their shapes."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from resilient.core.entry import Record
from resilient.protocols import Store
from resilient.stores import LayeredStore, MemoryStore, RedisStore, SQLiteStore
from resilient.testing import StoreContract

from .conftest import Server

SMALL = 4 * 2**20


class Plain:
    """The smallest store there may be: it never forgets, and knows no time but what its own records tell."""

    blocking = True

    def __init__(self) -> None:
        self._kept: dict[str, tuple[Record, float]] = {}
        self._lock = threading.Lock()

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        with self._lock:
            return [self._kept[key][0] if key in self._kept and self._kept[key][1] >= 1 else None for key in keys]

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        with self._lock:
            self._kept.update(records)

    def remove(self, keys: Sequence[str]) -> None:
        with self._lock:
            for key in keys:
                self._kept.pop(key, None)

    def close(self) -> None:
        """Nothing is open."""


class TestMemory(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return MemoryStore(SMALL)


class TestPlain(StoreContract):
    @pytest.fixture
    def store(self) -> Store:
        return Plain()


class TestLayered(StoreContract):
    @pytest.fixture(params=["two levels", "asks each time", "one level"])
    def store(self, request: pytest.FixtureRequest) -> Iterator[Store]:
        settings = {"two levels": {}, "asks each time": {"trust": 0}, "one level": {"l1_bytes": 0}}[request.param]
        with LayeredStore(Plain(), **settings) as store:
            yield store


class TestSQLite(StoreContract):
    @pytest.fixture(params=["two levels", "asks each time", "one level"])
    def store(self, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
        settings = {"two levels": {}, "asks each time": {"trust": 0}, "one level": {"l1_bytes": 0}}[request.param]
        with SQLiteStore(tmp_path / "cache.db", max_bytes=SMALL, timeout=5.0, **settings) as store:
            yield store
            assert store.failures == store.corrupt == store.busy == 0


class TestRedis(StoreContract):
    @pytest.fixture(params=["two levels", "asks each time", "one level", "secret"])
    def store(self, request: pytest.FixtureRequest, server: Server) -> Iterator[Store]:
        settings = {
            "two levels": {},
            "asks each time": {"trust": 0},
            "one level": {"l1_bytes": 0},
            "secret": {"secret": "s" * 16, "l1_bytes": 0},
        }
        with RedisStore(server.url, timeout=5.0, **settings[request.param]) as store:
            yield store
            assert store.failures == store.corrupt == store.busy == 0
