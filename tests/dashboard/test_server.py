"""On a real server: the stream as a browser gets it, who leaves in the middle of it, and how it ends."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from resilient import CircuitBreaker, CircuitOpen, Resilience

from ..asgi.test_server import client, serve  # noqa: F401 - fixtures

pytestmark = pytest.mark.slow(measured=True)


def parts(response: httpx2.Response) -> Iterator[tuple[str, str, Any]]:
    fields: dict[str, str] = {}
    for line in response.iter_lines():
        name, _, value = line.partition(": ")
        fields[name] = value
        if not line and "event" in fields:
            yield fields["event"], fields["id"], json.loads(fields["data"])
            fields = {}


def eventually(holds: Callable[[], bool]) -> None:
    until = time.monotonic() + 30
    while not holds():
        assert time.monotonic() < until
        time.sleep(0.01)


class Shop:
    """An app whose catalog is down."""

    def __init__(self) -> None:
        self.resilience = Resilience()
        self.catalog = self.resilience.dependency("catalog", CircuitBreaker(fail_max=3))
        self.app = FastAPI()
        self.resilience.install(self.app, dashboard=True, authorize=lambda request: request.headers.get("x-user"), timeout=0.5)
        self.board: Any = self.resilience._board

        @self.app.get("/item")
        async def item() -> str:
            try:
                return str(await self.catalog.call(self.fetch))
            except (ConnectionError, CircuitOpen):
                return "nothing"

    async def fetch(self) -> str:
        raise ConnectionError


def test_an_outage_is_seen_live_and_who_leaves_gives_his_place_back(serve: Any, client: httpx2.Client) -> None:  # noqa: F811
    shop = Shop()
    url = serve(shop.app)
    with client.stream("GET", f"{url}/resilience/stream") as response:
        assert response.headers["content-type"].startswith("text/event-stream")
        stream = parts(response)
        event, _, document = next(stream)
        assert (event, document["dependencies"][0]["state"]) == ("state", "closed")
        assert shop.board.streams == 1
        for _ in range(4):
            client.get(f"{url}/item")
        event, last, told = next(one for one in stream if one[0] == "log")
        assert told["about"] == "dependency:catalog"
        document = next(document for event, _, document in stream if event == "state" and document["dependencies"][0]["calls"])
        assert document["dependencies"][0]["state"] == "open"
        assert document["dependencies"][0]["failure_ratio"] == 1.0
    eventually(lambda: shop.board.streams == 0)
    shop.resilience.outbox.flush()
    headers = {"x-user": "ann"}
    controls = client.get(f"{url}/resilience/state", headers=headers).json()["controls"]
    used = client.post(
        f"{url}/resilience/controls",
        json={"action": "close", "name": "catalog"},
        headers={**headers, "x-resilient-token": controls["token"], "origin": url},
    )
    assert used.json() == {"done": "close", "about": "dependency:catalog", "by": "ann"}
    with client.stream("GET", f"{url}/resilience/stream", headers={"last-event-id": last}) as response:
        missed = [data["kind"] for event, _, data in (next(parts(response)),) if event == "log"]
    assert missed == ["CircuitChanged"]


def test_a_connection_that_is_broken_off_frees_its_place(serve: Any) -> None:  # noqa: F811
    shop = Shop()
    port = int(serve(shop.app).rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(b"GET /resilience/stream HTTP/1.1\r\nHost: x\r\n\r\n")
        assert connection.recv(10).startswith(b"HTTP/1.1 ")
        eventually(lambda: bool(shop.board.streams == 1))
    eventually(lambda: bool(shop.board.streams == 0 and shop.board.journal.waiting == 0))


def test_a_drain_is_not_held_up() -> None:
    shop = Shop()
    listener = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(shop.app, log_level="critical"))  # which waits for ever for what is open
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with httpx2.Client(timeout=30, trust_env=False) as client, client.stream("GET", f"{url}/resilience/stream") as response:  # noqa: F811
        stream = parts(response)
        next(stream)
        shop.resilience.draining = True
        server.should_exit = True
        *_, (_, _, last) = stream
        assert last["service"]["status"] == "draining"
    thread.join(30)
    assert not thread.is_alive()
