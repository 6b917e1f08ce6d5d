"""What a request holds, it holds until its body is over; and it gives it back exactly once."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, Timeout
from resilient.events import ResponseAbandoned
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare

# Of both libraries' own generators, where a test stops reading half-way.
GENERATOR = "ignore:Async generator 'httpx:ResourceWarning"
pytestmark = [pytest.mark.anyio, pytest.mark.filterwarnings(GENERATOR)]


def outcomes(dependency: Any) -> dict[str, int]:
    return {word: count for word, count in dependency.stats.snapshot().counts.items() if count}


async def test_ground_01_permit_held_until_body_end(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    inner = FaultyTransport([scripted(library, b"one", 1.0, b"two")])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        async with client.stream("GET", "http://dep/") as response:
            assert dependency.bulkhead.in_use == 1
            seen = [dependency.bulkhead.in_use async for _ in response.aiter_bytes()]
            assert seen == [1, 1]
            assert dependency.bulkhead.in_use == 0, "given back with the last chunk, before the block ends"
    assert outcomes(dependency) == {"success": 1}


async def test_pitfall_04_twenty_streams_do_not_run_under_a_limit_of_two(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(Bulkhead(max_concurrent=2, max_wait=60))
    running, most = 0, 0

    def begin(request: Any) -> Any:
        nonlocal running, most
        running += 1
        most = max(most, running)
        return scripted(library, b"x", 1.0, b"y")(request)

    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([begin]))) as client:

        async def read() -> None:
            nonlocal running
            async with client.stream("GET", "http://dep/") as response:
                async for _ in response.aiter_bytes():
                    pass
                running -= 1

        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(read)
    assert most == 2
    assert dependency.bulkhead.in_use == dependency.bulkhead.queued == 0


async def test_pitfall_04_cancelled_waiters_leave_the_capacity_as_it_was(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(Bulkhead(max_concurrent=1, max_wait=60))
    inner = FaultyTransport([scripted(library, b"x", 5.0)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        async with anyio.create_task_group() as group:
            group.start_soon(client.get, "http://dep/")
            await anyio.sleep(0.1)
            for wait in (1.0, 2.0, 5.0 - 0.1):  # the last one is cancelled in the very moment that it is granted
                with anyio.move_on_after(wait):
                    await client.get("http://dep/")
                    raise AssertionError("there was no slot for it")
                assert dependency.bulkhead.queued == 0
        assert dependency.bulkhead.in_use == 0
        inner = await client.get("http://dep/")
    assert dependency.bulkhead.in_use == 0


async def test_ground_02_body_that_breaks_is_a_failure(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    inner = FaultyTransport([scripted(library, b"half", library.RemoteProtocolError("peer closed connection"))])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        with pytest.raises(library.RemoteProtocolError, match="peer closed"):
            await client.get("http://dep/")
    assert dependency.breaker.fail_counter == 1
    assert dependency.bulkhead.in_use == 0
    assert outcomes(dependency) == {"failure": 1}
    assert len(inner.requests) == 1, "the caller has seen the headers: nothing is retried"


async def test_pitfall_09_broken_bodies_open_the_circuit(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    inner = FaultyTransport([scripted(library, b"half", 0.1, library.ReadError("reset"))])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        for _ in range(50):
            with pytest.raises(library.TransportError):
                await client.get("http://dep/")
    assert dependency.state == "open"
    assert dependency.breaker.reason == "outage"


async def test_status_and_body_end_make_the_worse_of_both(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(Timeout(total=5))
    inner = FaultyTransport([scripted(library, b"whole", status=500), scripted(library, library.ReadError("x"), status=500)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        assert (await client.get("http://dep/")).status_code == 500
        with pytest.raises(library.ReadError):
            await client.get("http://dep/")
    assert outcomes(dependency) == {"failure": 2}


@pytest.mark.parametrize("waiting", [True, False], ids=["in a read", "between reads"])
async def test_ground_03_cancelled_reader_is_neutral(library: Any, clock: FakeClock, declare: Declare, waiting: bool) -> None:
    dependency = declare()
    respond = scripted(library, b"half", 3600 if waiting else b"more")
    async with library.AsyncClient(
        transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond])), timeout=None
    ) as client:
        with anyio.move_on_after(1) as scope:
            async with client.stream("GET", "http://dep/") as response:
                async for _ in response.aiter_bytes():
                    if not waiting:
                        await anyio.sleep(3600)
    assert scope.cancelled_caught
    assert dependency.breaker.fail_counter == 0
    assert dependency.bulkhead.in_use == 0
    assert respond.body.closed == 1  # type: ignore[attr-defined]


async def test_ground_05_closing_twice(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(Bulkhead(max_concurrent=2))
    respond = scripted(library, b"x", 1.0)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]))) as client:
        async with client.stream("GET", "http://dep/"):
            response = await client.send(client.build_request("GET", "http://dep/"), stream=True)
            stream = response.stream
            await response.aclose()
            await response.aclose()
            await stream.aclose()
            assert respond.body.closed == 1  # type: ignore[attr-defined]
            assert dependency.bulkhead.in_use == 1, "the other request keeps its own"
    assert dependency.bulkhead.in_use == 0


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_ground_06_permits_are_back_before_anything_is_awaited(library: Any, clock: FakeClock, declare: Declare) -> None:
    """A native cancellation pierces even a shielded scope: it may hit `aclose` at its first await."""
    dependency = declare()
    entered = []

    class Stuck(library.AsyncByteStream):  # type: ignore[misc, name-defined]
        async def __aiter__(self) -> Any:
            yield b"x"

        async def aclose(self) -> None:
            entered.append(dependency.bulkhead.in_use)
            await asyncio.sleep(3600)

    inner = FaultyTransport([lambda request: library.Response(200, stream=Stuck())])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        response = await client.send(client.build_request("GET", "http://dep/"), stream=True)
        assert dependency.bulkhead.in_use == 1
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(response.aclose(), 1)
    assert entered == [0]
    assert dependency.bulkhead.in_use == 0


async def test_ground_07_early_exit_closes_and_the_status_decides(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    dependency = declare()
    respond = scripted(library, b"one", 0.5, b"two", 3600, b"three")
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]))) as client:
        async with client.stream("GET", "http://dep/") as response:
            async for chunk in response.aiter_bytes():
                if chunk == b"two":
                    break
        assert dependency.bulkhead.in_use == 0
        await anyio.sleep(60)  # no timer of the chunk that was never read may go off in here
    assert respond.body.closed == 1  # type: ignore[attr-defined]
    snapshot = dependency.stats.snapshot()
    assert snapshot.counts["success"] == 1
    assert snapshot.buckets[-1] == 0, "its duration says nothing of the dependency"
    assert listener.of(ResponseAbandoned) == []


async def test_answer_with_its_body_in_memory_is_over_at_once(library: Any, clock: FakeClock, declare: Declare) -> None:
    """A mock's answer has been read already: nobody iterates over its stream, nor closes it."""
    dependency = declare()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport([200]))) as client:
        response = await client.get("http://dep/")
        assert dependency.bulkhead.in_use == 0
        assert response.content == b""
    assert outcomes(dependency) == {"success": 1}


async def test_ground_25_pool_timeout_and_local_protocol_error_do_not_trip(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    inner = FaultyTransport([library.PoolTimeout, library.LocalProtocolError, library.UnsupportedProtocol] * 20)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        for kind in (library.PoolTimeout, library.LocalProtocolError, library.UnsupportedProtocol) * 20:
            with pytest.raises(kind):
                await client.get("http://dep/")
            await anyio.sleep(0.2)
    assert len(inner.requests) == 60, "none of them is retried"
    assert dependency.breaker.fail_counter == 0
    assert dependency.state == "closed"
    assert outcomes(dependency) == {"ignored": 60}


async def test_foreign_errors_of_the_network_are_failures(library: Any, clock: FakeClock, declare: Declare) -> None:
    """ssl.SSLError and anyio.EndOfStream have been seen to escape the libraries' own hierarchy."""
    import ssl

    dependency = declare()
    inner = FaultyTransport([ssl.SSLError("bad record"), anyio.EndOfStream()])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        with pytest.raises((ssl.SSLError, anyio.EndOfStream)):
            await client.post("http://dep/")
    assert outcomes(dependency) == {"failure": 1}


async def test_classify_that_fails_leaks_nothing(
    library: Any, clock: FakeClock, declare: Declare, caplog: pytest.LogCaptureFixture
) -> None:
    dependency = declare(classify=lambda result, error: result.no_such_thing)
    respond = scripted(library, b"x", status=503)
    inner = FaultyTransport([respond, respond, respond, library.ConnectError("refused")])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        assert (await client.get("http://dep/")).status_code == 503
        with pytest.raises(library.ConnectError):
            await client.post("http://dep/")
    assert dependency.bulkhead.in_use == 0
    assert len([record for record in caplog.records if "classify" in record.message]) == 1
    assert dependency.breaker.fail_counter >= 2


async def test_policy_that_raises_on_an_answer_leaves_no_response_open(library: Any, clock: FakeClock, declare: Declare) -> None:
    class Strict:
        async def run(self, call: Any, inner: Any) -> Any:
            response = await inner(call)
            raise ValueError(response.status_code)

    dependency = declare(Bulkhead(max_concurrent=1), Strict())
    respond = scripted(library, b"x")
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]), max_connections=1)
    async with library.AsyncClient(transport=transport) as client:
        for _ in range(3):  # with one connection a leak would be seen at the second request
            with pytest.raises(ValueError, match="200"):
                await client.get("http://dep/")
            assert respond.body.closed == 1  # type: ignore[attr-defined]
    assert dependency.bulkhead.in_use == 0


async def test_policy_that_tries_again_or_answers_itself_leaves_no_response_open(library: Any, clock: FakeClock, declare: Declare) -> None:
    class Twice:
        async def run(self, call: Any, inner: Any) -> Any:
            await inner(call)
            await inner(call)
            return library.Response(299)

    made = []

    def respond(request: Any) -> Any:
        answer = scripted(library, b"x")
        made.append(answer)
        return answer(request)

    transport = library.ours.AsyncResilientTransport(declare(Twice()), FaultyTransport([respond]), max_connections=1)
    async with library.AsyncClient(transport=transport) as client:
        assert (await client.get("http://dep/")).status_code == 299
    assert [answer.body.closed for answer in made] == [1, 1]


async def test_policy_whose_answer_is_none_leaves_nothing_behind(library: Any, clock: FakeClock, declare: Declare) -> None:
    class Mute:
        async def run(self, call: Any, inner: Any) -> Any:
            await inner(call)

    dependency = declare(Bulkhead(max_concurrent=1), Mute())
    respond = scripted(library, b"x")
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([respond]), max_connections=1)
    async with library.AsyncClient(transport=transport) as client:
        for _ in range(2):
            with pytest.raises(AttributeError):
                await client.get("http://dep/")
            assert dependency.bulkhead.in_use == 0
            assert respond.body.closed == 1  # type: ignore[attr-defined]
    with library.Client(transport=library.ours.ResilientTransport(dependency, FaultyTransport([respond]))) as sync_client:
        with pytest.raises(AttributeError):
            sync_client.get("http://dep/")
    assert dependency.bulkhead.in_use == 0
    assert respond.body.closed == 1  # type: ignore[attr-defined]
