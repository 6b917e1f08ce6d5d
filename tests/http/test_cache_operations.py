"""What an operator does with a cache: invalidate, prime, look at it. Each with a store in memory and with one that others share."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import anyio
import pytest

from resilient import Cache, Resilience, Timeout, runtime
from resilient.stores import MemoryStore, SQLiteStore
from resilient.testing import FakeClock

from .conftest import Declare
from .test_cache import Origin, client

pytestmark = pytest.mark.anyio


@pytest.fixture
def origin(library: Any) -> Origin:
    return Origin(library)


@pytest.fixture(params=["memory", "sqlite", "sqlite without memory"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Any:
    match request.param:
        case "memory":
            yield MemoryStore()
            return
        case "sqlite":
            made = SQLiteStore(tmp_path / "cache.db")
        case _:
            made = SQLiteStore(tmp_path / "cache.db", l1_bytes=0)
    yield made
    made.close()


@pytest.fixture
def http(library: Any, origin: Origin, store: Any) -> Callable[..., Any]:
    def make(**settings: Any) -> Any:
        cache = Cache(store=store, **settings)
        resilience = Resilience()
        dependency = resilience.dependency("dep", cache, Timeout(), origin="http://dep")
        return cache, client(library, dependency, origin)

    return make


async def settled(cache: Cache) -> None:
    """Wait for what is done behind the reader: an answer is kept in a store with I/O once he has it."""
    assert cache.flights is not None
    with anyio.fail_after(10):
        while len(cache.flights):
            await anyio.sleep(0.001)
    if hasattr(cache.store, "flush"):
        assert await anyio.to_thread.run_sync(cache.store.flush, 10.0)


async def test_one_url(origin: Origin, store: Any, http: Any) -> None:
    cache, opened = http(share_anonymous=False)
    async with opened as get:
        for path in ("/a?b=1", "/a", "/b"):
            await get.get(path)
            await get.get(path, headers={"cookie": "me"})
        await settled(cache)
        asked = len(origin.asked)
        await cache.invalidate("HTTP://DEP:80/a?b=1#top")
        for path in ("/a?b=1", "/a", "/b"):
            await get.get(path)
            await get.get(path, headers={"cookie": "me"})
        assert [request.url.raw_path for request in origin.asked[asked:]] == [b"/a?b=1", b"/a?b=1"]


async def test_all_below_a_path(origin: Origin, store: Any, http: Any) -> None:
    cache, opened = http()
    async with opened as get:
        paths = ("/a", "/a/", "/a/b", "/a/b/c/d/e/f/g/h", "/ab/c", "/")
        for path in paths:
            await get.get(path)
        await settled(cache)
        asked = len(origin.asked)
        await cache.invalidate(prefix="http://dep/a/")
        for path in paths:
            await get.get(path)
        assert [request.url.path for request in origin.asked[asked:]] == ["/a/", "/a/b", "/a/b/c/d/e/f/g/h"]


async def test_what_has_a_tag(library: Any, origin: Origin, store: Any, http: Any) -> None:
    cache, opened = http()

    def answer(request: Any) -> Any:
        fields = {"cache-control": "max-age=60"}
        if "tagged" in request.url.path:
            fields["cache-groups"] = '"articles", "all"'
        return library.Response(200, headers=fields, content=b"x")

    origin.answer = answer
    async with opened as get:
        for path in ("/tagged", "/tagged/2", "/other"):
            await get.get(path)
        await settled(cache)
        asked = len(origin.asked)
        await cache.invalidate(tag="news")
        for path in ("/tagged", "/tagged/2", "/other"):
            await get.get(path)
        assert len(origin.asked) == asked
        await cache.invalidate(tag="articles")
        for path in ("/tagged", "/tagged/2", "/other"):
            await get.get(path)
        assert [request.url.path for request in origin.asked[asked:]] == ["/tagged", "/tagged/2"]


async def test_a_write_invalidates_groups(library: Any, origin: Origin, store: Any, http: Any) -> None:
    cache, opened = http()

    def answer(request: Any) -> Any:
        if request.method == "POST":
            return library.Response(204, headers={"cache-group-invalidation": '"all"'})
        return library.Response(200, headers={"cache-control": "max-age=60", "cache-groups": '"all"'}, content=b"x")

    origin.answer = answer
    async with opened as get:
        await get.get("/a")
        await settled(cache)
        await get.post("/elsewhere")
        await get.get("/a")
        assert [request.method for request in origin.asked] == ["GET", "POST", "GET"]


async def test_what_was_invalidated_stands_in_for_errors_only_if_that_was_said(library: Any, origin: Origin, store: Any, http: Any) -> None:
    cache, opened = http(stale_if_error=1000.0)
    async with opened as get:
        for hard in (False, True):
            origin.says(200, b"old", cache_control="max-age=1000")
            await get.get("/a")
            await settled(cache)
            asked = len(origin.asked)
            await cache.invalidate("http://dep/a", keep_for_errors=not hard)
            origin.fails(library.ConnectError("refused"))
            if hard:
                with pytest.raises(library.ConnectError):
                    await get.get("/a")
            else:
                response = await get.get("/a")
                assert response.text == "old" and response.extensions["degraded"]["cause"] == "ConnectError"
            assert len(origin.asked) == asked + 1
            origin.says(200, b"new", cache_control="max-age=1000")
            cache.reset()  # of the pause after an error
            assert (await get.get("/a")).text == "new"


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ({}, "exactly one"),
        ({"url": "http://dep/a", "tag": "b"}, "exactly one"),
        ({"url": "/a"}, "url: expected a URL"),
        ({"prefix": "http://dep/a"}, "prefix: expected the beginning of URLs up to a slash"),
        ({"prefix": "http://dep/1/2/3/4/5/6/7/"}, "prefix: expected at most 6 segments"),
        ({"tag": ""}, "tag: expected a name"),
        ({"url": "http://dep/a", "keep_for_errors": 1}, "keep_for_errors"),
    ],
)
async def test_what_cannot_be_invalidated(http: Any, what: dict[str, Any], message: str) -> None:
    cache, opened = http()
    async with opened:
        with pytest.raises((TypeError, ValueError), match=message):
            await cache.invalidate(**what)


async def test_priming(library: Any, origin: Origin, http: Any) -> None:
    cache, opened = http()

    def answer(request: Any) -> Any:
        if request.url.path == "/broken":
            raise library.ConnectError("refused")
        return library.Response(404 if request.url.path == "/gone" else 200, headers={"cache-control": "max-age=60"})

    origin.answer = answer
    async with opened as get:
        failures = await cache.prime(get, ["/a", "/b", "/broken", "/gone"], concurrency=2)
        assert {url: type(error).__name__ for url, error in failures.items()} == {"/broken": "ConnectError", "/gone": "HTTPStatusError"}
        asked = len(origin.asked)
        await get.get("/a")
        await get.get("/b")
        assert len(origin.asked) == asked


async def test_what_is_invalidated_is_so_although_every_thread_is_busy(
    origin: Origin, http: Any, store: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, opened = http()
    async with opened as get:
        await get.get("/a")
        await settled(cache)
        with monkeypatch.context() as patch:
            patch.setattr(runtime, "THREADS", SimpleNamespace(start=lambda job: False))
            await cache.invalidate("http://dep/a")
        await get.get("/a")
    assert len(origin.asked) == 2


async def test_two_processes_worth_of_caches_share_a_store(library: Any, origin: Origin, tmp_path: Path) -> None:
    stores = [SQLiteStore(tmp_path / "cache.db", l1_bytes=0) for _ in range(2)]
    caches = [Cache(store=store) for store in stores]
    dependencies = [Resilience().dependency("dep", cache, Timeout(), origin="http://dep") for cache in caches]
    one, other = (client(library, dependency, origin) for dependency in dependencies)
    async with one, other:
        await one.get("/a")
        await settled(caches[0])
        assert (await other.get("/a")).headers["cache-status"].startswith("dep; hit")
        await other.post("/a")
        assert (await one.get("/a")).headers["cache-status"].startswith("dep; fwd=uri-miss")
    for store in stores:
        store.close()


@pytest.mark.parametrize("broken", [("peek",), ("peek", "load"), ("save",), ("remove",)])
async def test_a_store_that_raises_costs_no_request(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, broken: tuple[str, ...]
) -> None:
    def fail(*args: Any) -> Any:
        raise OSError("out of order")

    store = type("Broken", (MemoryStore,), dict.fromkeys(broken, fail))()
    cache = Cache(store=store)
    async with client(library, declare(cache, Timeout()), origin) as http:
        assert [(await http.get("/a")).text for _ in range(2)] == ["body", "body"]
        assert (await http.post("/a")).text == "body"
    assert len(origin.asked) == (2 if broken in (("peek",), ("remove",)) else 3)
    assert (cache.stock.failures > 0) == (broken != ("remove",))
