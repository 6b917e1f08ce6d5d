"""Apps without a line of Starlette: a bare ASGI function, and Quart."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from importlib.metadata import version
from typing import Any

import anyio
import httpx
import pytest

from resilient import CircuitOpen, Resilience, ResilienceError, current_criticality, current_deadline
from resilient.asgi import Admission, ResilienceMiddleware

pytestmark = pytest.mark.anyio


# -- a bare function --------------------------------------------------------------------------------------------------


class Bare:
    """One function, and a page for each thing that it can do."""

    def __init__(self) -> None:
        self.resilience = Resilience()

        @self.resilience.feature("recommendations", fallback=["bestseller"])
        async def recommended() -> list[str]:
            raise CircuitOpen("recommendations: open")

        self.recommended = recommended
        self.seen: list[Any] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        match scope["path"]:
            case "/degraded":
                await self.answer(send, 200, json.dumps(await self.recommended()).encode())
            case "/open":
                raise CircuitOpen("catalog: open", retry_after=3.0)
            case "/late":
                await anyio.sleep(30)
            case "/asked":
                self.seen.append((current_deadline(), current_criticality().name, scope["state"]["features"].keys()))
                await self.answer(send, 200, b"")
            case "/stream":
                await send({"type": "http.response.start", "status": 200, "headers": []})
                for chunk in (b"one", b"two"):
                    await send({"type": "http.response.body", "body": chunk, "more_body": True})
                await send({"type": "http.response.body"})
            case "/metrics":
                page, kind = await anyio.to_thread.run_sync(self.resilience.metrics.render, "")
                await self.answer(send, 200, page, kind)
            case _:
                await self.answer(send, 404, b"")

    async def answer(self, send: Any, status: int, body: bytes, kind: str = "application/json") -> None:
        await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", kind.encode())]})
        await send({"type": "http.response.body", "body": body})


def client_of(app: Any) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop")


@pytest.fixture
async def bare() -> Bare:
    return Bare()


@pytest.fixture
async def user(bare: Bare) -> AsyncIterator[httpx.AsyncClient]:
    served = ResilienceMiddleware(
        bare, bare.resilience, timeout=0.3, trusted=["127.0.0.1"], admission=Admission(criticality={"/asked": "sheddable"})
    )
    async with client_of(served) as client:
        yield client


async def test_bare_degraded_is_told(user: httpx.AsyncClient) -> None:
    answer = await user.get("/degraded")
    assert answer.json() == ["bestseller"] and answer.headers["degraded"] == "recommendations;level=static;cause=circuit_open"


async def test_bare_errors_and_lateness_are_problems(user: httpx.AsyncClient) -> None:
    refused, late = await user.get("/open"), await user.get("/late")
    assert (refused.status_code, late.status_code) == (503, 504)
    assert int(refused.headers["retry-after"]) >= 3
    assert {answer.headers["content-type"] for answer in (refused, late)} == {"application/problem+json"}


async def test_bare_context_is_there(user: httpx.AsyncClient, bare: Bare) -> None:
    await user.get("/asked", headers={"X-Request-Timeout-Ms": "200"})
    ((deadline, word, features),) = bare.seen
    assert deadline is not None and word == "SHEDDABLE" and list(features) == ["recommendations"]


async def test_bare_streams_and_is_measured(user: httpx.AsyncClient) -> None:
    assert (await user.get("/stream")).text == "onetwo"
    await user.get("/degraded")
    page = (await user.get("/metrics")).text
    # Nobody but the app knows which paths are its routes: what a client may make up is no label.
    assert 'resilient_requests_total{method="GET",route="unmatched",status="2xx"} 2.0' in page
    assert 'resilient_degraded_responses_total{cause="circuit_open",feature="recommendations",level="static"} 1.0' in page


async def test_bare_sheds(bare: Bare) -> None:
    admission = Admission(limit=1, min_concurrent=1, max_concurrent=1, queue=1, max_wait=0.2)
    async with client_of(ResilienceMiddleware(bare, bare.resilience, timeout=1.0, admission=admission)) as user:
        statuses: list[int] = []

        async def ask() -> None:
            statuses.append((await user.get("/late")).status_code)

        async with anyio.create_task_group() as tasks:
            for _ in range(3):
                tasks.start_soon(ask)
    assert sorted(statuses) == [503, 503, 504]


# -- Quart ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_quart() -> None:
    """As docs/asgi.md shows it: the middleware around `asgi_app`, and errors let through to it."""
    quart = pytest.importorskip("quart", reason="needs Quart")
    resilience = Resilience()
    app = quart.Quart(__name__)
    answered, ended = anyio.Event(), anyio.Event()
    ends: list[str] = []

    @app.errorhandler(ResilienceError)
    async def ours(error: ResilienceError) -> None:
        raise error

    app.config["PROPAGATE_EXCEPTIONS"] = True

    @resilience.feature("recommendations", fallback=["bestseller"])
    async def recommended() -> list[str]:
        assert current_deadline() is not None
        raise CircuitOpen("recommendations: open")

    @app.get("/degraded")
    async def degraded() -> Any:
        return quart.jsonify(await recommended())

    @app.get("/open")
    async def refused() -> Any:
        raise CircuitOpen("catalog: open")

    @app.get("/late")
    async def late() -> Any:
        try:
            await answered.wait()
            deadline = current_deadline()
            ends.append("expired" if deadline is not None and deadline.expired else "in time")
        except BaseException:
            ends.append("ended")
            raise
        finally:
            ended.set()
        return ""

    app.asgi_app = ResilienceMiddleware(app.asgi_app, resilience, timeout=0.3)
    async with client_of(app) as user:
        answer = await user.get("/degraded")
        assert answer.json() == ["bestseller"] and answer.headers["degraded"] == "recommendations;level=static"
        assert (await user.get("/open")).status_code == 503
        assert (await user.get("/late")).status_code == 504
        # Quart's endpoints run in tasks of their own. Before Quart 0.23 nobody ends them: they go on, with no time left.
        goes_on = tuple(map(int, version("quart").split(".")[:2])) < (0, 23)
        if goes_on:
            answered.set()
        with anyio.fail_after(30):
            await ended.wait()
    assert ends == ["expired" if goes_on else "ended"]
