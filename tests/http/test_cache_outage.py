"""An outage of a real server, as many who ask see it: fresh, or stale, marked and within its window, or an error."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, Cache, CircuitBreaker, Dependency, ResilienceError, Retry, Timeout, standard
from resilient.core.backoff import Constant

from .servers import Peer, Server, answer

CONTROL = "Cache-Control: max-age=1, stale-if-error=60"
LIFETIME, WINDOW = 1, 60
PAUSE = 0.1  # seconds between two requests of one who asks again and again


class Origin:
    """A server that does as `mode` says: up, slow, error, hung; "refused" is told by whoever uses a port that nobody listens on."""

    def __init__(self) -> None:
        self.mode = "up"
        self.asked: Counter[str] = Counter()
        self.version = 0

    async def __call__(self, peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            self.asked[self.mode] += 1
            mode = self.mode
            if mode == "hung":
                await asyncio.sleep(60)
            if mode == "reset":
                peer.reset()
                return
            if mode == "slow":
                await asyncio.sleep(0.3)
            while self.mode == "held":
                await asyncio.sleep(0.01)
            if mode == "error":
                await peer.send(answer(503, b"sorry"))
                continue
            self.version += 1
            await peer.send(answer(200, f"{asked.target} {self.version}".encode(), CONTROL))


@pytest.fixture
def origin() -> Origin:
    return Origin()


@pytest.fixture
def server(origin: Origin) -> Iterator[Server]:
    with Server(origin) as running:
        yield running


class Seen:
    """What those who asked got."""

    def __init__(self) -> None:
        self.kinds: Counter[str] = Counter()
        self.slowest = 0.0

    def judge(self, response: Any, seconds: float) -> None:
        self.slowest = max(self.slowest, seconds)
        if response.status_code != 200:
            self.kinds["error"] += 1
            assert response.status_code == 503
            return
        assert response.text.startswith("/")
        age = int(response.headers.get("age", 0))
        if "degraded" not in response.extensions:
            self.kinds["fresh"] += 1
            assert age <= LIFETIME, "stale and not marked"
            return
        self.kinds["stale"] += 1
        assert age <= LIFETIME + WINDOW and response.extensions["degraded"]["stale_for"] <= WINDOW
        assert "; ttl=-" in response.headers["cache-status"] or "; ttl=0" in response.headers["cache-status"]

    def fail(self, seconds: float) -> None:
        self.slowest = max(self.slowest, seconds)
        self.kinds["error"] += 1


def policies(**settings: Any) -> tuple[Any, ...]:
    """The default ones, in a hurry where the test's patience asks for it."""
    return standard(cache=Cache(**settings), timeout=Timeout(total=1.0), retry=Retry(attempts=2, backoff=Constant(0.05)))


async def load(library: Any, http: Any, seen: Seen, seconds: float, callers: int = 30) -> None:
    """So many who ask again and again."""
    end = time.monotonic() + seconds

    async def ask(number: int) -> None:
        while time.monotonic() < end:
            began = time.monotonic()
            try:
                response = await http.get(f"/{number % 3}")
            except (library.TransportError, ResilienceError):
                seen.fail(time.monotonic() - began)
            else:
                seen.judge(response, time.monotonic() - began)
            await anyio.sleep(PAUSE)

    async with anyio.create_task_group() as group:
        for number in range(callers):
            group.start_soon(ask, number)


def nothing_held(dependency: Dependency, cache: Cache) -> None:
    dependency.reclaim()
    assert dependency.bulkhead is not None and dependency.bulkhead.in_use == 0
    assert cache.flights is not None and len(cache.flights) == 0 and cache.flights.bytes == 0


@pytest.mark.anyio
@pytest.mark.slow
async def test_an_outage_from_beginning_to_end(library: Any, server: Server, origin: Origin) -> None:
    chosen = policies()
    cache = chosen[0]
    dependency = Dependency("catalog", *chosen)
    transport = library.ours.AsyncResilientTransport(dependency)
    async with library.AsyncClient(transport=transport, base_url=server.url) as http:
        for mode, expected in (
            ("up", {"fresh"}),
            ("slow", {"fresh"}),
            ("error", {"fresh", "stale"}),
            ("reset", {"stale"}),
            ("hung", {"stale"}),
        ):
            origin.mode = mode
            seen = Seen()
            await load(library, http, seen, 1.3)
            assert set(seen.kinds) <= expected, (mode, seen.kinds)
            assert max(expected & set(seen.kinds), key=seen.kinds.__getitem__)
        # Three URIs, each asked for once in its cool-down of a second at the least, and twice with its retry.
        assert origin.asked["error"] <= 12 and origin.asked["hung"] <= 12
        origin.mode = "up"
        seen = Seen()
        with anyio.fail_after(40):
            while not seen.kinds["fresh"]:
                await load(library, http, seen, 0.5, callers=3)
        assert set(seen.kinds) <= {"fresh", "stale"}
    await anyio.sleep(0.05)
    nothing_held(dependency, cache)


@pytest.mark.anyio
async def test_nobody_listens(library: Any, origin: Origin) -> None:
    """The server is gone: what it said stands in, at once."""
    chosen = policies()
    dependency = Dependency("catalog", *chosen)
    transport = library.ours.AsyncResilientTransport(dependency)
    with ExitStack() as stack:
        server = stack.enter_context(Server(origin))
        async with library.AsyncClient(transport=transport, base_url=server.url) as http:
            for path in range(3):
                assert (await http.get(f"/{path}")).status_code == 200
            stack.close()
            await anyio.sleep(1.1)
            seen = Seen()
            await load(library, http, seen, 0.5)
            assert set(seen.kinds) == {"stale"}, seen.kinds
            with pytest.raises((library.TransportError, ResilienceError)):
                await http.get("/never-seen")
    nothing_held(dependency, chosen[0])


@pytest.mark.anyio
async def test_a_hung_server_is_not_waited_for(library: Any, server: Server, origin: Origin) -> None:
    chosen = policies(soft_timeout=0.1)
    dependency = Dependency("catalog", *chosen)
    transport = library.ours.AsyncResilientTransport(dependency)
    async with library.AsyncClient(transport=transport, base_url=server.url) as http:
        for path in range(3):
            await http.get(f"/{path}")
        origin.mode = "hung"
        await anyio.sleep(1.1)
        seen = Seen()
        await load(library, http, seen, 1.5)
        assert set(seen.kinds) == {"stale"} and seen.slowest < 0.9, (seen.kinds, seen.slowest)
        assert origin.asked["hung"] <= 9
        with anyio.fail_after(10):  # the last fetch comes to the end of its time
            while len(chosen[0].flights):
                await anyio.sleep(0.05)
    nothing_held(dependency, chosen[0])


@pytest.mark.slow
@pytest.mark.anyio
async def test_a_thousand_who_miss_at_once(library: Any, server: Server, origin: Origin) -> None:
    """One call, with the one who began it cancelled; and one more when it has expired."""
    chosen = standard(cache=Cache())
    dependency = Dependency("catalog", *chosen)
    transport = library.ours.AsyncResilientTransport(dependency)
    got: Counter[str] = Counter()

    async def ask() -> None:
        got[(await http.get("/hot")).text] += 1

    async def lead(leader: anyio.CancelScope) -> None:
        with leader:
            await ask()

    async with library.AsyncClient(transport=transport, base_url=server.url) as http:
        for round_ in 1, 2:
            origin.mode, leader = "held", anyio.CancelScope()
            async with anyio.create_task_group() as group:
                group.start_soon(lead, leader)
                with anyio.fail_after(20):
                    while not origin.asked["held"]:
                        await anyio.sleep(0.01)
                    for _ in range(999):
                        group.start_soon(ask)
                    (flight,) = chosen[0].flights._out.values()
                    while flight.interest < 1000:
                        await anyio.sleep(0.01)
                leader.cancel()
                await anyio.sleep(0.05)
                origin.mode = "up"
            assert origin.asked.total() == 1 and got == {f"/hot {round_}": 999}, (origin.asked, got)
            got.clear()
            origin.asked.clear()
            await anyio.sleep(1.1)
    nothing_held(dependency, chosen[0])


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["slow", "error", "reset", "hung"])
def test_fifty_threads(library: Any, server: Server, origin: Origin, mode: str) -> None:
    chosen = (
        Cache(soft_timeout=0.2), Timeout(total=4.0), Retry(attempts=2, backoff=Constant(0.05)), Bulkhead(), CircuitBreaker(),
    )  # fmt: skip
    dependency = Dependency("catalog", *chosen)
    seens = [Seen() for _ in range(50)]
    barrier = threading.Barrier(51)
    failures: list[BaseException] = []

    def work(number: int) -> None:
        try:
            barrier.wait()
            end = time.monotonic() + 1.2
            while time.monotonic() < end:
                began = time.monotonic()
                try:
                    response = http.get("/hot")
                except (library.TransportError, ResilienceError):
                    seens[number].fail(time.monotonic() - began)
                else:
                    seens[number].judge(response, time.monotonic() - began)
                threading.Event().wait(PAUSE)
        except BaseException as error:  # noqa: BLE001 - raised by the test
            failures.append(error)

    with ExitStack() as stack:
        transport = library.ours.ResilientTransport(dependency)
        http = stack.enter_context(library.Client(transport=transport, base_url=server.url))
        assert http.get("/hot").status_code == 200
        threads = [threading.Thread(target=work, args=(number,)) for number in range(50)]
        for thread in threads:
            thread.start()
        threading.Event().wait(1.1)
        origin.mode = mode
        barrier.wait()
        for thread in threads:
            thread.join(20)
            assert not thread.is_alive()
        end = time.monotonic() + 10
        while len(chosen[0].flights or ()) and time.monotonic() < end:  # type: ignore[attr-defined]
            threading.Event().wait(0.02)
    assert not failures, failures[0]
    kinds = sum((seen.kinds for seen in seens), Counter[str]())
    assert set(kinds) <= ({"fresh", "stale"} if mode == "slow" else {"stale"}), kinds
    assert origin.asked[mode] <= 4, origin.asked
    assert max(seen.slowest for seen in seens) < 3.0  # fifty threads on one core; a hung server's answer would take 4 s
    nothing_held(dependency, chosen[0])  # type: ignore[arg-type]
