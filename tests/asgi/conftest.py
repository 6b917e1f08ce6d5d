"""A client that speaks ASGI to an app directly, so that every message is seen."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilient import Resilience
from resilient.testing import FakeClock, RecordingListener


class Conversation:
    """What an app sent for one request."""

    def __init__(self, body: bytes = b"", now: Callable[[], float] = time.monotonic) -> None:
        self.messages: list[dict[str, Any]] = []
        self.times: list[float] = []
        self.received = 0
        self._now = now
        self._over = anyio.Event()
        self._incoming = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive(self) -> dict[str, Any]:
        self.received += 1
        if self._incoming:
            return self._incoming.pop()
        await self._over.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Any) -> None:
        self.messages.append(dict(message))
        self.times.append(self._now())
        if message["type"] == "http.response.body" and not message.get("more_body", False):
            self._over.set()

    @property
    def starts(self) -> list[dict[str, Any]]:
        return [message for message in self.messages if message["type"] == "http.response.start"]

    @property
    def status(self) -> int:
        (start,) = self.starts
        return int(start["status"])

    def header(self, name: str) -> list[str]:
        (start,) = self.starts
        return [value.decode() for key, value in start["headers"] if key == name.encode()]

    @property
    def body(self) -> bytes:
        return b"".join(message.get("body", b"") for message in self.messages if message["type"] == "http.response.body")

    @property
    def problem(self) -> dict[str, Any]:
        assert self.header("content-type") == ["application/problem+json"]
        assert self.header("content-length") == [str(len(self.body))]
        assert self.header("cache-control") == ["no-store"]
        document = json.loads(self.body)
        assert document["status"] == self.status
        return dict(document)


@pytest.fixture
def resilience(clock: FakeClock, listener: RecordingListener) -> Resilience:
    """In virtual time; every event is on `listener`."""
    return Resilience(clock=clock, listeners=[listener])


@pytest.fixture
def ask() -> Callable[..., Any]:
    """`await ask(app, method=..., path=..., headers=..., body=..., client=...)` returns the conversation.

    What the app raises is raised, with the conversation so far as its `conversation`.
    """

    async def ask(
        app: Any,
        path: str = "/",
        *,
        method: str = "GET",
        headers: dict[str, str] | None = None,
        body: bytes = b"",
        client: tuple[str, int] | None = ("192.0.2.1", 5000),
        now: Callable[[], float] = time.monotonic,
        **more: Any,
    ) -> Conversation:
        conversation = Conversation(body, now)
        scope = {
            "type": "http",
            "asgi": {"version": "3.0"},
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": path,
            "raw_path": path.encode(),
            "query_string": b"",
            "root_path": "",
            "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
            "client": client,
            "server": ("testserver", 80),
            **more,
        }
        try:
            await app(scope, conversation.receive, conversation.send)
        except Exception as error:
            error.conversation = conversation  # type: ignore[attr-defined]
            raise
        return conversation

    return ask
