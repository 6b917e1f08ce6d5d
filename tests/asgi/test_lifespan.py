"""What begins and ends with a service."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from resilient import Resilience
from resilient.asgi import AdmissionMiddleware, DrainMiddleware, MetricsMiddleware, ResilienceMiddleware

pytestmark = pytest.mark.anyio


def noting(told: list[str], name: str = "") -> Callable[[], Any]:
    @asynccontextmanager
    async def context() -> AsyncIterator[None]:
        told.append(f"{name}begins")
        try:
            yield
        finally:
            told.append(f"{name}ends")

    return context


class Server:
    """The server's side of one lifespan."""

    def __init__(self, told: list[str]) -> None:
        self._told = told
        self._asks = ["lifespan.startup", "lifespan.shutdown"]

    async def receive(self) -> Any:
        self._told.append(f"asked {self._asks[0].removeprefix('lifespan.')}")
        return {"type": self._asks.pop(0)}

    async def send(self, message: Any) -> None:
        self._told.append(message["type"].removeprefix("lifespan."))

    async def run(self, app: Any) -> None:
        await app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, self.receive, self.send)


def starlette(told: list[str], resilience: Resilience) -> Starlette:
    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[dict[str, str]]:
        told.append("the app starts")
        yield {"kept": "state"}
        told.append("the app stops")

    app = Starlette(lifespan=lifespan)
    resilience.install(app)
    return app


ORDER = [
    "asked startup",
    "the app starts",
    "1 begins",
    "2 begins",
    "startup.complete",
    "asked shutdown",
    "2 ends",
    "1 ends",
    "the app stops",
    "shutdown.complete",
]


async def test_contexts_live_between_the_start_of_the_app_and_its_end(resilience: Resilience) -> None:
    told: list[str] = []
    for name in ("1 ", "2 "):
        resilience.lifespan.add(noting(told, name))
    app = starlette(told, resilience)
    await Server(told).run(app)
    await Server(told).run(app)  # once more, as tests do
    assert told == ORDER * 2


def test_the_test_client_lives_it_too_and_state_passes(resilience: Resilience) -> None:
    told: list[str] = []
    resilience.lifespan.add(noting(told))
    with TestClient(starlette(told, resilience)) as client:
        assert client.app_state == {"kept": "state"}
        assert told == ["the app starts", "begins"]
    assert told[2:] == ["ends", "the app stops"]


async def test_two_middlewares_of_one_service_live_it_once_and_of_two_each_its_own(resilience: Resilience) -> None:
    told: list[str] = []
    resilience.lifespan.add(noting(told, "ours "))
    other = Resilience()
    other.lifespan.add(noting(told, "theirs "))
    app = starlette(told, resilience)
    inner = ResilienceMiddleware(AdmissionMiddleware(DrainMiddleware(app, resilience), resilience), other)
    await Server(told).run(DrainMiddleware(MetricsMiddleware(inner, resilience), resilience))
    assert sorted(entry for entry in told if entry.endswith(("begins", "ends"))) == [
        "ours begins",
        "ours ends",
        "theirs begins",
        "theirs ends",
    ]


@pytest.mark.parametrize("reads", [0, 1])
async def test_an_app_that_says_nothing_is_spoken_for(reads: int, resilience: Resilience) -> None:
    told: list[str] = []
    resilience.lifespan.add(noting(told))

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        for _ in range(reads):
            await receive()

    await Server(told).run(ResilienceMiddleware(silent, resilience))
    assert told == ["asked startup", "begins", "startup.complete", "asked shutdown", "ends", "shutdown.complete"]


async def test_an_app_that_stops_to_listen_is_spoken_for(resilience: Resilience) -> None:
    told: list[str] = []
    resilience.lifespan.add(noting(told))

    async def early(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})

    await Server(told).run(ResilienceMiddleware(early, resilience))
    assert told == ["asked startup", "begins", "startup.complete", "asked shutdown", "ends", "shutdown.complete"]


async def test_an_app_that_has_no_lifespan_may_say_so(resilience: Resilience) -> None:
    told: list[str] = []
    resilience.lifespan.add(noting(told))

    async def without(scope: Any, receive: Any, send: Any) -> None:
        raise NotImplementedError(scope["type"])

    with pytest.raises(NotImplementedError, match="lifespan"):
        await Server(told).run(ResilienceMiddleware(without, resilience))
    assert told == []


async def test_an_app_that_fails_to_start_begins_nothing(resilience: Resilience) -> None:
    told: list[str] = []
    resilience.lifespan.add(noting(told))

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.failed", "message": "no database"})

    await Server(told).run(ResilienceMiddleware(failing, resilience))
    assert told == ["asked startup", "startup.failed"]


async def test_what_began_ends_when_the_server_gives_the_app_up(resilience: Resilience) -> None:
    told: list[str] = []
    resilience.lifespan.add(noting(told))

    async def hanging(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send({"type": "lifespan.startup.complete"})
        await anyio.sleep_forever()

    async with anyio.create_task_group() as group:
        group.start_soon(Server(told).run, ResilienceMiddleware(hanging, resilience))
        await anyio.wait_all_tasks_blocked()
        group.cancel_scope.cancel()
    assert told == ["asked startup", "begins", "startup.complete", "ends"]


async def test_what_fails_is_logged_and_keeps_nobody_from_serving(resilience: Resilience, caplog: pytest.LogCaptureFixture) -> None:
    told: list[str] = []

    @asynccontextmanager
    async def broken_start() -> AsyncIterator[None]:
        raise RuntimeError("start")
        yield

    @asynccontextmanager
    async def broken_end() -> AsyncIterator[None]:
        yield
        raise RuntimeError("end")

    for context in (noting(told), broken_start, broken_end):
        resilience.lifespan.add(context)
    await Server(told).run(starlette(told, resilience))
    assert told[-4:] == ["asked shutdown", "ends", "the app stops", "shutdown.complete"]
    assert [str(record.exc_info[1]) for record in caplog.records if record.exc_info] == ["start", "end"]
