"""Websockets in a service that takes leave."""

from __future__ import annotations

from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount, WebSocketRoute
from starlette.websockets import WebSocket

from resilient import Resilience
from resilient.asgi import Drain, DrainMiddleware, ResilienceMiddleware
from resilient.testing import FakeClock

pytestmark = pytest.mark.anyio


class Peer:
    """The server's side of one websocket, and the client behind it."""

    def __init__(self, **extensions: Any) -> None:
        self.sent: list[Any] = []
        self.scope = {"type": "websocket", "path": "/ws", "headers": [], "http_version": "1.1", "extensions": extensions}
        self._gone = anyio.Event()
        self._incoming = [{"type": "websocket.connect"}]

    async def receive(self) -> Any:
        if self._incoming:
            return self._incoming.pop(0)
        await self._gone.wait()
        return {"type": "websocket.disconnect", "code": 1012}

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "websocket.close":
            self._gone.set()

    async def talk(self, app: Any) -> None:
        await app(self.scope, self.receive, self.send)

    @property
    def types(self) -> list[str]:
        return [message["type"].removeprefix("websocket.") for message in self.sent]


async def chat(websocket: WebSocket) -> None:
    await websocket.accept()
    async for _ in websocket.iter_text():
        pass


APP = Starlette(routes=[WebSocketRoute("/ws", chat)])


async def test_they_are_waited_for(resilience: Resilience, clock: FakeClock) -> None:
    peer = Peer()
    async with anyio.create_task_group() as group:
        group.start_soon(peer.talk, DrainMiddleware(ResilienceMiddleware(APP, resilience), resilience))
        await anyio.wait_all_tasks_blocked()
        assert resilience.leaving.in_flight == 1
        assert await resilience.drain(budget=5) is False
        assert peer.types == ["accept"]
        group.cancel_scope.cancel()
    assert resilience.leaving.inside == set()
    assert not any(key.startswith("resilient") for key in peer.scope)


@pytest.mark.parametrize("late", [False, True])
async def test_by_choice_they_are_closed_when_no_new_work_is_taken_on(late: bool, resilience: Resilience, clock: FakeClock) -> None:
    app = DrainMiddleware(APP, resilience, close_websockets=True, enforce=not late)
    peer = Peer()
    async with anyio.create_task_group() as group:
        if not late:
            group.start_soon(peer.talk, app)
            await anyio.wait_all_tasks_blocked()
        departure = resilience.drain(delay=3, budget=5)
        await anyio.sleep(2.5)
        assert "close" not in peer.types
        if late:
            await anyio.sleep(1)
            group.start_soon(peer.talk, app)
        assert await departure is True
    (closed,) = (message for message in peer.sent if message["type"] == "websocket.close")
    assert (closed["code"], closed["reason"]) == (1012, "service restart")


async def test_what_the_app_sends_after_the_close_is_dropped(resilience: Resilience, clock: FakeClock) -> None:
    async def talkative(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.accept"})
        for _ in range(8):
            await anyio.sleep(1)
            await send({"type": "websocket.send", "text": "."})
        await send({"type": "websocket.close", "code": 1000})

    peer = Peer()
    async with anyio.create_task_group() as group:
        group.start_soon(peer.talk, DrainMiddleware(talkative, resilience, close_websockets=True))
        await anyio.sleep(2.5)
        assert await resilience.drain(budget=20) is True
    assert peer.types == ["accept", "send", "send", "close"]


async def test_one_that_ends_before_is_not_closed(resilience: Resilience, clock: FakeClock) -> None:
    async def brief(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "websocket.close", "code": 1000})

    peer = Peer()
    await peer.talk(DrainMiddleware(brief, resilience, close_websockets=True))
    assert await resilience.drain() is True
    await anyio.sleep(1)
    assert peer.types == ["close"]


async def test_new_ones_are_refused(resilience: Resilience, clock: FakeClock) -> None:
    app = ResilienceMiddleware(APP, resilience, drain=Drain(signals=()))
    resilience.drain()
    closed, answered = Peer(), Peer(**{"websocket.http.response": {}})
    await closed.talk(app)
    assert [(message["type"], message.get("code")) for message in closed.sent] == [("websocket.close", 1012)]
    await answered.talk(app)
    assert [message["type"] for message in answered.sent] == ["websocket.http.response.start", "websocket.http.response.body"]
    assert answered.sent[0]["status"] == 503


async def test_in_a_mounted_app_one_is_one(resilience: Resilience, clock: FakeClock) -> None:
    inner = ResilienceMiddleware(APP, resilience)
    outer = DrainMiddleware(Starlette(routes=[Mount("", app=inner)]), resilience)
    peer = Peer()
    async with anyio.create_task_group() as group:
        group.start_soon(peer.talk, outer)
        await anyio.wait_all_tasks_blocked()
        assert resilience.leaving.in_flight == 1
        group.cancel_scope.cancel()


@pytest.mark.parametrize("denied", [False, True])
async def test_one_that_the_app_has_closed_itself_is_not_closed_again(denied: bool, resilience: Resilience, clock: FakeClock) -> None:
    """Servers raise at a message after the last one."""

    async def lingers(scope: Any, receive: Any, send: Any) -> None:
        if denied:
            await send({"type": "websocket.http.response.start", "status": 403, "headers": []})
            await anyio.sleep(2)
            await send({"type": "websocket.http.response.body", "body": b"no"})
        else:
            await send({"type": "websocket.close", "code": 1000})
        await anyio.sleep(2)  # and goes on with something

    peer = Peer()
    async with anyio.create_task_group() as group:
        group.start_soon(peer.talk, DrainMiddleware(lingers, resilience, close_websockets=True))
        await anyio.sleep(1)
        assert await resilience.drain(budget=20) is True
    assert peer.types == (["http.response.start", "http.response.body"] if denied else ["close"])
