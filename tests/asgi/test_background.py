"""Where checks are asked: in a lifespan, and where there is none from the first request on."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from resilient import Resilience
from resilient.asgi import AdmissionMiddleware, DeadlineMiddleware, ResilienceMiddleware, routes
from resilient.testing import FakeClock

REQUEST: ContextVar[str] = ContextVar("request", default="none")


class Asked:
    """A check that counts."""

    def __init__(self) -> None:
        self.times = 0
        self.inside = 0
        self.request = ""

    async def __call__(self) -> None:
        self.times += 1
        self.inside += 1
        self.request = REQUEST.get()
        try:
            await anyio.sleep(0)
        finally:
            self.inside -= 1


async def plain(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.anyio
@pytest.mark.parametrize("middleware", [ResilienceMiddleware, DeadlineMiddleware, AdmissionMiddleware])
async def test_without_a_lifespan_they_begin_with_the_first_request(
    middleware: Any, resilience: Resilience, ask: Any, clock: FakeClock
) -> None:
    disk = Asked()
    resilience.check("disk", disk, interval=10)
    app = middleware(middleware(plain, resilience), resilience)
    await anyio.sleep(100)
    assert disk.times == 0
    REQUEST.set("the first")
    for _ in range(3):
        assert (await ask(app)).status == 200
        await anyio.sleep(1)
    assert (disk.times, disk.request) == (1, "none")
    await anyio.sleep(100)
    assert 9 <= disk.times <= 13
    assert resilience.checks["disk"].state == "well"


@pytest.mark.anyio
@pytest.mark.parametrize("enabled", [True, False])
async def test_a_websocket_is_a_request_too_and_what_is_switched_off_is_checked_still(enabled: bool, resilience: Resilience) -> None:
    disk = Asked()
    resilience.enabled = enabled
    resilience.check("disk", disk)

    async def app(scope: Any, receive: Any, send: Any) -> None: ...
    async def receive() -> Any: ...
    async def send(message: Any) -> None: ...

    await ResilienceMiddleware(app, resilience)({"type": "websocket", "path": "/", "headers": []}, receive, send)
    await anyio.sleep(1)
    assert disk.times == 1


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/readyz", "/startupz"])
async def test_without_any_middleware_they_begin_with_the_first_probe(path: str, resilience: Resilience, ask: Any) -> None:
    disk = Asked()
    resilience.check("disk", disk, startup=True)
    app = Starlette(routes=routes(resilience, trusted=lambda scope: True))
    assert (await ask(app, "/livez")).status == 200
    await anyio.sleep(1)
    assert disk.times == 0
    assert json.loads((await ask(app, path, query_string=b"verbose")).body)["waiting"] == ["check disk"]
    await anyio.sleep(0.1)
    told = await ask(app, path, query_string=b"verbose")
    assert (told.status, disk.times) == (200, 1)
    (check,) = json.loads(told.body)["checks"]
    assert check == {"check": "disk", "state": "well", "for": 0.1, "age": 0.1, "reason": "", "required": False, "dependency": None}


@pytest.mark.anyio
async def test_a_mounted_app_whose_lifespan_nobody_runs_begins_with_its_first_request(resilience: Resilience, ask: Any) -> None:
    disk, own = Asked(), Asked()
    inner = Resilience(clock=resilience.clock)
    inner.check("own", own)
    resilience.check("disk", disk)
    mounted = FastAPI()
    inner.install(mounted)
    app = Starlette(routes=[Mount("/shop", mounted)])
    resilience.install(app)
    await ask(app, "/nowhere")
    await anyio.sleep(1)
    assert (disk.times, own.times) == (1, 0)
    await ask(app, "/shop/nowhere")
    await anyio.sleep(1)
    assert (disk.times, own.times) == (1, 1)


@pytest.mark.anyio
async def test_a_probe_waits_for_nothing_and_asks_nobody(resilience: Resilience, ask: Any, clock: FakeClock) -> None:
    begun = []

    async def hangs() -> None:
        begun.append(clock.now())
        await anyio.sleep(1.5)

    resilience.check("hangs", hangs, required=True)
    app = Starlette()
    resilience.install(app)
    await ask(app, "/readyz")
    await anyio.sleep(1)
    before = clock.now()
    for _ in range(10):
        assert (await ask(app, "/readyz")).body == b'{"status":"starting"}'
    assert clock.now() == before
    await anyio.sleep(1)
    assert (await ask(app, "/readyz")).body == b'{"status":"ready"}'
    assert len(begun) == 1


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_the_test_client_starts_and_stops_them_time_and_again(backend: Any) -> None:
    resilience, disk = Resilience(), Asked()
    resilience.check("disk", disk, startup=True, interval=0.01)
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("ok"))])
    resilience.install(app)
    for _ in range(3):
        before = disk.times
        with TestClient(app, backend=backend) as client:
            while client.get("/readyz").status_code != 200:
                pass
            while disk.times < before + 3:
                assert client.get("/").text == "ok"
        after = disk.times
        assert disk.inside == 0
        assert disk.times == after


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_test_client_without_a_lifespan_is_served_too(backend: Any) -> None:
    """Each of its requests has an event loop of its own, and takes what is in the background along when it ends."""
    resilience, disk = Resilience(), Asked()
    resilience.check("disk", disk, interval=0.01)
    app = Starlette(routes=[Route("/", lambda request: PlainTextResponse("ok"))])
    resilience.install(app)
    client = TestClient(app, backend=backend)
    for _ in range(5):
        assert client.get("/").text == "ok"
        assert resilience.health.pending, "its loop is over"
        assert disk.inside == 0


def test_a_loop_that_was_closed_without_a_word_is_left_for_the_next_one(ask: Any) -> None:
    resilience, disk = Resilience(), Asked()
    resilience.check("disk", disk, interval=0.01)
    app = Starlette(routes=routes(resilience))
    standing = asyncio.new_event_loop()
    standing.run_until_complete(ask(app, "/readyz"))
    standing.run_until_complete(asyncio.sleep(0.05))
    before = disk.times
    assert before

    async def elsewhere() -> None:
        await ask(app, "/readyz")
        while disk.times < before + 3:
            await asyncio.sleep(0.01)

    asyncio.run(elsewhere())
    after = disk.times
    # The first one goes on, and finds that it has been relieved.
    standing.run_until_complete(asyncio.sleep(0.1))
    assert disk.times <= after + 1
    assert disk.inside == 0
    assert asyncio.all_tasks(standing) == set()
    standing.close()


def test_under_uvicorn_they_live_as_long_as_the_service() -> None:
    resilience, disk, warm = Resilience(), Asked(), threading.Event()
    resilience.check("disk", disk, interval=0.02, startup=True)
    open_now = threading.Event()

    @resilience.on_startup
    def warm_caches() -> None:
        open_now.wait(20)
        warm.set()

    app = FastAPI()
    resilience.install(app, trusted=["127.0.0.1"])
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    with httpx2.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}", timeout=20, trust_env=False) as client:
        while "check disk" in client.get("/startupz?verbose").json()["waiting"]:
            pass
        told = client.get("/readyz?verbose")
        assert (told.status_code, told.json()["status"], told.json()["waiting"]) == (503, "starting", ["task warm_caches"])
        assert (client.get("/startupz").status_code, client.get("/livez").status_code) == (503, 200)
        open_now.set()
        while client.get("/startupz").status_code != 200:
            pass
        assert warm.is_set()
        assert client.get("/readyz").json() == {"status": "ready"}
        before = disk.times
        while disk.times < before + 3:
            assert client.head("/readyz").status_code == 200
        assert 'resilient_check_state{check="disk",state="well"} 1.0' in client.get("/metrics").text
    server.should_exit = True
    thread.join(20)
    assert not thread.is_alive()
    assert disk.inside == 0
    assert resilience.health.pending, "nobody asks any more"
