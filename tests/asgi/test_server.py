"""On a real server: what a client gets when the app is late, breaks off, or is still at work."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from fastapi import BackgroundTasks, FastAPI, Request
from starlette.responses import StreamingResponse

from resilient import DeadlineExceeded, Resilience, current_deadline

TIMEOUT = 0.3


class Shop:
    """An app with one late endpoint of each kind."""

    def __init__(self, **options: Any) -> None:
        self.let_go = threading.Event()
        self.ended = threading.Event()
        self.background: list[Any] = []
        self.resilience = Resilience()
        self.app = app = FastAPI()
        self.resilience.install(app, timeout=TIMEOUT, **options)

        @app.get("/sync")
        def sync() -> str:
            self.let_go.wait(10)
            return "late"

        @app.get("/port")
        async def port(request: Request) -> int:
            assert request.client is not None
            return request.client.port

        @app.get("/async")
        async def asynchronous() -> str:
            await anyio.sleep(10)
            return "late"

        @app.get("/trickle")
        async def trickle() -> StreamingResponse:
            async def chunks() -> Any:
                while True:
                    yield b"x"
                    await anyio.sleep(0.02)

            return StreamingResponse(chunks())

        @app.get("/background")
        async def background(tasks: BackgroundTasks) -> str:
            tasks.add_task(self._work)
            return "accepted"

        @app.get("/degraded")
        async def degraded() -> list[str]:
            return await self._recommended()

        @self.resilience.feature("recommendations", fallback=["bestseller"])
        async def recommended() -> list[str]:
            raise DeadlineExceeded("x")

        self._recommended = recommended

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
        if scope["type"] == "http" and scope["path"] in ("/sync", "/background"):
            self.ended.set()

    async def _work(self) -> None:
        await anyio.sleep(2 * TIMEOUT)
        deadline = current_deadline()
        self.background.append(deadline is not None and deadline.remaining)


@pytest.fixture
def serve() -> Iterator[Callable[[Any], str]]:
    """`serve(app)` runs it under uvicorn on loopback and returns its URL."""
    running: list[tuple[uvicorn.Server, threading.Thread]] = []

    def serve(app: Any) -> str:
        listener = socket.create_server(("127.0.0.1", 0))
        server = uvicorn.Server(uvicorn.Config(app, log_level="critical", timeout_graceful_shutdown=1))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
        thread.start()
        running.append((server, thread))
        return f"http://127.0.0.1:{listener.getsockname()[1]}"

    yield serve
    for server, thread in running:
        server.should_exit = True
        thread.join(10)
        assert not thread.is_alive()


@pytest.fixture
def client() -> Iterator[httpx2.Client]:
    with httpx2.Client(timeout=5, trust_env=False) as client:
        yield client


def test_ground_39_a_late_sync_endpoint_is_answered_in_time_and_the_connection_stays_good(
    serve: Callable[[Any], str], client: httpx2.Client
) -> None:
    shop = Shop()
    url = serve(shop)
    port = client.get(f"{url}/port").json()
    began = time.monotonic()
    response = client.get(f"{url}/sync")
    assert TIMEOUT <= time.monotonic() - began < TIMEOUT + 4
    assert response.status_code == 504
    assert response.headers["content-type"] == "application/problem+json"
    assert not shop.ended.is_set()
    # The same connection serves on, while the late request is still held and after it has ended.
    assert client.get(f"{url}/port").json() == port
    assert not shop.ended.is_set()
    shop.let_go.set()
    assert shop.ended.wait(5)
    assert client.get(f"{url}/port").json() == port


def test_a_late_async_endpoint_is_answered_in_time(serve: Callable[[Any], str], client: httpx2.Client) -> None:
    response = client.get(f"{serve(Shop().app)}/async")
    assert response.status_code == 504
    assert response.json()["error"] == "http_response_timeout"


def test_a_body_that_takes_too_long_is_broken_off(serve: Callable[[Any], str], client: httpx2.Client) -> None:
    url = serve(Shop(body=True).app)
    with client.stream("GET", f"{url}/trickle") as response:
        assert response.status_code == 200
        with pytest.raises(httpx2.RemoteProtocolError):
            b"".join(response.iter_raw())
    assert client.get(f"{url}/livez").status_code == 200


def test_ground_36_a_background_task_outlives_the_deadline(serve: Callable[[Any], str], client: httpx2.Client) -> None:
    shop = Shop(body=True)
    assert client.get(f"{serve(shop)}/background").json() == "accepted"
    assert shop.ended.wait(5)
    assert shop.background == [float("inf")]


def test_a_degraded_response_says_so_and_is_counted(serve: Callable[[Any], str], client: httpx2.Client) -> None:
    url = serve(Shop().app)
    response = client.get(f"{url}/degraded")
    assert response.json() == ["bestseller"]
    assert response.headers["degraded"] == "recommendations;level=static"
    page = client.get(f"{url}/metrics").text
    assert 'resilient_degraded_responses_total{cause="deadline",feature="recommendations",level="static"} 1.0' in page
    assert 'resilient_feature_level{feature="recommendations",level="static"} 1.0' in page
