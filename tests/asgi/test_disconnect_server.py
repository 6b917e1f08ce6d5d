"""On real servers: a client that leaves ends its request, nobody complains, and the server goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import httpx2
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from resilient import Dependency, Resilience
from resilient.asgi import Disconnects, ResilienceMiddleware

SOON = 0.05  # when a request is looked after first
PATIENCE = 20.0


class Shop:
    """An app whose endpoints tell how they ended."""

    def __init__(self, *, outside: bool = True, inside: bool = True) -> None:
        self.began, self.cancelled, self.finished = threading.Event(), threading.Event(), threading.Event()
        self.upstream = Dependency("upstream")
        self.resilience = Resilience()
        ours = Middleware(
            ResilienceMiddleware,
            resilience=self.resilience,
            cancel_on_disconnect=Disconnects(["/work", "/after", "POST /render"], after=SOON),
        )
        theirs = Middleware(BaseHTTPMiddleware, dispatch=_passing)
        self.app = Starlette(
            routes=[
                Route("/", lambda request: PlainTextResponse("ok")),
                Route("/work", self.work),
                Route("/render", self.render, methods=["POST"]),
                Route("/after", self.after),
                Route("/echo", _echo, methods=["POST"]),
            ],
            middleware=[*([theirs] if outside else []), ours, *([theirs] if inside else [])],
        )

    async def work(self, request: Request) -> Response:
        async def call() -> None:
            self.began.set()
            await anyio.sleep(PATIENCE)

        try:
            await self.upstream.call(call)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return PlainTextResponse("late")

    async def render(self, request: Request) -> Response:
        assert await request.body() == b"x" * 100_000
        return await self.work(request)

    async def after(self, request: Request) -> Response:
        async def later() -> None:
            await anyio.sleep(4 * SOON)
            self.finished.set()

        await anyio.sleep(2 * SOON)
        return PlainTextResponse("ok", background=BackgroundTask(later))


async def _passing(request: Request, call_next: Callable[[Request], Any]) -> Response:
    return await call_next(request)  # type: ignore[no-any-return]


async def _echo(request: Request) -> Response:
    await anyio.sleep(2 * SOON)
    return JSONResponse({"read": len(await request.body())})


async def _uvicorn(app: Any, port: int, stop: asyncio.Event) -> None:
    import uvicorn

    server = uvicorn.Server(uvicorn.Config(app, port=port, lifespan="off", log_config=None, timeout_graceful_shutdown=1))
    server.capture_signals = contextlib.nullcontext  # type: ignore[method-assign,assignment]  # it is not the main thread's
    serving = asyncio.create_task(server.serve())
    await stop.wait()
    server.should_exit = True
    await serving


async def _hypercorn(app: Any, port: int, stop: asyncio.Event) -> None:
    asgi = pytest.importorskip("hypercorn.asyncio")
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.graceful_timeout = 1.0
    await asgi.serve(app, config, shutdown_trigger=stop.wait)


async def _granian(app: Any, port: int, stop: asyncio.Event) -> None:
    embed = pytest.importorskip("granian.server.embed")
    from granian.constants import Interfaces

    server = embed.Server(app, port=port, interface=Interfaces.ASGINL)
    serving = asyncio.create_task(server.serve())
    await stop.wait()
    server.stop()
    await serving


@pytest.fixture(params=["uvicorn", "hypercorn", "granian"])
def serve(request: pytest.FixtureRequest) -> Iterator[Callable[[Any], int]]:
    """`serve(app)` runs it on loopback and returns the port."""
    run = {"uvicorn": _uvicorn, "hypercorn": _hypercorn, "granian": _granian}[request.param]
    pytest.importorskip(request.param)
    stops: list[Callable[[], None]] = []

    def serve(app: Any) -> int:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            port = int(probe.getsockname()[1])
        ready = threading.Event()

        async def main() -> None:
            stop, loop = asyncio.Event(), asyncio.get_running_loop()
            stops.append(lambda: loop.call_soon_threadsafe(stop.set))  # type: ignore[arg-type,return-value]
            ready.set()
            await run(app, port, stop)

        thread = threading.Thread(target=lambda: asyncio.run(main()), daemon=True)
        thread.start()
        assert ready.wait(PATIENCE)
        stops.append(lambda: thread.join(PATIENCE))
        until(lambda: _listens(port))
        return port

    yield serve
    for stop in stops:
        stop()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def until(condition: Callable[[], Any]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, "it never came true"
        time.sleep(0.01)


def leave(shop: Shop, port: int, request: bytes) -> None:
    """Send a request, and close the connection once the app is at it."""
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(request)
        assert shop.began.wait(PATIENCE)


GET = b"GET /work HTTP/1.1\r\nHost: shop\r\n\r\n"
POST = b"POST /render HTTP/1.1\r\nHost: shop\r\nContent-Length: 100000\r\n\r\n" + b"x" * 100_000


@pytest.mark.parametrize(("outside", "inside"), [(False, False), (True, False), (False, True)])
@pytest.mark.parametrize("request_", [GET, POST], ids=["GET", "POST"])
def test_a_client_that_leaves_ends_its_request(
    request_: bytes, outside: bool, inside: bool, serve: Callable[[Any], int], caplog: pytest.LogCaptureFixture
) -> None:
    shop = Shop(outside=outside, inside=inside)
    port = serve(shop.app)
    leave(shop, port, request_)
    assert shop.cancelled.wait(PATIENCE)
    until(lambda: 'resilient_clients_gone_total{result="cancelled"} 1.0' in shop.resilience.metrics.render()[0].decode())
    until(lambda: "resilient_admission_in_flight 0.0" in shop.resilience.metrics.render()[0].decode())
    assert shop.upstream.bulkhead is not None and shop.upstream.bulkhead.in_use == 0
    assert shop.upstream.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 1}
    assert httpx2.get(f"http://127.0.0.1:{port}/", trust_env=False).text == "ok"
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []


def test_ground_44_and_45_what_is_read_and_what_comes_afterwards(serve: Callable[[Any], int]) -> None:
    shop = Shop()
    port = serve(shop.app)
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=PATIENCE) as client:
        assert client.get("/after").text == "ok"
        assert shop.finished.wait(PATIENCE)
        assert client.post("/echo", content=b"y" * 300_000).json() == {"read": 300_000}
        assert client.get("/after").text == "ok"
    assert "resilient_clients_gone_total{" not in shop.resilience.metrics.render()[0].decode()
