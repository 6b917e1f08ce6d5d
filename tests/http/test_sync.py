"""Synchronous clients: nothing interrupts them, so that each operation's timeout is told what is left."""

from __future__ import annotations

import asyncio
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from resilient import Deadline, Retry, Timeout, standard
from resilient.context import deadline_scope
from resilient.events import DeadlinePassed, ResponseAbandoned
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare
from .servers import Peer, Server, answer, answering


def client_of(library: Any, target: Any, inner: Any = None, **options: Any) -> Any:
    if inner is None:
        options["verify"] = False
    return library.Client(transport=library.ours.ResilientTransport(target, inner, **options))


# -- permits ----------------------------------------------------------------------------------------------------------


def test_ground_01_sync_permit_held_until_body_end(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    with client_of(library, dependency, FaultyTransport([scripted(library, b"one", 1.0, b"two", clock=clock)])) as client:
        with client.stream("GET", "http://dep/") as response:
            assert dependency.bulkhead.in_use == 1
            assert [dependency.bulkhead.in_use for _ in response.iter_bytes()] == [1, 1]
            assert dependency.bulkhead.in_use == 0


def test_ground_02_sync_body_that_breaks_is_a_failure(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    with client_of(library, dependency, FaultyTransport([scripted(library, b"half", library.ReadError("reset"))])) as client:
        with pytest.raises(library.ReadError):
            client.get("http://dep/")
    assert dependency.breaker.fail_counter == 1
    assert dependency.bulkhead.in_use == 0


def test_ground_05_and_07_sync_early_exit_and_closing_twice(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    dependency = declare()
    respond = scripted(library, b"one", b"two", clock=clock)
    with client_of(library, dependency, FaultyTransport([respond]), max_connections=1) as client:
        for _ in range(2):
            with client.stream("GET", "http://dep/") as response:
                for _chunk in response.iter_bytes():
                    break
            response.stream.close()
            response.stream.close()
            assert respond.body.closed == 1  # type: ignore[attr-defined]
            assert dependency.bulkhead.in_use == 0
    assert listener.of(ResponseAbandoned) == []


def test_sync_interrupted_reader_is_neutral(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    with client_of(library, dependency, FaultyTransport([scripted(library, b"half", KeyboardInterrupt())])) as client:
        with pytest.raises(KeyboardInterrupt):
            client.get("http://dep/")
    assert dependency.breaker.fail_counter == 0
    assert dependency.bulkhead.in_use == 0


@pytest.mark.parametrize("when", ["sending", "draining"])
def test_sync_interrupt_keeps_no_place(library: Any, clock: FakeClock, declare: Declare, when: str) -> None:
    interrupted = KeyboardInterrupt() if when == "sending" else scripted(library, b"x", KeyboardInterrupt(), status=500)
    dependency = declare()
    with client_of(library, dependency, FaultyTransport([interrupted, interrupted, 200]), max_connections=1) as client:
        for _ in range(2):
            with pytest.raises(KeyboardInterrupt):
                client.get("http://dep/")
            assert dependency.bulkhead.in_use == 0
        assert client.get("http://dep/").status_code == 200


# -- time -------------------------------------------------------------------------------------------------------------


def test_read_timeout_on_a_real_server_is_told_as_deadline(library: Any, declare: Declare) -> None:
    async def silent(peer: Peer) -> None:
        await peer.request()
        await peer.request()

    with Server(silent) as server, client_of(library, declare(timeout=0.2)) as client:
        began = time.monotonic()
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            client.post(server.url)
    assert 0.19 < time.monotonic() - began < 4  # without the deadline it is 5 s
    assert isinstance(raised.value.__cause__, library.ReadTimeout)


def test_each_operation_is_told_what_is_left(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Were each told the whole total, they could take several times as long together."""

    def answer(request: Any) -> Any:
        timeouts = request.extensions["timeout"]
        left = []
        for operation in ("pool", "connect", "write", "read"):
            left.append(timeouts.get(operation))
            clock.advance(1)
        return library.Response(200, json=left)

    with client_of(library, declare(timeout=5), FaultyTransport([answer])) as client:
        assert client.get("http://dep/", timeout=60).json() == pytest.approx([5, 4, 3, 2])
        assert client.get("http://dep/", timeout=2.5).json() == pytest.approx([2.5, 2.5, 2.5, 2])


def test_a_timeout_of_nothing_is_still_a_timeout(library: Any, clock: FakeClock, declare: Declare) -> None:
    """0 would make a socket non-blocking, and the error another one."""

    def answer(request: Any) -> Any:
        clock.advance(7)
        return library.Response(200, json=request.extensions["timeout"].get("read"))

    with client_of(library, declare(timeout=5), FaultyTransport([answer])) as client:
        assert client.get("http://dep/").json() == 0.001


def test_late_answer_is_given_and_is_no_success(library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    """Nor is it thrown away for another attempt, however repeatable it is."""

    def late(request: Any) -> Any:
        clock.advance(2)
        return library.Response(200, text="late")

    dependency = declare(*standard(timeout=Timeout(total=10, attempt=1)))
    inner = FaultyTransport([late])
    with client_of(library, dependency, inner) as client:
        assert client.get("http://dep/").text == "late"
    assert len(inner.requests) == 1
    assert [event.limit for event in listener.of(DeadlinePassed)] == ["late"]
    assert dependency.breaker.fail_counter == 1
    assert dependency.stats.snapshot().counts["failure"] == 1


def test_attempt_is_not_started_after_the_deadline(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport()
    with client_of(library, declare(), inner) as client, deadline_scope(Deadline(clock.now() - 1, clock)):
        with pytest.raises(library.ours.DeadlineExceeded, match="too little to start"):
            client.get("http://dep/")
    assert inner.requests == []


@pytest.mark.parametrize("body", ["idle", "total"])
def test_ground_09_sync_body_is_bounded_on_a_real_server(library: Any, declare: Declare, body: Any) -> None:
    async def trickle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(3):
            await asyncio.sleep(0.05)
            await peer.send(b".")
        while body == "total":
            await asyncio.sleep(0.05)
            await peer.send(b".")
        await peer.request()

    dependency = declare(Timeout(total=0.4, idle=0.2, body=body))
    with Server(trickle) as server, client_of(library, dependency) as client:
        began = time.monotonic()
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            client.get(server.url)
        assert raised.value.reason == body
        assert time.monotonic() - began < 4


def test_ground_10_sync_buffered_chunk_after_expiry_raises(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(Timeout(total=1, body="total"))
    with client_of(library, dependency, FaultyTransport([scripted(library, *[b"x"] * 9)])) as client:
        with client.stream("GET", "http://dep/") as response, pytest.raises(library.ours.DeadlineExceeded):
            for _ in response.iter_raw():
                clock.advance(0.3)


def test_ground_11_sync_body_read_in_another_thread(library: Any, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5, body="total")))
    inner = FaultyTransport([scripted(library, b"a", b"b", b"c")])
    with client_of(library, dependency, inner) as client, ThreadPoolExecutor(1) as other:
        response = client.send(client.build_request("GET", "http://dep/"), stream=True)
        chunks = response.iter_raw()
        assert [other.submit(next, chunks).result(5), next(chunks), other.submit(next, chunks).result(5)] == [b"a", b"b", b"c"]
        assert other.submit(next, chunks, None).result(5) is None
    assert dependency.bulkhead.in_use == 0
    assert dependency.stats.snapshot().counts["success"] == 1


def test_ground_12_sync_slow_consumer_is_not_cut_off(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=3, idle=2)))
    with client_of(library, dependency, FaultyTransport([scripted(library, b"a", 1, b"b", 1, b"c", clock=clock)])) as client:
        with client.stream("GET", "http://dep/") as response:
            for _ in response.iter_raw():
                clock.advance(100)
    assert dependency.stats.snapshot().counts["success"] == 1


def test_ground_19_sync_event_stream_may_pause(library: Any, clock: FakeClock, declare: Declare) -> None:
    respond = scripted(library, b"data: a\n\n", 3600, b"data: b\n\n", clock=clock, content_type="text/event-stream")
    with client_of(library, declare(Timeout(total=5, body="total")), FaultyTransport([respond])) as client:
        assert client.get("http://dep/").text.count("data") == 2


# -- retries ----------------------------------------------------------------------------------------------------------


def test_ground_17_sync_retry_keeps_the_connection(library: Any, declare: Declare) -> None:
    with Server(answering(*[answer(500, b"x" * 5000)] * 2, answer(200, b"fine"))) as server:
        with client_of(library, declare(Timeout(total=5), Retry(random=lambda: 0.0))) as client:
            assert client.get(server.url).content == b"fine"
    assert (len(server.requests), server.connections) == (3, 1)


@pytest.mark.parametrize("pieces", [1, 1000], ids=["silent", "trickling"])
def test_sync_answer_that_is_slow_is_not_read_for_its_connection(library: Any, declare: Declare, pieces: int) -> None:
    """50 ms are all it gets, in one read or in many; the whole would take 10 s."""

    async def trickle(peer: Peer) -> None:
        await peer.request()
        if len(peer.server.requests) > 1:
            await peer.send(answer(200, b"fine"))
            return
        await peer.send(b"HTTP/1.1 500 Oh\r\nContent-Length: 1000\r\n\r\n")
        for _ in range(pieces):
            await asyncio.sleep(0.01)
            await peer.send(b".")
        await peer.request()

    with Server(trickle) as server, client_of(library, declare(Timeout(total=5), Retry(random=lambda: 0.0))) as client:
        began = time.monotonic()
        assert client.get(server.url).content == b"fine"
        assert time.monotonic() - began < 4


def test_sync_stream_of_both_colours_is_read_as_a_sync_one(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Mocks give streams that are both; what is asked decides, not what it could."""
    respond = scripted(library, b"x", status=500, clock=clock)
    with client_of(library, declare(Retry(random=lambda: 0.0)), FaultyTransport([respond])) as client:
        assert client.get("http://dep/").content == b"x"


@pytest.mark.parametrize(("fault", "error"), [("fin", "RemoteProtocolError"), ("rst", "ReadError")])
def test_ground_15_sync_post_is_not_sent_again_once_it_was_written(library: Any, declare: Declare, fault: str, error: str) -> None:
    async def fail(peer: Peer) -> None:
        await peer.request()
        if fault == "rst":
            peer.reset()

    with Server(fail) as server, client_of(library, declare(Timeout(total=5), Retry(random=lambda: 0.0))) as client:
        with pytest.raises(getattr(library, error)):
            client.post(server.url, content=b"x")
    assert len(server.requests) == 1
