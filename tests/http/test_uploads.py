"""Sending a body: the total stands still while bytes flow, and a body that nobody takes any more is cut."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from typing import Any

import anyio
import pytest

from resilient import Deadline, Retry, Timeout, standard
from resilient.context import deadline_scope
from resilient.testing import FakeClock, FaultyTransport

from .bodies import stream
from .conftest import Declare
from .servers import Peer, Server, answer

pytestmark = pytest.mark.anyio

MEGABYTE = 2**20
LARGE = b"x" * (4 * MEGABYTE)


def taking(*steps: float | str) -> Any:
    """An inner transport's answer that takes a piece of the body after each number of seconds; at "headers" it answers."""

    async def respond(request: Any) -> Any:
        pieces = aiter(request.stream)
        for step in steps:
            if isinstance(step, str):
                break
            await anyio.sleep(step)
            await anext(pieces)
        else:
            async for _ in pieces:
                pass
        library = __import__(type(request).__module__.partition(".")[0])
        return library.Response(200)

    return respond


async def test_total_stands_still_while_bytes_flow(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Twenty pieces, each taken after 0.8 s, under a total of 1 s."""
    transport = library.ours.AsyncResilientTransport(declare(timeout=1), FaultyTransport([taking(*[0.0] + [0.8] * 19)]))
    async with library.AsyncClient(transport=transport) as client:
        began = clock.now()
        assert (await client.put("http://dep/", content=b"x" * (20 * 64 * 1024))).status_code == 200
        assert clock.now() - began == pytest.approx(19 * 0.8)


@pytest.mark.parametrize(
    "content",
    [
        lambda library: {"content": b"x" * (10 * 64 * 1024)},
        lambda library: {"content": [b"x" * 64 * 1024] * 10},
        lambda library: {"files": {"f": b"x" * (10 * 64 * 1024)}},
    ],
    ids=["bytes", "list", "multipart"],
)
async def test_what_was_left_is_left_when_the_body_is_out(library: Any, clock: FakeClock, declare: Declare, content: Any) -> None:
    async def silent(request: Any) -> Any:
        await anyio.sleep(0.25)
        if hasattr(type(request.stream), "__aiter__"):
            async for _ in request.stream:
                await anyio.sleep(0.5)
        seen["left"] = request.extensions["timeout"].get("read")
        await anyio.sleep_forever()

    seen: dict[str, float] = {}
    transport = library.ours.AsyncResilientTransport(declare(timeout=1), FaultyTransport([silent]))
    async with library.AsyncClient(transport=transport, timeout=None) as client:
        request = library.Request("POST", "http://dep/", **content(library))
        if not isinstance(request.stream, library.AsyncByteStream):
            request.stream = stream(library, *[b"x" * 64 * 1024] * 10)
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.send(request)
    assert raised.value.reason == "total"
    assert seen["left"] == pytest.approx(0.75)


async def test_body_that_nobody_takes_is_cut(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=1, idle=4)))
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([taking(0.0, 2.0, 3.0, 3600.0)]))
    async with library.AsyncClient(transport=transport, timeout=None) as client:
        began = clock.now()
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.post("http://dep/", content=LARGE)
        assert clock.now() - began == pytest.approx(5 + 4)
    assert raised.value.reason == "idle"
    assert dependency.breaker.fail_counter == 1


async def test_slow_generator_is_the_callers(library: Any, clock: FakeClock, declare: Declare) -> None:
    async def slowly() -> Any:
        yield b"x"
        await anyio.sleep(2)
        yield b"y"
        await anyio.sleep(3600)

    async def take(request: Any) -> Any:
        async for _ in request.stream:
            pass

    dependency = declare(*standard(timeout=Timeout(total=1, idle=4)))
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([take]))
    async with library.AsyncClient(transport=transport, timeout=None) as client:
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.post("http://dep/", content=slowly())
    assert raised.value.reason == "idle"
    assert dependency.breaker.fail_counter == 0, "nobody waited for the dependency"
    assert dependency.stats.snapshot().counts["ignored"] == 1


async def test_a_deadline_from_outside_does_not_stand_still(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(timeout=1)
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([taking(*[0.0] + [0.5] * 60)]))
    async with library.AsyncClient(transport=transport, timeout=None) as client:
        began = clock.now()
        with deadline_scope(Deadline(clock.now() + 3.25, clock)), pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.post("http://dep/", content=LARGE)
        assert clock.now() - began == pytest.approx(3.25)
        assert raised.value.reason == "caller"
    assert dependency.stats.snapshot().counts["ignored"] == 1, "the dependency had taken a piece a moment before"


async def test_each_attempt_sends_the_body_anew(library: Any, clock: FakeClock, declare: Declare) -> None:
    """What the first one spent on sending is not taken from the second."""

    async def broken(request: Any) -> Any:
        async for _ in request.stream:
            await anyio.sleep(0.8)
        raise library.ReadError("reset")

    dependency = declare(*standard(timeout=Timeout(total=1), retry=Retry(random=lambda: 0.0)))
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([broken, broken, taking(0.0, 0.8, 0.8)]))
    async with library.AsyncClient(transport=transport) as client:
        assert (await client.put("http://dep/", content=b"x" * (5 * 64 * 1024))).status_code == 200


# -- on real sockets --------------------------------------------------------------------------------------------------


async def take_slowly(peer: Peer) -> None:
    """Reads in gulps, with pauses during which nothing can be sent: about 0.8 s for 16 MB.

    It has to be so much, because what the kernel's buffers take is gone for the client, however slowly it is read.
    """
    head = await peer.request(body=False)
    assert head is not None
    left = int(head.headers["content-length"])
    while left > 0:
        await asyncio.sleep(0.05)
        gulp = min(left, MEGABYTE)
        await peer.reader.readexactly(gulp)
        left -= gulp
    await peer.send(answer(200, b"thanks"))


async def take_nothing(peer: Peer) -> None:
    await peer.request(body=False)
    peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
    await asyncio.sleep(3600)


SMALL_BUFFER = {"receive_buffer": 32 * 1024}


@pytest.mark.slow
async def test_slow_upload_to_a_real_server(library: Any, declare: Declare) -> None:
    with Server(take_slowly, **SMALL_BUFFER) as server:
        transport = library.ours.AsyncResilientTransport(declare(timeout=0.4), verify=False)
        async with library.AsyncClient(transport=transport, timeout=5) as client:
            began = time.monotonic()
            assert (await client.post(server.url, content=LARGE * 4)).content == b"thanks"
    assert time.monotonic() - began > 0.6


def test_slow_sync_upload_to_a_real_server(library: Any, declare: Declare) -> None:
    with Server(take_slowly, **SMALL_BUFFER) as server:
        with library.Client(transport=library.ours.ResilientTransport(declare(timeout=0.4), verify=False), timeout=5) as client:
            began = time.monotonic()
            assert client.post(server.url, content=LARGE * 4).content == b"thanks"
    assert time.monotonic() - began > 0.6


async def test_stalled_upload_to_a_real_server_is_cut(library: Any, declare: Declare) -> None:
    with Server(take_nothing, **SMALL_BUFFER) as server:
        dependency = declare(Timeout(total=5, idle=0.3))
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, verify=False), timeout=5) as client:
            began = time.monotonic()
            with pytest.raises(library.ours.DeadlineExceeded) as raised:
                await client.post(server.url, content=LARGE * 4)
            assert raised.value.reason == "idle"
            assert 0.25 < time.monotonic() - began < 4


def test_stalled_sync_upload_to_a_real_server_is_cut(library: Any, declare: Declare) -> None:
    with Server(take_nothing, **SMALL_BUFFER) as server:
        dependency = declare(Timeout(total=5, idle=0.3))
        with library.Client(transport=library.ours.ResilientTransport(dependency, verify=False), timeout=5) as client:
            began = time.monotonic()
            with pytest.raises(library.ours.DeadlineExceeded) as raised:
                client.post(server.url, content=LARGE * 4)
            assert raised.value.reason == "idle"
            assert 0.25 < time.monotonic() - began < 4


def test_sync_upload_stops_at_a_deadline_from_outside(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Nothing interrupts it; each piece looks."""

    def slowly() -> Iterator[bytes]:
        for _ in range(100):
            clock.advance(0.5)
            yield b"x"

    def take(request: Any) -> Any:
        return library.Response(200, content=b"".join(request.stream))

    with library.Client(transport=library.ours.ResilientTransport(declare(timeout=1), FaultyTransport([take]))) as client:
        began = clock.now()
        assert len(client.post("http://dep/", content=slowly()).content) == 100
        assert clock.now() - began == pytest.approx(50)
        with deadline_scope(Deadline(clock.now() + 3, clock)), pytest.raises(library.ours.DeadlineExceeded) as raised:
            client.post("http://dep/", content=slowly())
        assert raised.value.reason == "caller"
        assert clock.now() - began == pytest.approx(53)
