"""What is timed of a cache, and `resilient`'s way of doing it."""

from __future__ import annotations

import importlib
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType
from typing import Any

from caching.answers import BODY, URL, VARIANTS, Asking, Origin, asking, asking_sync, closing
from resilient import Cache, Pipeline
from resilient.core.asked import Asked
from resilient.core.entry import Entry
from resilient.policies.stock import Found
from resilient.runtime import drive
from resilient.stores import MemoryStore, RedisStore, SQLiteStore

__all__ = ["BARE", "CASES", "PLAIN", "Case", "Place", "Subject", "bare", "ours"]

BARE = "bare client"
PLAIN = "resilient, no Cache"
STALE = "max-age=0, stale-while-revalidate=86400"
PATIENCE = 5.0  # seconds for a file or a server, so that a busy machine does not make a miss of a hit
FILLED_AT_ONCE = 500
MOST_BEHIND = 10_000  # entries for a file or a server: more take longer to write than to measure


@dataclass(frozen=True)
class Case:
    """One thing that a client with a cache does.

    Attributes:
        name: what ``--only`` takes.
        title: what it is, for the tables.
        library: httpx2 or httpx.
        sync: whether its sync client does it.
        policy, vary: what the origin says.
        variants: of the answer, asked for one after the other.
        anew: whether each call is of a URL that nobody asked for before.
        entries: how many there are, asked for one after the other.
        turns: of the event loop after each call, in which what it has begun beside itself comes to its end.
        asks: whether the origin is asked at each call.
    """

    name: str
    title: str
    library: str = "httpx2"
    sync: bool = False
    policy: str = "max-age=86400"
    vary: str = ""
    variants: int = 0
    anew: bool = False
    entries: int = 0
    turns: int = 0
    asks: bool = False

    @property
    def refreshed(self) -> bool:
        """Whether something is fetched behind each answer."""
        return self.policy == STALE


CASES = (
    Case("hit", "a fresh answer"),
    Case("hit_httpx", "a fresh answer, httpx", library="httpx"),
    Case("hit_sync", "a fresh answer, the sync client", sync=True),
    Case("hit_10", "a fresh answer, one of 10", entries=10),
    Case("hit_10k", "a fresh answer, one of 10,000", entries=10_000),
    Case("hit_100k", "a fresh answer, one of 100,000", entries=100_000),
    Case("hit_vary_1", "a fresh answer that varies, 1 variant", vary=VARIANTS, variants=1),
    Case("hit_vary_32", "a fresh answer that varies, 32 variants", vary=VARIANTS, variants=32),
    Case("miss", "a miss, and the answer is stored", anew=True, turns=1, asks=True),
    Case("validation", "a stale answer, and the origin says that it holds", policy="no-cache", asks=True),
    Case("refresh", "a stale answer at once, and a fresh one fetched behind it", policy=STALE, turns=4, asks=True),
)


@dataclass
class Subject:
    """One client in one case.

    Attributes:
        name: which.
        ask: makes one request.
        goal: microseconds that it may add, on the machine for which the goals were set; None for no goal.
        origin: what it asks.
        above: what the goal is counted above.
        settle: called when it has asked, in each slice: what is written behind is written.
    """

    name: str
    ask: Asking
    origin: Origin
    goal: float | None = None
    above: str = BARE
    settle: Callable[[], object] = bool


@dataclass(frozen=True)
class Place:
    """Where stores may be, and what closes them."""

    folder: Path
    server: str | None
    stack: AsyncExitStack

    def file(self, name: str) -> Path:
        """A file for a store."""
        return self.folder / f"{name}.db"


def asked(case: Case, transport: Any, *, urls: int = 0) -> Asking:
    """What a case does with a transport."""
    module = importlib.import_module(case.library)
    if case.sync:
        return asking_sync(module, transport)
    ask = asking(module, transport, variants=case.variants, urls=urls, anew=case.anew)
    return closing(ask, case.turns) if case.turns else ask


def origin_of(case: Case) -> tuple[Origin, Any]:
    """The origin of a case, and the transport that asks it."""
    origin = Origin(importlib.import_module(case.library), case.policy, case.vary)
    return origin, origin.sync_transport() if case.sync else origin.transport()


def bare(case: Case) -> Subject:
    """The client on the origin, without anything between them."""
    origin, inner = origin_of(case)
    return Subject(BARE, asked(case, inner), origin)


def ours(case: Case, place: Place) -> Iterator[Subject]:
    """Our transport with a `Cache` on each store."""
    goals: dict[str, float | None] = {}
    if case.name == "miss":
        origin, inner = origin_of(case)
        yield Subject(PLAIN, asked(case, _transport(case, Pipeline(), inner)), origin)
        goals = {"MemoryStore": 60.0}
    elif case.name.startswith("hit"):
        goals = {"MemoryStore": 25.0, "SQLiteStore": 150.0, "RedisStore": 300.0}
    for name, store in _stores(case, place):
        place.stack.callback(store.close)
        cache = Cache(store=store, refresh_early=0.0)
        pipeline = Pipeline(cache)
        origin, inner = origin_of(case)
        if case.entries:
            _fill(pipeline, cache, origin, case.entries)
        yield Subject(
            name=name,
            ask=asked(case, _transport(case, pipeline, inner), urls=case.entries),
            origin=origin,
            goal=goals.get(name),
            above=PLAIN if case.name == "miss" else BARE,
            settle=getattr(store, "flush", bool),
        )


def _stores(case: Case, place: Place) -> list[tuple[str, Any]]:
    file = place.file(f"resilient-{case.name}")
    memory = MemoryStore(512 * 2**20, 200_000) if case.entries else MemoryStore()
    stores: list[tuple[str, Any]] = [("MemoryStore", memory)]
    if case.refreshed or case.library == "httpx" or case.entries > MOST_BEHIND:
        return stores
    stores.append(("SQLiteStore", SQLiteStore(file, l1_bytes=0, timeout=PATIENCE)))
    if not case.entries:
        stores.append(("SQLiteStore, first level", SQLiteStore(file.with_suffix(".l1.db"), timeout=PATIENCE)))
    if place.server is not None:
        prefix = f"resilient:{case.name}"
        stores.append(("RedisStore", RedisStore(place.server, prefix=f"{prefix}:", l1_bytes=0, timeout=PATIENCE)))
        if not case.entries:
            stores.append(("RedisStore, first level", RedisStore(place.server, prefix=f"{prefix}:l1:", timeout=PATIENCE)))
    return stores


def _transport(case: Case, pipeline: Pipeline, inner: Any) -> Any:
    door: ModuleType = importlib.import_module(f"resilient.{case.library}")
    return (door.ResilientTransport if case.sync else door.AsyncResilientTransport)(pipeline, inner)


def _fill(pipeline: Pipeline, cache: Cache, origin: Origin, entries: int) -> None:
    """Put so many answers where the client will find them, without asking for each."""
    runtime = pipeline.sync_runtime
    flush: Callable[[float], bool] = getattr(cache.store, "flush", bool)
    fields = tuple(origin.fields)
    first = Asked("GET", URL)
    now, wall = runtime.now(), time.time()
    entry = Entry.made(first, 200, fields, BODY, requested_at=wall, received_at=wall, now=now, rules=cache.rules)
    for number in range(entries):
        asked = Asked("GET", f"{URL}/{number}")
        found = drive(cache.stock.find(asked, runtime)) if cache.store.blocking else Found()
        drive(cache.stock.keep(asked, found, replace(entry), 86400.0, runtime))
        if number % FILLED_AT_ONCE == 0:
            assert flush(PATIENCE)
    assert flush(PATIENCE)
