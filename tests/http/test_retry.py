"""What is sent again: by method, by body, by how far the request had come; and what the caller gets if it does not help."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

import pytest

from resilient import CircuitBreaker, Retry, Timeout, standard
from resilient.events import RetryDecided
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted, stream
from .conftest import Declare
from .servers import Peer, Server, answer, answering

pytestmark = pytest.mark.anyio


def at_once(**settings: Any) -> Retry:
    return Retry(random=lambda: 0.0, **settings)


async def pieces() -> Any:
    yield b"one"
    yield b"two"


class Pieces:
    """Begins anew each time, as a file on disk could."""

    async def __aiter__(self) -> Any:
        yield b"one"
        yield b"two"


async def test_ground_14_generator_body_is_not_sent_again(library: Any, declare: Declare, listener: RecordingListener) -> None:
    async def hang_up(peer: Peer) -> None:
        await peer.request()

    with Server(hang_up) as server:
        transport = library.ours.AsyncResilientTransport(declare(Timeout(total=5), at_once()), verify=False)
        async with library.AsyncClient(transport=transport) as client:
            with pytest.raises(library.RemoteProtocolError, match="disconnected"):
                await client.put(server.url, content=pieces())
    assert server.connections == 1
    assert [event.result for event in listener.of(RetryDecided)] == ["unrepeatable"]


async def test_ground_14_not_even_one_that_was_never_asked_for(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Nothing was sent, but nobody knows what is left of a generator either."""
    inner = FaultyTransport([library.ConnectError("refused"), 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        with pytest.raises(library.ConnectError, match="refused"):
            await client.put("http://dep/", content=pieces())
    assert len(inner.requests) == 1


BODIES: dict[str, tuple[Callable[[Any], dict[str, Any]], bool]] = {
    "none": (lambda library: {}, True),
    "bytes": (lambda library: {"content": b"onetwo"}, True),
    "form": (lambda library: {"data": {"a": "b"}}, True),
    "json": (lambda library: {"json": [1]}, True),
    "re-iterable": (lambda library: {"content": Pieces()}, True),
    "multipart bytes": (lambda library: {"files": {"f": b"onetwo"}}, True),
    "multipart file": (lambda library: {"files": {"f": io.BytesIO(b"onetwo")}}, True),
    "multipart pipe": (lambda library: {"files": {"f": Pipe(b"onetwo")}}, False),
    "generator": (lambda library: {"content": pieces()}, False),
    "stream of one's own": (lambda library: {"stream": stream(library, b"onetwo")}, False),
}


class Pipe(io.RawIOBase):
    """A file that cannot be rewound."""

    def __init__(self, content: bytes) -> None:
        self._rest = io.BytesIO(content)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        return self._rest.readinto(buffer)


@pytest.mark.parametrize("body", BODIES)
async def test_which_bodies_are_sent_again(library: Any, clock: FakeClock, declare: Declare, body: str) -> None:
    make, replayed = BODIES[body]
    seen = []

    async def fail(request: Any) -> Any:
        seen.append(b"".join([chunk async for chunk in request.stream]))
        return library.Response(503)

    inner = FaultyTransport([fail])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        request = library.Request("PUT", "http://dep/", **make(library))
        assert (await client.send(request)).status_code == 503
    assert len(seen) == (3 if replayed else 1)
    assert len(set(seen)) == 1, "the same each time"


REPEATED = {"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"}


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY", "POST", "PATCH", "CONNECT"])
@pytest.mark.parametrize("fault", ["status", "read error"])
async def test_methods(library: Any, clock: FakeClock, declare: Declare, method: str, fault: str) -> None:
    inner = FaultyTransport([502 if fault == "status" else library.ReadError("reset"), 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        try:
            status = (await client.request(method, "http://dep/")).status_code
        except library.ReadError:
            status = None
    assert status == (200 if method in REPEATED else 502 if fault == "status" else None)


async def test_idempotency_key_makes_a_post_repeatable(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503, library.ReadTimeout("x"), 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        response = await client.post("http://dep/", json={}, headers={"Idempotency-Key": "k1"})
    assert response.status_code == 200
    assert [request.headers["idempotency-key"] for request in inner.requests] == ["k1"] * 3


async def test_post_is_sent_again_after_429(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Too Many Requests says that nothing was done about it; it is no failure either."""
    began = clock.now()
    inner = FaultyTransport([lambda request: library.Response(429, headers={"retry-after": "3"}), 200])
    dependency = declare(*standard(retry=at_once()))
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        assert (await client.post("http://dep/")).status_code == 200
    assert clock.now() - began == pytest.approx(3)
    assert dependency.breaker.fail_counter == 0


async def ask(library: Any, declare: Declare, url: str, method: str = "POST") -> Any:
    """The status, or the class of the error, of one request through a real pool."""
    transport = library.ours.AsyncResilientTransport(declare(Timeout(total=5), at_once()), verify=False)
    async with library.AsyncClient(transport=transport, timeout=0.2) as client:
        try:
            return (await client.request(method, url, content=b"x")).status_code
        except library.TransportError as error:
            return type(error).__name__


@pytest.mark.parametrize(("fault", "error"), [("fin", "RemoteProtocolError"), ("rst", "ReadError"), ("silence", "ReadTimeout")])
async def test_ground_15_post_is_not_sent_again_once_it_was_written(library: Any, declare: Declare, fault: str, error: str) -> None:
    async def fail_once(peer: Peer) -> None:
        await peer.request()
        if len(peer.server.requests) > 1:
            await peer.send(answer())
        elif fault == "rst":
            peer.reset()
        elif fault == "silence":
            await peer.request()

    with Server(fail_once) as server:
        assert await ask(library, declare, server.url) == error
        assert len(server.requests) == 1
        server.requests.clear()
        assert await ask(library, declare, server.url, "PUT") == 200
        assert len(server.requests) == 2


@pytest.mark.parametrize(("error", "attempts"), [("ReadError", 3), ("ReadTimeout", 1)])
async def test_body_that_was_never_asked_for(library: Any, clock: FakeClock, declare: Declare, error: str, attempts: int) -> None:
    """By the library's own transport: then nothing was sent. But who waits for an answer has sent something, in a mock as well."""

    class Mocked(library.AsyncHTTPTransport):  # type: ignore[misc, name-defined]
        sent = 0

        async def handle_async_request(self, request: Any) -> Any:
            self.sent += 1
            raise getattr(library, error)("x")

    inner = Mocked(verify=False)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        with pytest.raises(getattr(library, error)):
            await client.post("http://dep/", content=b"x")
    assert inner.sent == attempts


async def test_ground_15_post_is_sent_again_when_it_was_refused(library: Any, declare: Declare, listener: RecordingListener) -> None:
    with Server(answering(answer())) as server:
        url = server.url
    assert await ask(library, declare, url) == "ConnectError"
    assert [event.result for event in listener.of(RetryDecided)] == ["retried", "retried", "exhausted"]


async def test_ground_17_retry_reads_the_answer_and_keeps_the_connection(library: Any, declare: Declare) -> None:
    with Server(answering(*[answer(500, b"x" * 5000)] * 4, answer(200, b"fine"))) as server:
        transport = library.ours.AsyncResilientTransport(declare(Timeout(total=5), at_once(attempts=5)), verify=False)
        async with library.AsyncClient(transport=transport) as client:
            assert (await client.get(server.url)).content == b"fine"
    assert (len(server.requests), server.connections) == (5, 1)


async def test_large_or_slow_answer_is_closed_instead(library: Any, clock: FakeClock, declare: Declare) -> None:
    """More than 64 KiB, told or not, or more than 50 ms: the connection is given up, and the retry goes on."""
    large = b"x" * 70_000
    for steps, fields in (((large,), {"content_length": "70000"}), ((large, 3600), {}), ((b"x", 3600), {})):
        respond = scripted(library, *steps, status=500, **fields)
        inner = FaultyTransport([respond, 200])
        began = clock.now()
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
            assert (await client.get("http://dep/")).status_code == 200
        assert respond.body.closed == 1  # type: ignore[attr-defined]
        assert clock.now() - began < 0.06
    assert respond.body.begun == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("error", [ConnectionResetError, "RemoteProtocolError"])
async def test_answer_that_breaks_while_it_is_read_for_its_connection(library: Any, clock: FakeClock, declare: Declare, error: Any) -> None:
    kind = getattr(library, error) if isinstance(error, str) else error
    inner = FaultyTransport([scripted(library, b"x", kind("broke"), status=500), 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        assert (await client.get("http://dep/")).status_code == 200


async def test_last_real_answer_when_the_circuit_opens_in_between(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    dependency = declare(*standard(retry=at_once(), breaker=CircuitBreaker(fail_max=1)))
    inner = FaultyTransport([scripted(library, b"out ", b"of order", status=503, x_what="busy")])
    began = clock.now()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        response = await client.get("http://dep/")
    assert (response.status_code, response.content, response.headers["x-what"]) == (503, b"out of order", "busy")
    assert clock.now() == began, "nobody sleeps in front of our own open circuit"
    assert len(inner.requests) == 1
    assert [event.result for event in listener.of(RetryDecided)] == ["rejected"]
    assert dependency.bulkhead.in_use == 0


async def test_pitfall_08_answer_too_large_to_keep_is_the_cause_of_the_rejection(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(retry=Retry(random=lambda: 0.99), breaker=CircuitBreaker(fail_max=1, reset_timeout=60)))
    inner = FaultyTransport([scripted(library, b"x" * 70_000, status=503)])
    began = clock.now()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
        with pytest.raises(library.ours.CircuitOpen) as raised:
            await client.get("http://dep/")
    assert isinstance(raised.value.__cause__, library.HTTPStatusError)
    assert raised.value.__cause__.response.status_code == 503
    assert clock.now() == began, "nobody sleeps in front of our own open circuit"
    assert len(inner.requests) == 1


async def test_last_answer_too_large_to_keep_is_given_as_it_is_on_exhaustion(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([scripted(library, b"x" * 70_000, status=503)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        response = await client.get("http://dep/")
    assert (response.status_code, len(response.content), len(inner.requests)) == (503, 70_000, 3)


@pytest.mark.parametrize("after", ["7", "Sun, 22 Nov 2026 10:00:07 GMT"])
async def test_retry_after_is_waited_for(library: Any, clock: FakeClock, declare: Declare, after: str) -> None:
    fields = {"retry-after": after, "date": "Sun, 22 Nov 2026 10:00:00 GMT"}
    inner = FaultyTransport([lambda request: library.Response(503, headers=fields), 200])
    began = clock.now()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(Timeout(total=30), at_once()), inner)) as client:
        assert (await client.get("http://dep/")).status_code == 200
    assert clock.now() - began == pytest.approx(7)


async def test_retry_after_beyond_the_deadline_is_given_to_the_caller_at_once(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    inner = FaultyTransport([scripted(library, b"later", status=503, retry_after="31")])
    began = clock.now()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(Timeout(total=30), at_once()), inner)) as client:
        response = await client.get("http://dep/")
    assert (response.status_code, response.content) == (503, b"later")
    assert clock.now() == began
    assert [event.result for event in listener.of(RetryDecided)] == ["pushback"]


async def test_pitfall_08_body_that_fails_after_the_headers_is_the_callers(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([scripted(library, b"x", library.ReadError("reset"))])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        with pytest.raises(library.ReadError):
            await client.get("http://dep/")
    assert len(inner.requests) == 1


async def test_pitfall_08_attempts_are_bounded_by_the_budget(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(at_once()), inner)) as client:
        for _ in range(200):
            await client.get("http://dep/")
    assert len(inner.requests) <= 200 + 0.2 * 200 + 30
