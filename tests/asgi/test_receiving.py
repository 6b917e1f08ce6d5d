"""Requests are the app's to read: nothing here reads them, waits for a disconnect, or reads twice."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resilient import CircuitOpen, Resilience
from resilient.asgi import DeadlineMiddleware, DegradationMiddleware, ErrorMiddleware, ResilienceMiddleware

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}

EACH = pytest.mark.parametrize("middleware", [DeadlineMiddleware, DegradationMiddleware, ErrorMiddleware, ResilienceMiddleware])


@EACH
@pytest.mark.anyio
async def test_ground_43_nothing_is_received_that_the_app_does_not_receive(middleware: Any, resilience: Resilience, ask: Any) -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(receive)
        await send(START)
        await send(BODY)

    async def refused(scope: Any, receive: Any, send: Any) -> None:
        raise CircuitOpen("x")

    answer = await ask(middleware(app, resilience))
    assert answer.received == 0
    assert received == [answer.receive]
    try:
        answer = await ask(middleware(refused, resilience))
    except CircuitOpen as error:
        answer = error.conversation  # type: ignore[attr-defined]
    assert answer.received == 0


@EACH
@pytest.mark.anyio
async def test_ground_44_the_body_of_a_post_is_the_apps_to_read(middleware: Any, resilience: Resilience, ask: Any) -> None:
    async def endpoint(request: Request) -> Response:
        return JSONResponse({"read": (await request.body()).decode()})

    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    answer = await ask(middleware(app, resilience), method="POST", body=b"hello")
    assert answer.body == b'{"read":"hello"}'
    assert answer.received == 1


@EACH
@pytest.mark.anyio
async def test_ground_45_a_disconnect_after_the_end_changes_nothing(middleware: Any, resilience: Resilience, ask: Any) -> None:
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await send(START)
        await send(BODY)
        heard.append((await receive())["type"])

    assert (await ask(middleware(app, resilience))).messages == [START, BODY]
    assert heard == ["http.disconnect"]
