"""Hangs over HTTP: a stream that goes on is none, and an outage that hangs is over for users within seconds."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from typing import Any

import anyio
import pytest

from resilient import CircuitBreaker, Dependency, Failover, Fallback, Hedge, Resilience, Target, Timeout
from resilient.events import CircuitChanged
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .servers import Handler, Peer, Server, answer

RATE = 60  # requests a second


def percentile(values: list[float], part: float) -> float:
    return sorted(values)[max(0, round(len(values) * part + 0.5) - 1)]


class Upstream:
    """Answers as long as it is well; else it reads requests and says nothing until it is well again."""

    def __init__(self) -> None:
        self.well = asyncio.Event()
        self.loop: asyncio.AbstractEventLoop | None = None

    @property
    def handle(self) -> Handler:
        async def handle(peer: Peer) -> None:
            self.loop = asyncio.get_running_loop()
            while await peer.request() is not None:
                await self.well.wait()
                await peer.send(answer(200, b"[1]"))

        return handle

    def be_well(self, well: bool) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.well.set if well else self.well.clear)


@pytest.mark.slow
def test_an_optional_dependency_that_hangs_on_default_settings(library: Any) -> None:
    """60 requests a second; it hangs for 8 s. Nothing is set: attempts of 10 s, 100 slots, three trials."""
    upstream = Upstream()
    upstream.well.set()
    listener = RecordingListener()
    waited: list[tuple[float, float, Any]] = []
    began = 0.0

    async def main(url: str) -> None:
        nonlocal began
        resilience = Resilience(listeners=[listener])
        recs = resilience.dependency("recs", origin=url)
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience)) as client:

            @resilience.feature("recs", needs=[recs], fallback=[])
            async def recommended() -> Any:
                return (await client.get(f"{url}/for/you")).raise_for_status().json()

            async def one() -> None:
                at = time.perf_counter()
                answered = await recommended()
                waited.append((at, time.perf_counter() - at, answered))

            async with anyio.create_task_group() as users:
                start = time.perf_counter()
                for number in range(13 * RATE):
                    if number == 2 * RATE:
                        began = time.perf_counter()
                        upstream.be_well(False)
                    if number == 10 * RATE:
                        upstream.be_well(True)
                    users.start_soon(one)
                    await anyio.sleep(max(0.0, start + (number + 1) / RATE - time.perf_counter()))

    with Server(upstream.handle) as server:
        asyncio.run(main(server.url))
    healthy = [took for at, took, _ in waited if at < began]
    during = [took for at, took, _ in waited if began <= at < began + 8]
    later = [took for at, took, _ in waited if began + 2 <= at < began + 8]
    after = [answered for at, _, answered in waited if at >= began + 10]
    reasons = [event.reason for event in listener.of(CircuitChanged) if event.new == "open"]
    usual, worst, usual_then = statistics.median(healthy), percentile(during, 0.99), statistics.median(later)
    figures = f"healthy p50 {usual:.4f}; while it hangs p99 {worst:.3f}, and from 2 s on p50 {usual_then:.4f}"
    print(f"\n{library.module.__name__}: {figures} ({len(during)} calls)")
    assert reasons[0] == "stall"
    assert len(during) > 7 * RATE
    assert worst <= 2.0, figures
    assert usual_then <= 2 * usual, figures
    assert after.count([1]) > len(after) / 2


@pytest.mark.slow
def test_a_dependency_that_takes_seconds_to_answer_by_nature(library: Any) -> None:
    """A language model on a scale of one to ten: answers of 0.5 to 2 s, in bursts, and nobody in between."""
    listener = RecordingListener()

    async def handle(peer: Peer) -> None:
        while (asked := await peer.request()) is not None:
            await asyncio.sleep(float(asked.target.rpartition("/")[2]))
            await peer.send(answer(200, b"[1]"))

    async def main(url: str) -> None:
        resilience = Resilience(listeners=[listener])
        model = resilience.dependency("model", origin=url, fallback=[])
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience)) as client:
            for burst in range(3):
                async with anyio.create_task_group() as users:
                    for number in range(14):
                        # The later bursts have nothing that would answer within their first 1.2 s.
                        users.start_soon(client.get, f"{url}/{(0.5 if burst == 0 else 1.2) + number * 0.8 / 14:.3f}")
                        await anyio.sleep(0.1)
            assert model.state == "closed"
            assert (await client.get(f"{url}/0")).json() == [1]

    with Server(handle) as server:
        asyncio.run(main(server.url))
        assert len(server.requests) == 43
    assert listener.of(CircuitChanged) == []


@pytest.mark.anyio
async def test_streams_that_go_on_are_no_calls_that_hang(library: Any, clock: FakeClock) -> None:
    """Their answers have begun: twenty long downloads and nobody else for a minute are no stall."""

    class Slow(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        def __init__(self, pieces: int) -> None:
            self.pieces = pieces

        async def __aiter__(self) -> Any:
            for _ in range(self.pieces):
                await anyio.sleep(1)
                yield b"."

        async def aclose(self) -> None:
            """Nothing is open."""

    class Inner(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: Any) -> Any:
            if request.url.path == "/quick":
                await anyio.sleep(0.01)
                return library.Response(200)
            if request.url.path == "/hang":
                await anyio.sleep(100)
            return library.Response(200, stream=Slow(60))

    breaker = CircuitBreaker(random=lambda: 0.5)
    dependency = Dependency("files", Timeout(total=30), breaker, clock=clock)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, Inner())) as client:
        for _ in range(20):
            await client.get("http://files/quick")
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(client.get, "http://files/large")
                await anyio.sleep(1)
            assert breaker.current_state == "closed"
            # Nor do they hide calls that do hang.
            for _ in range(14):
                group.start_soon(swallow, client, "http://files/hang", library)
                await anyio.sleep(0.2)
            assert breaker.reason == "stall"


async def swallow(client: Any, url: str, library: Any) -> None:
    with contextlib.suppress(library.TransportError):
        await client.get(url)


@pytest.mark.anyio
@pytest.mark.parametrize("way", ["a hedge inside", "targets"])
async def test_requests_made_in_a_requests_place_are_cut_as_well(library: Any, clock: FakeClock, way: str) -> None:
    """The second target answers; of a hedged request the fallback does, and its streams are closed."""
    hangs, out = False, 0

    async def handle(request: Any) -> Any:
        nonlocal out
        out += 1
        try:
            await anyio.sleep(1000 if hangs and request.url.host == "files" else 0.02)
        finally:
            out -= 1
        return library.Response(200, json=[request.url.host])

    circuit = CircuitBreaker(random=lambda: 0.5)
    inside = (circuit, Hedge(delay=0.5)) if way == "a hedge inside" else (Failover(Target("first", circuit), "http://other"),)
    dependency = Dependency("files", Fallback(["instead"]), Timeout(total=30), *inside, clock=clock)
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([handle]))
    ends: list[tuple[Any, float]] = []

    async def one() -> None:
        began = clock.now()
        ends.append(((await client.get("http://files/1")).json(), clock.now() - began))

    async with library.AsyncClient(transport=transport) as client:
        for _ in range(25):
            await one()
        hangs = True
        ends.clear()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(one)
                await anyio.sleep(0.1)
        await anyio.sleep(0.1)
    assert circuit.reason == "stall" and not circuit.busy
    assert [answer for answer, _ in ends] == [["instead"] if way == "a hedge inside" else ["other"]] * 20
    assert max(took for _, took in ends) < 1.6
    assert out == 0
