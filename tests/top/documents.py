"""State documents, and servers that are functions."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import httpx

from resilient.top.feed import Feed

WELL = {"level": "healthy", "ready": True, "status": "ready", "draining": False, "enabled": True, "read_only": None}
LOAD = {"in_flight": 4, "limit": 60, "queued": 0, "lag": 0.001, "requests": 120.0, "shed": 0.0, "p50": 0.02, "p99": 0.12, "brownout": None}


def document(**facts: Any) -> dict[str, Any]:
    """The state of a service that is well, but for what is said of it."""
    worker = {"host": "shop", "pid": 17, "started": 1000.0, "id": "shop:17"}
    well = {"version": 1, "at": 4600.0, "worker": worker, "service": WELL, "load": LOAD, "dependencies": [], "features": [], "events": []}
    return {**well, **facts}


def dependency(name: str, **facts: Any) -> dict[str, Any]:
    well = {
        "state": "closed",
        "calls": 40.0,
        "failures": 0.0,
        "failure_ratio": 0.0,
        "p99": 0.06,
        "rejections": 0.0,
        "in_flight": 3,
        "limit": 20,
    }
    return {"name": name, "required": False, **well, **facts}


def event(number: int, text: str = "closed -> open", **facts: Any) -> dict[str, Any]:
    return {"id": number, "at": 4600.0, "kind": "X", "about": "dependency:catalog", "text": text, "severity": "bad", **facts}


def message(kind: str, data: Any, end: str = "\n") -> str:
    """One server-sent event."""
    return f"event: {kind}{end}id: run-1{end}data: {json.dumps(data)}{end}{end}"


def streamed(*parts: str | BaseException, size: int = 7) -> httpx.Response:
    """An event stream that comes in pieces, and may break off."""

    def pieces() -> Iterator[bytes]:
        for part in parts:
            if isinstance(part, BaseException):
                raise part
            content = part.encode()
            yield from (content[at : at + size] for at in range(0, len(content), size))

    return httpx.Response(200, headers={"content-type": "text/event-stream; charset=utf-8"}, content=pieces())


def feed(handler: Callable[[httpx.Request], httpx.Response], waits: int = 0, slept: list[float] | None = None, **headers: str) -> Feed:
    """One that gives up after so many waits."""
    left = [waits]

    def wait(seconds: float) -> bool:
        if slept is not None:
            slept.append(seconds)
        left[0] -= seconds > 0
        return left[0] < 0

    return Feed("http://shop/resilience", headers, transport=httpx.MockTransport(handler), wait=wait)
