"""Admission on a real server: a burst passes with the defaults, and threads and sockets give back what they hold."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from resilient import Resilience
from resilient.asgi import Admission

BURST = 300


@contextmanager
def serving(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error", lifespan="off", timeout_keep_alive=60))
    listener = socket.create_server(("127.0.0.1", 0), backlog=1000)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def shop(**options: Any) -> tuple[FastAPI, Resilience]:
    app, resilience = FastAPI(), Resilience()
    resilience.install(app, **options)

    @app.get("/async")
    async def asynchronous() -> str:
        await anyio.sleep(0.01)
        return "ok"

    @app.get("/sync")
    def sync() -> str:
        time.sleep(0.01)
        return "ok"

    return app, resilience


@pytest.mark.slow
@pytest.mark.parametrize("path", ["/async", "/sync"])
def test_a_burst_of_a_few_hundred_passes_with_the_defaults(path: str) -> None:
    """On a machine that has nothing else to do at that moment: on one that is overloaded it is right to shed."""
    app, resilience = shop()
    bursts: list[list[int]] = []

    async def one(port: int) -> int:
        """By a connection of its own: a client would take several times what the server does, and spread the burst."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: shop\r\nConnection: close\r\n\r\n".encode())
        answer = await reader.read()
        writer.close()
        return int(answer.split()[1])

    async def main(port: int) -> None:
        while len(bursts) < 6 and bursts.count([200] * BURST) < 2:
            async with asyncio.timeout(30):
                bursts.append(await asyncio.gather(*[one(port) for _ in range(BURST)]))

    with serving(app) as url:
        asyncio.run(main(int(url.rpartition(":")[2])))
    assert bursts.count([200] * BURST) == 2
    assert [(door.in_flight, door.queued) for door in resilience.admissions if door.limit] == [(0, 0)]


@pytest.mark.slow
def test_a_thread_whose_client_has_gone_holds_its_slot_to_its_end() -> None:
    go_on = threading.Event()
    admission = Admission(limit=1, min_concurrent=1, max_concurrent=1, queue=0)
    app, resilience = shop(admission=admission)

    @app.get("/held")
    def held() -> str:
        go_on.wait(20)
        return "ok"

    with serving(app) as url, httpx2.Client(base_url=url, timeout=10) as client:
        (door,) = resilience.admissions
        with pytest.raises(httpx2.ReadTimeout):
            client.get("/held", timeout=0.2)
        refused = client.get("/async")
        assert (refused.status_code, refused.headers["x-envoy-overloaded"]) == (503, "true")
        assert client.get("/readyz").status_code == client.get("/metrics").status_code == 200
        go_on.set()
        while door.in_flight:
            time.sleep(0.01)
        assert client.get("/async").status_code == 200
