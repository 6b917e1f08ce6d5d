"""The README's tables of failures, row by row: what they say is compared with what happens."""

from __future__ import annotations

import asyncio
import contextlib
import re
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI

from resilient import Bulkhead, Deadline, Dependency, Outcome, Resilience, Timeout, standard
from resilient.context import deadline_scope
from resilient.events import RetryDecided
from resilient.httpx import AsyncResilientTransport
from resilient.testing import HANG, FaultyTransport, RecordingListener

pytestmark = pytest.mark.slow

README = (Path(__file__).parents[2] / "README.md").read_text(encoding="utf-8")


def rows(heading: str) -> dict[str, list[str]]:
    """The table under a heading: from each first cell to the others."""
    section = README.split(f"{heading}\n", 1)[1].split("\n#", 1)[0]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in section.splitlines() if line.startswith("|")]
    return {first: rest for first, *rest in cells[2:]}


# -- a service that fails on command, on a real socket ----------------------------------------------------------------


class Service:
    """Reads a request's head and then does what `behave` does."""

    def __init__(self, behave: Behaviour) -> None:
        self._behave = behave
        self.over = asyncio.Event()

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[str]:
        connections: set[asyncio.Task[None]] = set()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task is not None
            connections.add(task)
            with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                await reader.readuntil(b"\r\n\r\n")
                await self._behave(self, writer)
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0)
        try:
            yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        finally:
            server.close()
            self.over.set()
            await asyncio.gather(*connections)

    async def pause(self, seconds: float = 10) -> None:
        """Until the time or the test is over."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.over.wait(), seconds)


Behaviour = Callable[[Service, asyncio.StreamWriter], Awaitable[None]]
BEGINNING = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"


def answers(status: int, *headers: str) -> Behaviour:
    head = "\r\n".join([f"HTTP/1.1 {status} Status", "content-length: 2", "connection: close", *headers])

    async def behave(service: Service, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{head}\r\n\r\nok".encode())

    return behave


async def hangs(service: Service, writer: asyncio.StreamWriter) -> None:
    await service.pause()


async def closes(service: Service, writer: asyncio.StreamWriter) -> None:
    """Says nothing."""


async def breaks_off(service: Service, writer: asyncio.StreamWriter) -> None:
    writer.write(BEGINNING)


async def pauses(service: Service, writer: asyncio.StreamWriter) -> None:
    writer.write(BEGINNING)
    await service.pause()


async def trickles(service: Service, writer: asyncio.StreamWriter) -> None:
    writer.write(BEGINNING)
    while not service.over.is_set():
        writer.write(b".")
        await service.pause(0.05)


# -- what a call comes to ---------------------------------------------------------------------------------------------


class Witness:
    """The innermost policy: is told what the breaker is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def run(self, call: Any, inner: Any) -> Any:
        call.held.append((self, None))
        return inner(call)

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> None:
        self.outcomes.append(outcome)


@dataclass(frozen=True)
class Story:
    """What one call came to: for the caller, for the breaker, and whether it was tried again."""

    got: str
    counted: str
    retried: bool


Act = Callable[[httpx.AsyncClient, str, Dependency], Awaitable[httpx.Response]]


@dataclass(frozen=True)
class Case:
    behave: Behaviour | None
    """None for a port that nobody listens on."""
    policies: Callable[[], tuple[Any, ...]] = standard
    act: Act | None = None

    async def story(self, method: str) -> Story:
        listener, witness = RecordingListener(), Witness()
        async with contextlib.AsyncExitStack() as stack:
            url = await stack.enter_async_context(Service(self.behave).running()) if self.behave else f"http://127.0.0.1:{free_port()}"
            resilience = Resilience(listeners=[listener])
            dependency = resilience.dependency("catalog", *self.policies(), witness, origin=url)
            client = await stack.enter_async_context(httpx.AsyncClient(transport=AsyncResilientTransport(resilience)))
            try:
                response = await (self.act(client, url, dependency) if self.act else client.request(method, url))
                got = str(response.status_code)
            except Exception as error:  # noqa: BLE001  # told in the story
                got = type(error).__name__
        counted = {outcome.label for outcome in witness.outcomes} - {"ignored"}
        retried = any(event.result == "retried" for event in listener.of(RetryDecided))
        return Story(got, " and ".join(sorted(counted)) or "nothing", retried)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def with_open_circuit(client: httpx.AsyncClient, url: str, dependency: Dependency) -> httpx.Response:
    assert dependency.breaker is not None
    dependency.breaker.open()  # type: ignore[union-attr]
    return await client.get(url)


async def with_slots_taken(client: httpx.AsyncClient, url: str, dependency: Dependency) -> httpx.Response:
    first = asyncio.create_task(client.get(url))
    while dependency.bulkhead.in_use == 0:
        await asyncio.sleep(0)
    try:
        return await client.get(url)
    finally:
        first.cancel()
        await asyncio.wait([first])


async def with_little_patience(client: httpx.AsyncClient, url: str, dependency: Dependency) -> httpx.Response:
    with deadline_scope(Deadline.after(0.1)):
        return await client.get(url)


async def cancelled(client: httpx.AsyncClient, url: str, dependency: Dependency) -> httpx.Response:
    async with asyncio.timeout(0.1):
        return await client.get(url)


def limited(**timeout: Any) -> Callable[[], tuple[Any, ...]]:
    return lambda: standard(timeout=Timeout(**timeout))


def one_slot() -> tuple[Any, ...]:
    return standard(bulkhead=Bulkhead(max_concurrent=1, max_wait=0.05))


OUTBOUND = {
    "the connection is refused": [Case(None)],
    "no answer comes": [Case(hangs, limited(total=1, attempt=0.1))],
    "the connection is closed without an answer": [Case(closes)],
    "502, 503, 504": [Case(answers(status)) for status in (502, 503, 504)],
    "500 and other 5xx, 408, 425": [Case(answers(status)) for status in (500, 507, 408, 425)],
    "429": [Case(answers(429)), Case(answers(429, "retry-after: 0"))],
    "503 with a `Retry-After` beyond the deadline": [Case(answers(503, "retry-after: 90"), limited(total=2))],
    "404 and other 4xx, 501": [Case(answers(status)) for status in (404, 400, 501)],
    "the body breaks off": [Case(breaks_off)],
    "the body pauses": [Case(pauses, limited(idle=0.1))],
    'the body trickles, with `body="total"`': [Case(trickles, limited(total=0.3, body="total"))],
    "the circuit is open": [Case(answers(200), act=with_open_circuit)],
    "every slot is taken": [Case(hangs, one_slot, act=with_slots_taken)],
    "the caller's own deadline comes first": [Case(hangs, act=with_little_patience)],
    "the caller is cancelled": [Case(hangs, act=cancelled)],
}


def test_every_outbound_row_has_a_case() -> None:
    assert list(rows("### Outbound")) == list(OUTBOUND)


@pytest.mark.asyncio
@pytest.mark.parametrize("row", OUTBOUND)
async def test_outbound(row: str) -> None:
    got, counted, retried = rows("### Outbound")[row]
    for case in OUTBOUND[row]:
        for method in ("GET", "POST"):
            story = await case.story(method)
            assert story.got in got or ("the answer" in got and story.got.isdigit()), story
            assert counted.startswith(story.counted), story
            again = {"yes": True, "no": False, "if idempotent": method == "GET"}[re.split("[,;]", retried)[0]]
            assert story.retried is again, story


# -- the inbound side -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Page:
    """An app with one page, which asks a service that answers by a script."""

    script: list[Any]
    timeout: float = 30.0
    feature: bool = False
    broken: bool = False
    options: dict[str, Any] = field(default_factory=dict)

    async def visit(self) -> httpx.Response:
        resilience = Resilience()
        catalog = resilience.dependency("catalog", timeout=self.timeout)
        if 503 in self.script:
            catalog.breaker.trip()
        client = httpx.AsyncClient(transport=AsyncResilientTransport(catalog, FaultyTransport(self.script)))
        app = FastAPI()
        resilience.install(app, **self.options)

        async def item() -> Any:
            return (await client.get("http://catalog/item")).raise_for_status().text

        look_up = resilience.feature("item", needs=[catalog], fallback="lamp")(item) if self.feature else item

        @app.get("/")
        async def page() -> Any:
            if self.broken:
                raise KeyError("a bug")
            return await look_up()

        async with httpx.AsyncClient(transport=httpx.ASGITransport(app, raise_app_exceptions=False), base_url="http://shop") as user:
            return await user.get("/")


INBOUND = {
    "a feature with a fallback fails": Page([503], feature=True),
    "a `ResilienceError` escapes the app": Page([503]),
    "a `DeadlineExceeded` escapes the app": Page([HANG], timeout=0.1),
    "the request takes longer than it may": Page([HANG], options={"timeout": 0.1}),
    "any other error escapes the app": Page([200], broken=True),
}


def test_every_inbound_row_has_a_case() -> None:
    assert list(rows("### Inbound")) == list(INBOUND)


@pytest.mark.asyncio
@pytest.mark.parametrize("row", INBOUND)
async def test_inbound(row: str) -> None:
    (said,) = rows("### Inbound")[row]
    answer = await INBOUND[row].visit()
    assert said.startswith(str(answer.status_code)), answer.text
    assert ("`Retry-After`" in said) is ("retry-after" in answer.headers)
    assert ("problem details" in said) is (answer.headers["content-type"] == "application/problem+json")
    assert ("`Degraded: item;level=static`" in said) is (answer.headers.get("degraded") == "item;level=static")


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Transitions are logged, which is told elsewhere."""
    with caplog.at_level("CRITICAL", logger="resilient"):
        yield
