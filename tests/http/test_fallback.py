"""What a client gets in place of an answer: a value, a response, or what a function makes of the request."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from typing import Any

import anyio
import httpx
import httpx2
import pytest

from resilient import Bulkhead, CircuitBreaker, Fallback, Timeout, standard
from resilient.context import RECORD
from resilient.core.degradation import DegradationRecord
from resilient.events import FallbackServed, ResponseAbandoned
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare

pytestmark = pytest.mark.anyio


def client_of(library: Any, dependency: Any, *script: Any, **options: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, FaultyTransport(script), **options))


@pytest.mark.parametrize(
    ("script", "cause"),
    [
        ([503], "status_503"),
        ([httpx.ConnectError("refused")], "ConnectError"),
        ([HANG], "deadline"),
    ],
    ids=["status", "error", "deadline"],
)
async def test_value_is_served_as_json(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener, script: Any, cause: str
) -> None:
    if cause == "ConnectError":
        script = [library.ConnectError("refused")]
    dependency = declare(timeout=1, fallback={"items": [1]})
    token = RECORD.set(record := DegradationRecord())
    async with client_of(library, dependency, *script) as client:
        response = await client.post("http://dep/")
    RECORD.reset(token)
    assert (response.status_code, response.json()) == (200, {"items": [1]})
    assert response.extensions["degraded"] == {"dependency": "dep", "cause": cause}
    assert [(event.level, event.cause) for event in listener.of(FallbackServed)] == [("static", cause)]
    assert [entry.cause for entry in record.entries] == [cause]
    assert dependency.stats.snapshot().counts["fallback"] == 1
    assert dependency.bulkhead.in_use == 0


async def test_answer_of_the_dependency_is_not_degraded(library: Any, clock: FakeClock, declare: Declare) -> None:
    async with client_of(library, declare(fallback=[]), 404) as client:
        response = await client.get("http://dep/")
    assert response.status_code == 404
    assert "degraded" not in response.extensions


async def test_none_is_a_value(library: Any, clock: FakeClock, declare: Declare) -> None:
    async with client_of(library, declare(fallback=None), 500) as client:
        assert (await client.get("http://dep/")).json() is None


async def test_response_serves_any_number_of_times(library: Any, clock: FakeClock, declare: Declare) -> None:
    saved = library.Response(203, text="saved", headers={"x-from": "disk"})
    async with client_of(library, declare(fallback=saved), 500) as client:
        for _ in range(3):
            response = await client.get("http://dep/")
            assert (response.status_code, response.text, response.headers["x-from"]) == (203, "saved", "disk")
            assert response.extensions["degraded"]["cause"] == "status_500"
    assert "degraded" not in saved.extensions


async def test_response_that_came_from_elsewhere(library: Any, clock: FakeClock, declare: Declare) -> None:
    """It was read, and thereby decoded: the fields that tell how it was encoded are true no more."""
    zipped = gzip.compress(b"from the mirror")
    other = client_of(library, declare(), scripted(library, zipped, content_encoding="gzip", content_length=str(len(zipped))))

    async def ask_the_mirror(request: Any) -> Any:
        return await other.get("http://mirror" + request.url.path)

    async with other, client_of(library, declare(fallback=ask_the_mirror), 500) as client:
        response = await client.get("http://dep/x")
    assert response.text == "from the mirror"
    assert "content-encoding" not in response.headers
    assert response.headers["content-length"] == str(len("from the mirror"))


async def test_response_that_still_streams(library: Any, clock: FakeClock, declare: Declare) -> None:
    def stream(request: Any) -> Any:
        return respond(request)

    respond = scripted(library, b"a", 1, b"b")
    async with client_of(library, declare(fallback=stream), 500) as client:
        assert (await client.get("http://dep/")).content == b"ab"
    assert respond.body.closed == 1  # type: ignore[attr-defined]


async def test_function_sees_the_request_and_makes_the_level_reduced(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    async with client_of(library, declare(fallback=lambda request: [request.url.path]), library.ReadError("x")) as client:
        assert (await client.get("http://dep/some/path")).json() == ["/some/path"]
    assert [event.level for event in listener.of(FallbackServed)] == ["reduced"]


async def test_function_that_fails_is_the_callers_with_the_failure_as_context(library: Any, clock: FakeClock, declare: Declare) -> None:
    def broken(request: Any) -> Any:
        raise KeyError("no such thing")

    dependency = declare(fallback=broken)
    async with client_of(library, dependency, library.ReadError("reset")) as client:
        with pytest.raises(KeyError, match="no such thing") as raised:
            await client.post("http://dep/")
    assert isinstance(raised.value.__context__, library.ReadError)
    assert dependency.bulkhead.in_use == 0


async def test_slow_function_holds_nothing_of_the_dependency(library: Any, clock: FakeClock, declare: Declare) -> None:
    bulkhead = Bulkhead(max_concurrent=1)
    held = []

    async def slow() -> list[int]:
        held.append(bulkhead.in_use)
        await anyio.sleep(1)
        return []

    dependency = declare(Fallback(slow), bulkhead)

    async with client_of(library, dependency, scripted(library, b"x", status=500), max_connections=1) as client:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(client.get, "http://dep/")
    assert held == [0] * 5


def nothing_is_told(dependency: Any, listener: RecordingListener, record: DegradationRecord) -> bool:
    counts = dependency.stats.snapshot().counts
    return not listener.of(FallbackServed) and not record.entries and "fallback" not in counts and sum(counts.values()) == 1


@pytest.fixture
def record() -> Iterator[DegradationRecord]:
    token = RECORD.set(record := DegradationRecord())
    yield record
    RECORD.reset(token)


@pytest.mark.parametrize("value", [object(), {1, 2}, b"x", float("nan"), [float("inf")]], ids=["object", "set", "bytes", "nan", "infinity"])
@pytest.mark.parametrize("failure", ["status", "error"])
@pytest.mark.parametrize("made", [True, False])
def test_value_that_json_cannot_say_is_not_told_as_served(
    library: Any,
    clock: FakeClock,
    declare: Declare,
    listener: RecordingListener,
    record: DegradationRecord,
    value: Any,
    failure: str,
    made: bool,
) -> None:
    dependency = declare(fallback=(lambda: value) if made else value)
    script = [503 if failure == "status" else library.ReadError("reset")]
    with library.Client(transport=library.ours.ResilientTransport(dependency, FaultyTransport(script))) as client:
        with pytest.raises(TypeError, match="^fallback: expected a response or a value that JSON can say"):
            client.post("http://dep/")
    assert nothing_is_told(dependency, listener, record)
    assert dependency.bulkhead.in_use == 0


async def test_value_that_json_cannot_say_is_not_told_as_served_when_awaited(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    dependency = declare(fallback=object())
    token = RECORD.set(record := DegradationRecord())
    async with client_of(library, dependency, 500) as client:
        with pytest.raises(TypeError, match="^fallback: expected a response or a value that JSON can say"):
            await client.post("http://dep/")
    RECORD.reset(token)
    assert nothing_is_told(dependency, listener, record)
    assert dependency.bulkhead.in_use == 0


async def test_what_an_outer_policy_gets_after_a_useless_fallback_counts_as_what_it_is(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    class Again:
        """Makes the call once more, whatever was raised."""

        async def run(self, call: Any, inner: Any) -> Any:
            try:
                return await inner(call)
            except TypeError:
                return await inner(call)

    dependency = declare(Again(), Fallback(object()))
    async with client_of(library, dependency, 500, 200) as client:
        assert (await client.post("http://dep/")).status_code == 200
    assert listener.of(FallbackServed) == []
    assert dependency.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0}


async def test_response_whose_body_is_gone_is_not_told_as_served(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    class Chunks(library.AsyncByteStream):  # type: ignore[name-defined,misc]
        async def __aiter__(self) -> Any:
            yield b"x"

    class SyncChunks(library.SyncByteStream):  # type: ignore[name-defined,misc]
        def __iter__(self) -> Any:
            yield b"x"

    used = library.Response(200, stream=Chunks())
    assert [chunk async for chunk in used.aiter_raw()] == [b"x"]
    for saved in (used, library.Response(200, stream=SyncChunks())):
        async with client_of(library, declare(Fallback(saved)), 500) as client:
            with pytest.raises(TypeError, match="^fallback: expected a response whose body this client can still read"):
                await client.get("http://dep/")
    assert listener.of(FallbackServed) == []


async def test_response_of_the_other_library(library: Any, clock: FakeClock, declare: Declare) -> None:
    other = httpx2 if library.module is httpx else httpx
    async with client_of(library, declare(fallback=lambda: other.Response(200)), 500) as client:
        with pytest.raises(TypeError, match=f"expected a response of {library.module.__name__}, got one of {other.__name__}"):
            await client.get("http://dep/")


async def test_rejections_and_full_pools_are_answered_too(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(breaker=CircuitBreaker(fail_max=1), fallback=Fallback("served")))
    async with client_of(library, dependency, library.PoolTimeout("full"), 500) as client:
        causes = [(await client.post("http://dep/")).extensions["degraded"]["cause"] for _ in range(3)]
    assert causes == ["PoolTimeout", "status_500", "circuit_open"]


async def test_failed_answer_is_closed_when_it_is_replaced(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    for steps in ((b"x",), (b"x" * 100_000,), (b"x", 3600)):
        respond = scripted(library, *steps, status=500)
        async with client_of(library, declare(Fallback([]), Timeout()), respond, max_connections=1) as client:
            for _ in range(2):
                assert (await client.get("http://dep/")).json() == []
                assert respond.body.closed == 1  # type: ignore[attr-defined]
    assert listener.of(ResponseAbandoned) == []


def test_sync_fallbacks(library: Any, clock: FakeClock, declare: Declare) -> None:
    saved = library.Response(203, text="saved")
    for fallback, expected in ((["x"], b'["x"]'), (saved, b"saved"), (lambda request: request.method, b'"GET"')):
        transport = library.ours.ResilientTransport(declare(fallback=fallback), FaultyTransport([library.ConnectError("refused")]))
        with library.Client(transport=transport) as client:
            assert client.get("http://dep/").content == expected
