"""The load and its client, against a scripted server on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import socket
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable

import pytest

from resilient.demo import load as load_module
from resilient.demo.client import BrokenError, Origin
from resilient.demo.load import PING_SHARE, Load, arrivals
from resilient.demo.recording import PING, PRODUCT, Sample

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
PAGE = {"recommendations": ["a"], "reviews": ["b"]}


def answer(status: int = 200, body: object = PAGE, headers: str = "") -> bytes:
    text = json.dumps(body).encode()
    return f"HTTP/1.1 {status} X\r\ncontent-length: {len(text)}\r\n{headers}\r\n".encode() + text


def saying(*replies: bytes, log: list[int] | None = None) -> Serve:
    """Gives each request on a connection the next reply, notes the connection's number, and then closes."""
    numbers = itertools.count()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        number = next(numbers)
        with contextlib.suppress(asyncio.IncompleteReadError):
            for reply in replies:
                await reader.readuntil(b"\r\n\r\n")
                if log is not None:
                    log.append(number)
                writer.write(reply)

    return serve


@contextlib.asynccontextmanager
async def serving(serve: Serve) -> AsyncIterator[Origin]:
    async def closing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await serve(reader, writer)
        finally:
            writer.close()

    server = await asyncio.start_server(closing, "127.0.0.1", 0)
    origin = Origin(server.sockets[0].getsockname()[1])
    try:
        yield origin
    finally:
        origin.close()
        server.close()


async def visits(origin: Origin, targets: Iterable[str], *, timeout: float = 5.0) -> list[Sample]:
    """The samples of a load that sends all targets at once."""
    zero = time.monotonic()
    samples: list[Sample] = []
    load = Load("bare", origin, timeout=timeout, clock=lambda: time.monotonic() - zero, book=samples.append)
    await load.run(((number / 1e6, target) for number, target in enumerate(targets)), seconds=1.0)
    assert load.in_flight == 0
    assert load.longest_wait == 0.0
    assert load.sent == len(samples)
    return samples


def test_arrivals_are_poisson_and_repeatable() -> None:
    first = list(itertools.takewhile(lambda arrival: arrival[0] < 1000, arrivals(30, "seed")))
    again = list(itertools.takewhile(lambda arrival: arrival[0] < 1000, arrivals(30, "seed")))
    other = list(itertools.islice(arrivals(30, "another"), 10))
    assert first == again
    assert first[:10] != other
    assert len(first) == pytest.approx(30_000, rel=0.03)
    gaps = [late - early for (early, _), (late, _) in itertools.pairwise(first)]
    mean = sum(gaps) / len(gaps)
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.03)  # an exponential distribution's are equal
    assert sum(target == PING for _, target in first) / len(first) == pytest.approx(PING_SHARE, rel=0.05)


def test_a_degraded_answer_is_booked_with_what_it_lacks_and_what_it_says() -> None:
    async def main() -> list[Sample]:
        degraded = answer(200, {"recommendations": [], "reviews": ["b"]}, "Degraded: recommendations;level=static, extras;level=off\r\n")
        async with serving(saying(degraded)) as origin:
            return await visits(origin, ["/product/1"])

    [sample] = asyncio.run(main())
    assert (sample.path, sample.status, sample.error) == (PRODUCT, 200, "")
    assert sample.absent == ("recommendations",)
    assert sample.marked == ("extras", "recommendations")
    assert sample.good
    assert not sample.full


def test_errors_are_answers_too() -> None:
    async def main() -> list[Sample]:
        async with serving(saying(answer(500, {"detail": "x"}))) as origin:
            return await visits(origin, ["/product/1", PING])

    samples = asyncio.run(main())
    assert sorted(sample.path for sample in samples) == [PING, PRODUCT]
    assert {sample.status for sample in samples} == {500}
    assert not any(sample.good for sample in samples)


def test_a_hung_server_costs_the_clients_patience() -> None:
    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()  # until the client hangs up

    async def main() -> list[Sample]:
        async with serving(hang) as origin:
            return await visits(origin, ["/product/1"] * 20, timeout=0.2)

    samples = asyncio.run(main())
    assert {(sample.status, sample.error) for sample in samples} == {(0, "timeout")}
    assert len(samples) == 20
    assert all(sample.latency >= 0.2 for sample in samples)


def test_a_server_that_breaks_off_and_one_that_is_gone() -> None:
    async def main() -> list[Sample]:
        async with serving(saying(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf")) as origin:
            broken = await visits(origin, [PING])
        return broken + await visits(origin, [PING])

    assert [sample.error for sample in asyncio.run(main())] == ["broken", "refused"]


def test_beyond_its_bound_the_load_drops_and_books_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load_module, "MAX_IN_FLIGHT", 3)

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()

    async def main() -> list[Sample]:
        async with serving(hang) as origin:
            return await visits(origin, ["/product/1"] * 5, timeout=0.1)

    assert sorted(sample.error for sample in asyncio.run(main())) == ["dropped", "dropped", "timeout", "timeout", "timeout"]


def test_an_answer_that_is_no_shop_page_ends_the_run() -> None:
    async def main() -> None:
        async with serving(saying(answer(200, {"unexpected": 1}))) as origin:
            await visits(origin, ["/product/1"])

    with pytest.raises(ExceptionGroup) as caught:
        asyncio.run(main())
    assert caught.group_contains(KeyError)


def test_connections_are_kept_and_a_stale_one_is_replaced() -> None:
    log: list[int] = []

    async def main() -> list[int]:
        async with serving(saying(answer(), answer(), log=log)) as origin:
            return [(await origin.request("/")).status for _ in range(4)]

    assert asyncio.run(main()) == [200] * 4
    assert log == [0, 0, 1, 1]


def reset(writer: asyncio.StreamWriter) -> None:
    """Closes the connection with a RST, as a server that crashes does."""
    writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()


def test_a_kept_connection_that_is_reset_is_replaced_too() -> None:
    log: list[int] = []

    async def reset_second(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        log.append(len(log))
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer())
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    async def main() -> list[int]:
        async with serving(reset_second) as origin:
            return [(await origin.request("/")).status for _ in range(2)]

    assert asyncio.run(main()) == [200, 200]
    assert log == [0, 1]


def test_a_new_connection_that_is_reset_is_a_failure() -> None:
    async def reset_first(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        reset(writer)

    async def main() -> list[Sample]:
        async with serving(reset_first) as origin:
            return await visits(origin, [PING])

    assert [sample.error for sample in asyncio.run(main())] == ["broken"]


def test_an_announced_close_is_heeded() -> None:
    log: list[int] = []

    async def main() -> None:
        async with serving(saying(answer(200, PAGE, "connection: close\r\n"), log=log)) as origin:
            for _ in range(3):
                await origin.request("/")

    asyncio.run(main())
    assert log == [0, 1, 2]


@pytest.mark.parametrize("reply", [b"nonsense\r\n\r\n", b"", b"HTTP/1.1 200 OK\r\n"])
def test_a_new_connection_that_breaks_is_told(reply: bytes) -> None:
    async def main() -> None:
        async with serving(saying(reply)) as origin:
            await origin.request("/")

    with pytest.raises(BrokenError):
        asyncio.run(main())


def test_a_cancelled_request_does_not_spoil_the_next() -> None:
    log: list[int] = []
    reached = asyncio.Event()

    async def slow_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        log.append(len(log))
        await reader.readuntil(b"\r\n\r\n")
        if len(log) == 1:
            reached.set()
            await reader.read()
        writer.write(answer())

    async def main() -> int:
        async with serving(slow_once) as origin:
            task = asyncio.create_task(origin.request("/"))
            await reached.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return (await origin.request("/")).status

    assert asyncio.run(main()) == 200
    assert log == [0, 1]
