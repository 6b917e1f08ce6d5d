"""The app that servers are given which are then stopped: DELAY and BUDGET come from the environment, "" for no drain.

STARTS is how many seconds its start-up takes, GATE what it waits for in vain afterwards, MARKS a file that says how far it came.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from resilient import Resilience
from resilient.asgi import Drain

resilience = Resilience()


async def quick(request: Request) -> Response:
    return PlainTextResponse(str(os.getpid()))


async def slow(request: Request) -> Response:
    await anyio.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse("done")


async def stream(request: Request) -> Response:
    async def chunks() -> Any:
        for number in range(int(request.path_params["chunks"])):
            yield f"{number}\n"
            await anyio.sleep(0.1)

    return StreamingResponse(chunks())


async def events(request: Request) -> Response:
    async def told() -> Any:
        yield "data: hello\n\n"
        await resilience.drain_closing.wait()
        yield "data: bye\n\n"

    return StreamingResponse(told(), media_type="text/event-stream")


def mark(word: str) -> None:
    file = os.environ.get("MARKS")
    if file:
        with Path(file).open("a") as marks:
            marks.write(f"{word}\n")


@asynccontextmanager
async def lifespan(app: Starlette) -> AsyncIterator[None]:
    mark("starting")
    await anyio.sleep(float(os.environ.get("STARTS", "0")))
    yield
    mark("stopped")


if os.environ.get("GATE"):

    @resilience.on_startup
    async def gate() -> None:
        mark("waiting")
        await anyio.sleep_forever()


@resilience.on_drain
async def hook() -> None:
    mark("hook")


app = Starlette(
    lifespan=lifespan,
    routes=[
        Route("/", quick, methods=["GET", "POST"]),
        Route("/slow/{seconds:float}", slow),
        Route("/stream/{chunks:int}", stream),
        Route("/events", events),
    ],
)
delay = os.environ.get("DELAY", "")
resilience.install(app, drain=Drain(delay=float(delay), budget=float(os.environ.get("BUDGET", "20"))) if delay else None)
