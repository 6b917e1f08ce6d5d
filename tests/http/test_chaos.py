"""Chaos on HTTP: answers that no server gave, bodies that break off, servers that say nothing; and which requests it is for."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Chaos, DeadlineExceeded, Retry, Timeout, standard
from resilient.events import FaultInjected, RetryDecided
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare
from .servers import Server, answer, answering

anyio_too = pytest.mark.anyio


class Both:
    """One client of either colour, asked in one way."""

    def __init__(self, library: Any, dependency: Any, inner: Any, *, sync: bool, **options: Any) -> None:
        self.sync = sync
        kind = library.Client if sync else library.AsyncClient
        transport = library.ours.ResilientTransport if sync else library.ours.AsyncResilientTransport
        self._client = kind(transport=transport(dependency, inner), **options)

    async def get(self, url: str = "http://dep/", method: str = "GET", **options: Any) -> Any:
        asked = self._client.request(method, url, **options)
        return asked if self.sync else await asked


@pytest.fixture(params=["async", "sync"])
def sync(request: pytest.FixtureRequest) -> bool:
    # A synchronous call on an event loop's own thread is a case of its own, below.
    return bool(request.param == "sync")


def run(anyio_backend: Any, sync: bool, story: Any) -> Any:
    """Run a story: on the event loop for an async client, without one for a synchronous one."""
    import anyio

    if sync:
        try:
            story().send(None)
        except StopIteration as stop:
            return stop.value
        raise AssertionError("a synchronous client awaited something")
    name, options = anyio_backend if isinstance(anyio_backend, tuple) else (anyio_backend, {})
    return anyio.run(story, backend=name, backend_options=options)


def told(listener: RecordingListener) -> list[str]:
    return [event.kind for event in listener.of(FaultInjected)]


def test_status(anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    inner = FaultyTransport([200])
    dependency = declare(*standard(chaos=Chaos(rate=1, status=503)), chaos=True)

    async def story() -> Any:
        return await Both(library, dependency, inner, sync=sync).get(method="POST")

    response = run(anyio_backend, sync, story)
    assert (response.status_code, response.text) == (503, "")
    assert response.extensions["chaos"] == {"dependency": "dep", "kind": "status"}
    assert inner.requests == [] and told(listener) == ["status"]
    assert dependency.breaker.fail_counter == 1 and dependency.bulkhead.in_use == 0


def test_retries_go_to_the_real_one(anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare) -> None:
    """An attempt that was harmed is followed by one that is not, and the other way round."""
    answers = [scripted(library, b"half", status=500, clock=clock), scripted(library, b"whole", clock=clock)]
    inner = FaultyTransport(answers)
    chaos = Chaos(rate=1, status=503, when=lambda call: len(inner.requests) == 1 and chaos.injected == 0)
    dependency = declare(*standard(chaos=chaos), chaos=True)

    async def story() -> Any:
        return await Both(library, dependency, inner, sync=sync).get()

    response = run(anyio_backend, sync, story)
    assert (response.status_code, response.text) == (200, "whole")
    assert "chaos" not in response.extensions
    assert len(inner.requests) == 2 and chaos.injected == 1
    assert answers[0].body.closed == 1 and dependency.bulkhead.in_use == 0


def test_a_response_of_ones_own(
    anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    """With its Retry-After, which is honoured."""
    full = library.Response(429, headers={"retry-after": "7"}, text="too many")
    inner, chaos = FaultyTransport([200]), Chaos(rate=1, result=full, when=lambda call: chaos.injected == 0)
    dependency = declare(*standard(chaos=chaos), chaos=True)
    began = clock.now()

    async def story() -> Any:
        return await Both(library, dependency, inner, sync=sync).get()

    assert run(anyio_backend, sync, story).status_code == 200
    assert 7 <= clock.now() - began < 8
    assert [event.cause for event in listener.of(RetryDecided)] == ["status_429"]
    assert "chaos" not in full.extensions


def test_a_response_made_of_the_request(anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare) -> None:
    chaos = Chaos(rate=1, result=lambda request: library.Response(404, text=request.url.path))
    dependency = declare(chaos, chaos=True)

    async def story() -> Any:
        return await Both(library, dependency, FaultyTransport([200]), sync=sync).get("http://dep/item")

    response = run(anyio_backend, sync, story)
    assert (response.status_code, response.text) == (404, "/item")
    assert response.extensions["chaos"]["kind"] == "result"


def test_a_response_that_streams(anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare) -> None:
    """Slots follow its body, as they follow a real one's."""
    respond = scripted(library, b"half", library.ReadError("reset"), clock=clock)
    dependency = declare(*standard(chaos=Chaos(rate=1, result=respond)), chaos=True)

    async def story() -> None:
        with pytest.raises(library.ReadError):
            await Both(library, dependency, FaultyTransport([200]), sync=sync).get()

    run(anyio_backend, sync, story)
    assert dependency.breaker.fail_counter == 1 and dependency.bulkhead.in_use == 0
    assert respond.body.closed == 1  # type: ignore[attr-defined]


def test_a_result_that_is_no_response_is_told(anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(chaos=Chaos(rate=1, result={"items": []})), chaos=True)

    async def story() -> Any:
        with pytest.raises(TypeError, match=f"^result: expected a response of {library.module.__name__}"):
            await Both(library, dependency, FaultyTransport([200]), sync=sync).get()

    run(anyio_backend, sync, story)
    assert dependency.breaker.fail_counter == 0


def test_a_fault(anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare) -> None:
    """A refused connection is safe to try again, whatever the method."""
    inner = FaultyTransport([200])
    chaos = Chaos(rate=1, fault=library.ConnectError("refused"), when=lambda call: chaos.injected < 2)
    dependency = declare(*standard(chaos=chaos), chaos=True)

    async def story() -> Any:
        return await Both(library, dependency, inner, sync=sync).get(method="POST")

    assert run(anyio_backend, sync, story).status_code == 200
    assert chaos.injected == 2 and len(inner.requests) == 1


@pytest.mark.parametrize("streamed", [True, False], ids=["streamed", "in memory"])
@pytest.mark.parametrize(("size", "comes"), [(0, b""), (3, b"abc"), (4, b"abcd"), (100, b"abcdef")])
def test_truncated_body(
    anyio_backend: Any,
    library: Any,
    sync: bool,
    clock: FakeClock,
    declare: Declare,
    listener: RecordingListener,
    streamed: bool,
    size: int,
    comes: bytes,
) -> None:
    def whole(request: Any) -> Any:
        return library.Response(200, content=b"abcdef")

    respond = scripted(library, b"abc", b"def", content_length="6", clock=clock) if streamed else whole
    dependency = declare(*standard(chaos=Chaos(rate=1, truncate=size)), chaos=True)
    client = Both(library, dependency, FaultyTransport([respond]), sync=sync)
    got: list[bytes] = []

    async def story() -> None:
        with pytest.raises(library.RemoteProtocolError, match=f"broke off after {size} bytes: injected"):
            if sync:
                with client._client.stream("GET", "http://dep/") as response:
                    assert dependency.bulkhead.in_use == 1
                    got.extend(response.iter_raw())
            else:
                async with client._client.stream("GET", "http://dep/") as response:
                    assert dependency.bulkhead.in_use == 1
                    assert response.extensions["chaos"] == {"dependency": "dep", "kind": "truncated"}
                    async for chunk in response.aiter_raw():
                        got.extend([chunk])

    run(anyio_backend, sync, story)
    assert b"".join(got) == comes
    assert told(listener) == ["truncated"]
    assert dependency.breaker.fail_counter == 1 and dependency.bulkhead.in_use == 0
    if streamed:
        assert respond.body.closed == 1  # type: ignore[attr-defined]


def test_a_truncated_error_page_is_retried_as_ever(
    anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare
) -> None:
    """It cannot be kept, but there is a better one."""
    chaos = Chaos(rate=1, truncate=2, when=lambda call: chaos.injected == 0)
    dependency = declare(*standard(chaos=chaos), chaos=True)
    inner = FaultyTransport([scripted(library, b"broken", status=500, clock=clock), 200])

    async def story() -> Any:
        return await Both(library, dependency, inner, sync=sync).get()

    assert run(anyio_backend, sync, story).status_code == 200
    assert dependency.bulkhead.in_use == 0


@pytest.mark.parametrize(("method", "status"), [("HEAD", 200), ("GET", 204), ("GET", 304)])
def test_what_has_no_body_cannot_break_off(
    anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare, listener: RecordingListener, method: str, status: int
) -> None:
    dependency = declare(Chaos(rate=1, truncate=0), chaos=True)

    async def story() -> Any:
        return await Both(library, dependency, FaultyTransport([status]), sync=sync).get(method=method)

    response = run(anyio_backend, sync, story)
    assert response.status_code == status and "chaos" not in response.extensions and told(listener) == []


def test_a_hang_ends_with_the_attempt(
    anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    inner, chaos = FaultyTransport([200]), Chaos(rate=1, hang=True, when=lambda call: chaos.injected == 0)
    dependency = declare(*standard(timeout=Timeout(total=10, attempt=2), chaos=chaos), chaos=True)
    began = clock.now()

    async def story() -> Any:
        return await Both(library, dependency, inner, sync=sync, timeout=None).get()

    assert run(anyio_backend, sync, story).status_code == 200
    assert 2 <= clock.now() - began < 3
    assert [event.cause for event in listener.of(RetryDecided)] == ["deadline"]
    assert dependency.bulkhead.in_use == 0


@pytest.mark.parametrize("settings", [{"hang": True}, {"latency": 60}], ids=["hang", "latency"])
def test_a_silent_server_meets_the_clients_own_timeout(
    anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare, settings: Any
) -> None:
    dependency = declare(Chaos(rate=1, **settings), chaos=True)
    began = clock.now()

    async def story() -> Any:
        with pytest.raises(library.ReadTimeout, match="injected"):
            await Both(library, dependency, FaultyTransport([200]), sync=sync, timeout=library.Timeout(3)).get()

    run(anyio_backend, sync, story)
    assert clock.now() - began == pytest.approx(3)
    assert dependency.stats.snapshot().counts["failure"] == 1


@pytest.mark.parametrize("settings", [{"hang": True}, {"latency": 60}], ids=["hang", "latency"])
def test_the_total_comes_first_where_it_is_shorter(
    anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare, settings: Any
) -> None:
    dependency = declare(Timeout(total=2), Chaos(rate=1, **settings), chaos=True)
    began = clock.now()

    async def story() -> Any:
        with pytest.raises(library.TimeoutException) as raised:
            await Both(library, dependency, FaultyTransport([200]), sync=sync).get()
        return raised.value

    error = run(anyio_backend, sync, story)
    assert isinstance(error, DeadlineExceeded) and error.reason == "total"
    assert clock.now() - began == pytest.approx(2)


def test_latency(anyio_backend: Any, library: Any, sync: bool, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(chaos=Chaos(rate=1, latency=2)), chaos=True)
    began = clock.now()

    async def story() -> Any:
        return await Both(library, dependency, FaultyTransport([200]), sync=sync).get()

    response = run(anyio_backend, sync, story)
    assert response.status_code == 200 and response.extensions["chaos"]["kind"] == "latency"
    assert clock.now() - began == pytest.approx(2)


@anyio_too
async def test_on_an_event_loops_thread_a_synchronous_call_never_waits(
    anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare
) -> None:
    began = clock.now()
    slow = Both(library, declare(Chaos(rate=1, latency=2), chaos=True), FaultyTransport([200]), sync=True)
    silent = Both(library, declare(Chaos(rate=1, hang=True), chaos=True), FaultyTransport([200]), sync=True)
    with pytest.warns(RuntimeWarning, match="never waits"):
        assert (await slow.get()).status_code == 200
    with pytest.warns(RuntimeWarning, match="never waits"), pytest.raises(library.ReadTimeout):
        await silent.get()
    assert clock.now() == began


# -- which requests ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "harmed"),
    [
        ({"match": "POST"}, {"POST /a", "POST /a?marked"}),
        ({"match": "GET /a"}, {"GET /a", "GET /a?marked"}),
        ({"match": "http://dep/{x}"}, {"GET /a", "GET /a?marked", "POST /a", "POST /a?marked"}),
        ({"match": "http://elsewhere"}, set()),
        ({"header": "x-chaos"}, {"GET /a?marked", "POST /a?marked"}),
        ({"header": "X-Chaos: on"}, {"GET /a?marked", "POST /a?marked"}),
        ({"header": "x-chaos: off"}, set()),
        ({"header": "x-chaos", "match": "GET"}, {"GET /a?marked"}),
        ({"when": lambda call: call.request.method == "POST"}, {"POST /a", "POST /a?marked"}),
    ],
)
def test_which_requests_are_meant(
    anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare, settings: Any, harmed: set[str]
) -> None:
    dependency = declare(Chaos(rate=1, status=418, **settings), chaos=True)
    client = Both(library, dependency, FaultyTransport([200]), sync=True)
    seen = set()
    for method in ("GET", "POST"):
        for target in ("/a", "/a?marked"):
            headers = {"x-chaos": "on"} if "?" in target else {}
            if client._client.request(method, "http://dep" + target, headers=headers).status_code == 418:
                seen.add(f"{method} {target}")
    assert seen == harmed


# -- over a real connection -------------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trio tells of the libraries' own generators
def test_over_a_real_connection(anyio_backend: Any, library: Any, sync: bool, declare: Declare) -> None:
    """A pool of one connection survives each kind of harm."""
    kinds: dict[str, Any] = {"truncate": 2, "hang": True, "status": 502, "fault": library.ReadError("reset"), "latency": 0.01}
    chaos = [Chaos(rate=1, header=f"x-chaos: {kind}", **{kind: value}) for kind, value in kinds.items()]
    dependency = declare(Timeout(total=20), Retry(attempts=1), *chaos, chaos=True)
    ends: list[str] = []

    async def story() -> None:
        client = Both(library, dependency, None, sync=sync)
        for kind in [*kinds, "none"] * 2:
            try:
                options = {"timeout": 0.1} if kind == "hang" else {}
                response = await client.get(server.url, headers={"x-chaos": kind}, extensions={"resilient": options})
                ends.append(str(response.status_code))
            except library.TransportError as error:
                ends.append(type(error).__name__)
        client._client.close() if sync else await client._client.aclose()

    with Server(answering(answer(200, b"whole"))) as server:
        run(anyio_backend, sync, story)
    assert ends == ["RemoteProtocolError", "DeadlineExceeded", "502", "ReadError", "200", "200"] * 2
