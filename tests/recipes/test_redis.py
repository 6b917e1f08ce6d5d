"""redis-py under a dependency, on a real Redis where the machine has one, else on fakeredis' server; both on a socket."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from types import ModuleType
from typing import Any

import anyio
import pytest
from redis import exceptions

from resilient import Bulkhead, Dependency

from .relay import Relay

pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]  # all that redis-py runs on
Load = Callable[[str], ModuleType]


@contextmanager
def real_redis(program: str) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    with subprocess.Popen([program, "--port", str(port), "--save", "", "--appendonly", "no"], stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + 10
            while time.monotonic() < until:
                try:
                    socket.create_connection(("127.0.0.1", port), 1).close()
                    break
                except ConnectionRefusedError:
                    time.sleep(0.02)
            yield port
        finally:
            process.terminate()


@contextmanager
def fake_redis() -> Iterator[int]:
    from fakeredis import TcpFakeServer

    server = TcpFakeServer(("127.0.0.1", 0), server_type="redis")
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    program = shutil.which("redis-server")
    with fake_redis() if program is None else real_redis(program) as running:
        yield running


@pytest.fixture
def relay(port: int) -> Iterator[Relay]:
    with Relay(port) as running:
        yield running


@pytest.fixture
def recipe(example: Load) -> ModuleType:
    return example("redis_cache")


@asynccontextmanager
async def client_of(recipe: ModuleType, relay: Relay) -> AsyncIterator[Any]:
    client = recipe.async_client(f"redis://127.0.0.1:{relay.port}")
    try:
        yield client
    finally:
        await client.aclose()
        await client.connection_pool.disconnect()


def counts(cache: Dependency) -> dict[str, int]:
    assert cache.bulkhead is not None
    assert cache.bulkhead.in_use == 0
    return {word: count for word, count in cache.stats.snapshot().counts.items() if count}


async def test_reads_what_was_written(recipe: ModuleType, relay: Relay) -> None:
    async with client_of(recipe, relay) as client:
        await recipe.write(client, "lamp", b"green")
        assert await recipe.read(client, "lamp") == b"green"
        assert await recipe.read(client, "chair") is None
    assert counts(recipe.cache) == {"success": 3}


async def test_a_redis_that_hangs_is_a_miss_in_time_and_its_late_answer_nobodys(recipe: ModuleType, relay: Relay) -> None:
    async with client_of(recipe, relay) as client:
        await recipe.write(client, "lamp", b"green")
        await recipe.write(client, "chair", b"blue")
        relay.hang()
        began = time.monotonic()
        assert await recipe.read(client, "lamp") is None
        assert time.monotonic() - began < 5
        relay.resume()
        for _ in range(3):
            assert await recipe.read(client, "chair") == b"blue", "not the answer that came late"
        assert await recipe.read(client, "lamp") == b"green"
    assert counts(recipe.cache) == {"success": 6, "fallback": 1}


async def test_a_connection_that_breaks_is_made_again(recipe: ModuleType, relay: Relay) -> None:
    async with client_of(recipe, relay) as client:
        await recipe.write(client, "lamp", b"green")
        relay.cut()
        assert await recipe.read(client, "lamp") == b"green"
    assert counts(recipe.cache)["success"] == 2
    assert relay.connections == 2


async def test_a_redis_that_is_gone_is_left_alone(recipe: ModuleType, relay: Relay) -> None:
    with Relay(1) as gone:  # hangs up on everybody, for there is nothing behind it
        async with client_of(recipe, gone) as client:
            with anyio.fail_after(10):
                while recipe.cache.state == "closed":
                    assert await recipe.read(client, "lamp") is None
            asked = gone.connections
            for _ in range(100):
                assert await recipe.read(client, "lamp") is None
            assert gone.connections == asked
    assert recipe.cache.state == "open"


async def test_a_wrong_command_is_no_outage_and_no_miss(recipe: ModuleType, relay: Relay) -> None:
    async with client_of(recipe, relay) as client:
        await client.delete("list")
        await client.rpush("list", "a")
        for _ in range(10):
            with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
                await recipe.read(client, "list")
    assert recipe.cache.state == "closed"
    assert recipe.cache.breaker.fail_counter == 0


async def test_a_crowd_waits_for_connections_instead_of_failing(recipe: ModuleType, relay: Relay) -> None:
    async with client_of(recipe, relay) as client:
        await recipe.write(client, "lamp", b"green")
        # With more time than a cache has: that many connections at once may take it on a busy machine.
        patient = Dependency("cache", Bulkhead(max_concurrent=recipe.CONNECTIONS))
        found = await asyncio.gather(*[patient.call(recipe.read.__wrapped__, client, "lamp") for _ in range(100)])
    assert found == [b"green"] * 100
    assert relay.connections <= recipe.CONNECTIONS


async def test_threads_share_it(recipe: ModuleType, relay: Relay) -> None:
    async with client_of(recipe, relay) as client:
        await recipe.write(client, "lamp", b"green")
    sync = recipe.sync_client(f"redis://127.0.0.1:{relay.port}")
    with ThreadPoolExecutor(8) as threads:
        assert set(threads.map(lambda _: recipe.read_in_thread(sync, "lamp"), range(50))) == {b"green"}
        relay.hang()
        began = time.monotonic()
        assert threads.submit(recipe.read_in_thread, sync, "lamp").result() is None
        assert time.monotonic() - began < 5
        relay.resume()
        assert threads.submit(recipe.read_in_thread, sync, "lamp").result() == b"green"
    sync.close()
    told = counts(recipe.cache)
    # On a busy machine an answer may come late, which is read all the same, and held against the cache.
    assert told.pop("fallback") == 1
    assert set(told) <= {"success", "failure"} and sum(told.values()) == 52


def test_errors_are_told_apart(recipe: ModuleType, anyio_backend: Any) -> None:
    words = {
        exceptions.MaxConnectionsError: "ignored",
        exceptions.ConnectionError: "outage",
        exceptions.BusyLoadingError: "outage",
        exceptions.TimeoutError: "outage",
        exceptions.ReadOnlyError: "failure",
        exceptions.ResponseError: "success",
        exceptions.WatchError: "success",
    }
    assert {kind: recipe.judge(None, kind("x")).value for kind in words} == words
    assert recipe.judge(b"green", None) is recipe.judge(None, KeyError()) is None
