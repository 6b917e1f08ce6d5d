"""How long a request may take: headers, bodies, idle times, and whose timeout it is that is raised."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import anyio
import pytest

from resilient import Deadline, Retry, Timeout, standard
from resilient.context import deadline_scope
from resilient.events import DeadlinePassed
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare
from .servers import Peer, Server

pytestmark = pytest.mark.anyio


async def test_total_bounds_the_headers(library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    dependency = declare(timeout=0.3)
    began = clock.now()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([HANG]))) as client:
        with pytest.raises(library.ours.DeadlineExceeded, match="dep: no answer within 0.300 s") as raised:
            await client.post("http://dep/")
    assert clock.now() - began == pytest.approx(0.3)
    assert (raised.value.reason, raised.value.dependency) == ("total", "dep")
    assert isinstance(raised.value, library.TimeoutException | TimeoutError)
    assert raised.value.request.method == "POST", "the client filled it in"
    assert [event.limit for event in listener.of(DeadlinePassed)] == ["total"]
    assert dependency.bulkhead.in_use == 0


@pytest.mark.parametrize("body", ["total", "idle"])
async def test_ground_09_trickling_body_is_bounded(library: Any, clock: FakeClock, declare: Declare, body: Any) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5, idle=2, body=body)))
    trickle = [step for _ in range(100) for step in (b".", 1.5)]
    began = clock.now()
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([scripted(library, *trickle)]))
    ) as client:
        if body == "idle":
            assert len((await client.get("http://dep/")).content) == 100
            assert clock.now() - began == pytest.approx(150)
        else:
            with pytest.raises(library.ours.DeadlineExceeded) as raised:
                await client.get("http://dep/")
            assert raised.value.reason == "total"
            assert clock.now() - began == pytest.approx(5)
            assert dependency.stats.snapshot().counts["failure"] == 1, "the dependency trickled"


async def test_ground_09_trickling_headers_are_bounded_on_a_real_server(library: Any, declare: Declare) -> None:
    async def trickle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\n")
        while True:
            await asyncio.sleep(0.05)
            await peer.send(b"X-Slow: yes\r\n")

    dependency = declare(timeout=0.3)
    with Server(trickle) as server:
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, verify=False), timeout=5) as client:
            began = time.monotonic()
            with pytest.raises(library.ours.DeadlineExceeded):
                await client.get(server.url)
            assert 0.29 < time.monotonic() - began < 4  # it trickles for ever
    assert dependency.bulkhead.in_use == 0


async def test_ground_09_trickling_body_is_bounded_on_a_real_server(library: Any, declare: Declare) -> None:
    async def trickle(peer: Peer) -> None:
        await peer.request()
        await peer.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while True:
            await asyncio.sleep(0.05)
            await peer.send(b".")

    dependency = declare(*standard(timeout=Timeout(total=0.3, body="total")))
    with Server(trickle) as server:
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, verify=False), timeout=5) as client:
            began = time.monotonic()
            with pytest.raises(library.ours.DeadlineExceeded):
                await client.get(server.url)
            assert 0.29 < time.monotonic() - began < 4  # it trickles for ever


async def test_ground_10_buffered_chunk_after_expiry_raises(library: Any, clock: FakeClock, declare: Declare) -> None:
    """A chunk that is there already comes without a wait, so that no timer would ever see it."""
    dependency = declare(*standard(timeout=Timeout(total=1, body="total")))
    respond = scripted(library, *[b"x"] * 50)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]))) as client:
        async with client.stream("GET", "http://dep/") as response:
            seen = 0
            with pytest.raises(library.ours.DeadlineExceeded):
                async for _ in response.aiter_raw():
                    seen += 1
                    await anyio.sleep(0.3)
    assert seen == 4
    assert dependency.stats.snapshot().counts["ignored"] == 1, "it was the reader who took his time"
    assert dependency.breaker.fail_counter == 0


async def test_ground_11_body_read_in_another_task(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5, body="total")))
    respond = scripted(library, b"a", 1, b"b", 1, b"c")
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]))) as client:
        response = await client.send(client.build_request("GET", "http://dep/"), stream=True)
        chunks = response.aiter_raw()
        seen = []

        async def read_one() -> None:
            seen.append(await anext(chunks))

        for _ in range(3):  # each chunk in a task of its own, within a scope of its own
            async with anyio.create_task_group() as group:
                group.start_soon(read_one)
        with pytest.raises(StopAsyncIteration):
            await anext(chunks)
        await response.aclose()
    assert seen == [b"a", b"b", b"c"]
    assert dependency.bulkhead.in_use == 0


async def test_ground_12_slow_consumer_is_not_cancelled(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=3, idle=2)))
    respond = scripted(library, b"a", 1, b"b", 1, b"c")
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]))) as client:
        async with client.stream("GET", "http://dep/") as response:
            async for _ in response.aiter_raw():
                await anyio.sleep(100)
    assert dependency.stats.snapshot().counts["success"] == 1


async def test_chunks_nest_in_the_users_own_timeouts(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=30, idle=20)))
    respond = scripted(library, b"a", 15, b"b", 15, b"c", 3600)
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond])), timeout=None
    ) as client:
        async with client.stream("GET", "http://dep/") as response:
            chunks = response.aiter_raw()
            seen = [await anext(chunks)]
            for _ in range(2):
                with anyio.fail_after(16):
                    seen.append(await anext(chunks))
            with pytest.raises(TimeoutError) as raised:
                with anyio.fail_after(5):
                    await anext(chunks)
            assert not isinstance(raised.value, library.ours.DeadlineExceeded)
    assert seen == [b"a", b"b", b"c"]
    assert dependency.breaker.fail_counter == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_chunks_nest_in_asyncio_timeouts(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=30, idle=20)))
    respond = scripted(library, b"a", 3600)
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond])), timeout=None
    ) as client:
        with pytest.raises(TimeoutError) as raised:
            async with asyncio.timeout(5):
                await client.get("http://dep/")
        assert not isinstance(raised.value, library.ours.DeadlineExceeded)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(client.get("http://dep/"), 5)
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0
    assert dependency.bulkhead.in_use == 0
    assert dependency.breaker.fail_counter == 0


async def test_ground_13_the_users_timeout_error_is_his_own(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5)))
    mine = TimeoutError("mine")

    def raising(request: Any) -> Any:
        raise mine

    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([raising, scripted(library, b"x", mine)]))
    async with library.AsyncClient(transport=transport) as client:
        for _ in range(2):
            with pytest.raises(TimeoutError) as raised:
                await client.get("http://dep/")
            assert raised.value is mine


@pytest.mark.parametrize(("settings", "reason", "after"), [({"idle": 2}, "idle", 3), ({"idle": 2, "first_byte": 1}, "first_byte", 1)])
async def test_pauses_of_the_body(library: Any, clock: FakeClock, declare: Declare, settings: Any, reason: str, after: float) -> None:
    dependency = declare(*standard(timeout=Timeout(total=30, **settings)))
    respond = scripted(library, *((3600,) if reason == "first_byte" else (1, b"x", 3600)))
    began = clock.now()
    # Without a timeout of the client's, and with one that our limit is told to: it may be the quicker one to see it.
    for timeout in (None, 60):
        async with library.AsyncClient(
            transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond])), timeout=timeout
        ) as client:
            began = clock.now()
            with pytest.raises(library.ours.DeadlineExceeded) as raised:
                await client.get("http://dep/")
            assert raised.value.reason == reason
            assert clock.now() - began == pytest.approx(after)
    assert dependency.breaker.fail_counter == 2


async def test_attempt_limit_holds_only_while_another_may_follow(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(Timeout(total=10, attempt=3), Retry(attempts=2, random=lambda: 0.0))
    inner = FaultyTransport([HANG])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        for method, attempts in (("GET", 2), ("POST", 1)):
            inner.requests.clear()
            began = clock.now()
            with pytest.raises(library.ours.DeadlineExceeded):
                await client.request(method, "http://dep/")
            assert clock.now() - began == pytest.approx(10)
            assert len(inner.requests) == attempts


@pytest.mark.parametrize("form", ["seconds", "moment"])
async def test_request_may_ask_for_less(library: Any, clock: FakeClock, declare: Declare, form: str) -> None:
    dependency = declare(timeout=10)
    deadline: Any = 2 if form == "seconds" else Deadline(clock.now() + 2, clock)
    began = clock.now()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([HANG]))) as client:
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.post("http://dep/", extensions={"deadline": deadline})
    assert clock.now() - began == pytest.approx(2)
    assert raised.value.reason == ("total" if form == "seconds" else "caller")


async def test_request_that_asks_for_nonsense(library: Any, clock: FakeClock, declare: Declare) -> None:
    transport = library.ours.AsyncResilientTransport(declare(), FaultyTransport())
    async with library.AsyncClient(transport=transport) as client:
        with pytest.raises(TypeError, match=r"extensions\['deadline'\]"):
            await client.get("http://dep/", extensions={"deadline": "2"})


async def test_inbound_deadline_keeps_a_reserve_and_is_named(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(timeout=10)
    began = clock.now()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([HANG]))) as client:
        with deadline_scope(Deadline(clock.now() + 1, clock, inbound=True)), pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.post("http://dep/")
    assert raised.value.reason == "inbound"
    assert clock.now() - began == pytest.approx(0.995)


@pytest.mark.parametrize("until", ["pool", "connect", "answer"])
async def test_waiting_for_a_connection_of_our_own_says_nothing_of_the_dependency(
    library: Any, clock: FakeClock, declare: Declare, until: str
) -> None:
    """The library looks a timeout up when its operation begins, which tells where it hangs."""

    async def hang(request: Any) -> Any:
        timeouts = request.extensions["timeout"]
        timeouts.get("pool")
        if until == "answer":
            return scripted(library, 3600)(request)
        await anyio.sleep(1.5)
        if until == "connect":
            timeouts.get("connect")
        return await anyio.sleep_forever()

    dependency = declare(*standard(timeout=Timeout(total=3)))
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([hang])), timeout=None
    ) as client:
        with pytest.raises(library.ours.DeadlineExceeded) as raised:
            await client.post("http://dep/")
    assert raised.value.policy == ("pool" if until == "pool" else "timeout")
    assert dependency.stats.snapshot().counts["ignored" if until == "pool" else "failure"] == 1
