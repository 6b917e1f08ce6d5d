"""Streams that fall silent by design: event streams, upgraded connections, websockets."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from typing import Any

import anyio
import httpx2
import pytest

import resilient.httpx2
from resilient import Timeout, standard
from resilient.testing import FakeClock, FaultyTransport

from .bodies import scripted
from .conftest import Declare
from .servers import Peer, Server

pytestmark = pytest.mark.anyio

EVENTS = (b"data: one\n\n", 3600, b"data: two\n\n", 3600, b"data: three\n\n")


@pytest.mark.parametrize("content_type", ["text/event-stream", "text/event-stream; charset=utf-8", "Text/Event-Stream"])
@pytest.mark.parametrize("body", ["idle", "total"])
async def test_ground_19_event_stream_may_pause_for_hours(
    library: Any, clock: FakeClock, declare: Declare, content_type: str, body: Any
) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5, body=body)))
    inner = FaultyTransport([scripted(library, *EVENTS, content_type=content_type)])
    transport = library.ours.AsyncResilientTransport(dependency, inner)
    async with library.AsyncClient(transport=transport, timeout=library.Timeout(5, read=None)) as client:
        async with client.stream("GET", "http://dep/events") as response:
            assert dependency.bulkhead.in_use == 1
            lines = [line async for line in response.aiter_lines() if line]
    assert lines == ["data: one", "data: two", "data: three"]
    assert dependency.bulkhead.in_use == 0
    assert dependency.stats.snapshot().counts["success"] == 1


async def test_ground_19_unless_idle_was_said(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([scripted(library, *EVENTS, content_type="text/event-stream")])
    transport = library.ours.AsyncResilientTransport(declare(Timeout(idle=60)), inner)
    async with library.AsyncClient(transport=transport, timeout=None) as client:
        began = clock.now()
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.get("http://dep/events")
    assert raised.value.reason == "idle"
    assert clock.now() - began == pytest.approx(60)


async def test_ground_19_read_timeout_of_the_clients_own_stays(library: Any, clock: FakeClock, declare: Declare) -> None:
    seen = {}

    def answer(request: Any) -> Any:
        seen["timeouts"] = request.extensions["timeout"]
        return scripted(library, b"data: x\n\n", content_type="text/event-stream")(request)

    transport = library.ours.AsyncResilientTransport(declare(), FaultyTransport([answer]))
    async with library.AsyncClient(transport=transport, timeout=library.Timeout(5, read=7200)) as client:
        async with client.stream("GET", "http://dep/events"):
            assert seen["timeouts"].get("read") == 7200


async def test_ground_19_upgraded_connection_is_left_alone(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    network = object()
    respond = scripted(library, b"a", 3600, b"b", status=101)

    def upgrade(request: Any) -> Any:
        response = respond(request)
        response.extensions["network_stream"] = network
        return response

    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([upgrade]))
    async with library.AsyncClient(transport=transport, timeout=None) as client:
        async with client.stream("GET", "http://dep/") as response:
            assert response.extensions["network_stream"] is network
            assert dependency.bulkhead.in_use == 1
            assert [chunk async for chunk in response.aiter_raw()] == [b"a", b"b"]
    assert dependency.bulkhead.in_use == 0


async def test_ground_19_event_stream_of_a_real_server(declare: Declare) -> None:
    """Through httpx2's own reader of event streams; the pauses are longer than what a plain body may take."""

    async def stream(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
        for number in range(3):
            await asyncio.sleep(0.15)
            event = b"id: %d\ndata: tick\n\n" % number
            await peer.send(b"%x\r\n%s\r\n" % (len(event), event))
        await peer.send(b"0\r\n\r\n")

    dependency = declare(*standard(timeout=Timeout(total=0.1)))
    with Server(stream) as server:
        transport = resilient.httpx2.AsyncResilientTransport(dependency, verify=False)
        async with httpx2.AsyncClient(transport=transport, timeout=5) as client:
            async with client.stream("GET", server.url) as response:
                lines = [line async for line in response.aiter_lines() if line.startswith("id")]
    assert lines == ["id: 0", "id: 1", "id: 2"]


async def test_ground_19_websocket_of_httpx2(declare: Declare) -> None:
    async def echo(peer: Peer) -> None:
        asked = await peer.request()
        assert asked is not None
        key = asked.headers["sec-websocket-key"].encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
        accept = base64.b64encode(hashlib.sha1(key).digest()).decode()
        fields = f"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        await peer.send(f"HTTP/1.1 101 Switching Protocols\r\n{fields}".encode())
        for _ in range(2):
            await asyncio.sleep(0.15)
            await peer.send(b"\x81\x04tick")  # a text frame
        await peer.request()

    dependency = declare(*standard(timeout=Timeout(total=0.1)))
    with Server(echo) as server:
        transport = resilient.httpx2.AsyncResilientTransport(dependency, verify=False)
        async with httpx2.AsyncClient(transport=transport, timeout=5) as client:
            with anyio.fail_after(5):
                async with client.websocket(server.url.replace("http", "ws")) as session:
                    assert [await session.receive_text() for _ in range(2)] == ["tick", "tick"]
                    assert dependency.bulkhead.in_use == 1
    assert dependency.bulkhead.in_use == 0
