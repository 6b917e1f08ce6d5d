"""A server whose dashboard says what a test wants it to, the page itself as it is."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from importlib.resources import files
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

TYPES = {"html": "text/html", "css": "text/css", "js": "text/javascript"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
)


def dependency(name: str, **facts: Any) -> dict[str, Any]:
    """One that is well, but for what is said of it."""
    well = {
        "origin": f"http://{name}.test:9000",
        "required": False,
        "state": "closed",
        "reason": "",
        "retry_after": None,
        "calls": 40.0,
        "failures": 0.0,
        "rejections": 0.0,
        "retries": 0.0,
        "failure_ratio": 0.0,
        "p50": 0.012,
        "p95": 0.034,
        "p99": 0.06,
        "in_flight": 3,
        "limit": 20,
        "queued": 0,
        "budget": 1.0,
        "cache": None,
        "last_change": None,
        "policies": ["Timeout(total=1)", "CircuitBreaker()"],
        "controls": ["isolate", "half_open", "close"],
    }
    return {"name": name, **well, **facts}


def feature(name: str, **facts: Any) -> dict[str, Any]:
    """One that is full, but for what is said of it."""
    full = {
        "level": "full",
        "critical": False,
        "needs": [],
        "cause": "",
        "by": "",
        "why": "",
        "since": None,
        "degraded": 0.0,
        "orders": [],
        "levels": ["full", "static", "off"],
    }
    return {"name": name, **full, **facts}


def document(**facts: Any) -> dict[str, Any]:
    """The state of a service that is well, but for what is said of it."""
    now = time.time()
    well = {
        "version": 1,
        "at": now,
        "worker": {"host": "shop", "pid": 17, "started": now - 3600, "id": "shop:17"},
        "service": {"level": "healthy", "ready": True, "status": "ready", "draining": False, "enabled": True, "read_only": None},
        "load": {
            "in_flight": 4,
            "limit": 60,
            "queued": 0,
            "streams": 1,
            "lag": 0.001,
            "requests": 120.0,
            "shed": 0.0,
            "shed_by": {},
            "p50": 0.02,
            "p95": 0.08,
            "p99": 0.12,
            "brownout": {"share": 1.0, "measured": 0.4, "target": 1.0},
        },
        "dependencies": [],
        "features": [],
        "controls": None,
    }
    return {**well, **facts}


class Staged:
    """What is said: `state`, `events` and `history` are a test's to change, and `streaming` whether there is a stream.

    `orders` are the controls that were posted; `answer` is what they are answered with.
    """

    def __init__(self, state: dict[str, Any]) -> None:
        self.state = state
        self.events: list[dict[str, Any]] = []
        self.history: dict[str, Any] | None = None
        self.streaming = True
        self.status = 200
        self.answer: tuple[int, dict[str, Any]] = (200, {})
        self.orders: list[tuple[dict[str, Any], dict[str, str]]] = []
        self.url = ""
        self._sent = 0

    def app(self, prefix: str) -> Starlette:
        base = f"{prefix}/resilience"
        return Starlette(
            routes=[
                Route(base, self._file),
                Route(f"{base}/state", self._state),
                Route(f"{base}/stream", self._stream),
                Route(f"{base}/controls", self._controls, methods=["POST"]),
                Route(f"{base}/{{name}}", self._file),
            ]
        )

    async def _file(self, request: Request) -> Response:
        name = request.path_params.get("name", "index.html")
        found = files("resilient.dashboard") / "page" / name
        if not found.is_file():
            return Response(status_code=404)
        media = TYPES[name.rpartition(".")[2]]
        headers = {"Content-Security-Policy": POLICY, "X-Content-Type-Options": "nosniff"}
        return Response(found.read_bytes(), media_type=media, headers=headers)

    def _now(self) -> dict[str, Any]:
        return {**self.state, "at": time.time()}

    async def _state(self, request: Request) -> Response:
        if self.status != 200:
            return JSONResponse({"detail": "no"}, status_code=self.status)
        return JSONResponse({**self._now(), "events": self.events, "history": self.history})

    async def _stream(self, request: Request) -> Response:
        if not self.streaming or self.status != 200:
            return Response(status_code=503 if self.status == 200 else self.status)
        return StreamingResponse(self._messages(), media_type="text/event-stream", headers={"Cache-Control": "no-store"})

    async def _messages(self) -> AsyncIterator[str]:
        yield "retry: 200\n\n"
        told = len(self.events)
        while self.streaming:
            yield f"event: state\ndata: {json.dumps(self._now())}\n\n"
            for event in self.events[told:]:
                yield f"event: log\nid: run-{event['id']}\ndata: {json.dumps(event)}\n\n"
            told = len(self.events)
            await asyncio.sleep(0.2)

    async def _controls(self, request: Request) -> Response:
        self.orders.append((await request.json(), dict(request.headers)))
        status, told = self.answer
        return JSONResponse(told, status_code=status)


@contextmanager
def served(app: Any, port: int = 0) -> Iterator[str]:
    """A server for as long as the block lasts; its address, without a slash at the end."""
    server = uvicorn.Server(uvicorn.Config(app, port=port, log_level="critical", lifespan="on", timeout_graceful_shutdown=0))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    try:
        for _ in range(1000):
            if server.started or not thread.is_alive():
                break
            time.sleep(0.01)
        assert server.started, "the server does not start"
        (socket,) = server.servers[0].sockets
        yield f"http://127.0.0.1:{socket.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
