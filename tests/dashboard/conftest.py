"""An app with a dashboard in virtual time, and readers of its stream."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

import anyio
import pytest
from starlette.applications import Starlette

from resilient import Resilience
from resilient.testing import FakeClock, RecordingListener

from ..asgi.conftest import ask  # noqa: F401 - a fixture

WALL = 1_800_000_000.0


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    """In virtual time; every event is on `listener`."""
    return Resilience(clock=clock, listeners=[listener])


@pytest.fixture
def app(resilience: Resilience, clock: FakeClock) -> Starlette:
    """A dashboard that whoever comes may read, and "ann" may act on."""
    return made(resilience, clock, authorize=lambda request: request.headers.get("x-user"))


def made(resilience: Resilience, clock: FakeClock, **settings: Any) -> Starlette:
    app = Starlette()
    resilience.install(app, dashboard=True, **settings)
    board = resilience._board
    assert board is not None
    board.wall = board._described._wall = board.journal._wall = lambda: WALL + clock.now() - 1000.0
    return app


class Part(NamedTuple):
    """One server-sent event; a comment has no event."""

    event: str
    id: str
    data: Any


class Reader:
    """What came through one stream."""

    def __init__(self) -> None:
        self.start: dict[str, Any] = {}
        self.text = ""
        self.over = False
        self.sends = 0
        self.stopped: anyio.Event | None = None
        """Set to an event, this reader takes nothing until that is set."""
        self._gone = anyio.Event()
        self._news = anyio.Event()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        if self.stopped is not None:
            await self.stopped.wait()
        await anyio.lowlevel.checkpoint()
        self.sends += 1
        if message["type"] == "http.response.start":
            self.start = dict(message)
        else:
            self.text += message["body"].decode()
            self.over = not message.get("more_body", False)
        self._news.set()

    def leave(self) -> None:
        self._gone.set()

    @property
    def parts(self) -> list[Part]:
        found = []
        for block in self.text.split("\n\n")[:-1]:
            fields = dict(line.split(": ", 1) for line in block.split("\n") if not line.startswith(":"))
            if "event" in fields:
                found.append(Part(fields["event"], fields["id"], json.loads(fields["data"])))
        return found

    def of(self, event: str) -> list[Part]:
        return [part for part in self.parts if part.event == event]

    async def until(self, wanted: Callable[[Reader], bool]) -> None:
        with anyio.fail_after(300):
            while not wanted(self):
                self._news = anyio.Event()
                await self._news.wait()


@asynccontextmanager
async def reading(app: Any, path: str = "/resilience/stream", headers: dict[str, str] | None = None) -> AsyncIterator[Reader]:
    """A reader of the stream, who leaves at the end of the block."""
    reader = Reader()
    path, _, query = path.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(name.lower().encode(), value.encode("latin-1")) for name, value in (headers or {}).items()],
        "client": ("192.0.2.1", 5000),
        "server": ("testserver", 80),
    }
    async with anyio.create_task_group() as group:
        group.start_soon(app, scope, reader.receive, reader.send)
        await reader.until(lambda reader: bool(reader.start))
        yield reader
        reader.leave()
