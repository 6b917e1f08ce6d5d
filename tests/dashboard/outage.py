"""A shop with real upstreams on loopback, which a test takes away and gives back, and a steady load on it."""

from __future__ import annotations

import threading
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import httpx
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from resilient import Resilience
from resilient.httpx import AsyncResilientTransport

GAP = 0.05  # seconds between two requests


async def _answer(request: Request) -> JSONResponse:
    return JSONResponse({"ok": True})


def upstream() -> Starlette:
    """A service that always answers, as long as it is there."""
    return Starlette(routes=[Route("/{path:path}", _answer)])


def shop(catalog: str, reviews: str, *, authorize: Callable[[Any], Any] | None = None, prefix: str = "") -> tuple[Starlette, Resilience]:
    """The app, with a dashboard; `reviews` may fail, `catalog` may not."""
    resilience = Resilience()
    shelf = resilience.dependency("catalog", origin=catalog, required=True)
    talk = resilience.dependency("reviews", origin=reviews, timeout=2.0)
    resilience.feature("browsing", needs=[shelf], critical=True)
    clients: list[httpx.AsyncClient] = []

    async def get(url: str) -> Any:
        if not clients:
            clients.append(httpx.AsyncClient(transport=AsyncResilientTransport(resilience)))
        return (await clients[0].get(url)).raise_for_status().json()

    @resilience.feature("reviews", needs=[talk], fallback=[])
    async def reviewed() -> Any:
        return await get(f"{reviews}/of/7")

    async def product(request: Request) -> JSONResponse:
        return JSONResponse({**await get(f"{catalog}/item/7"), "reviews": await reviewed()})

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        yield
        for client in clients:
            await client.aclose()

    app = Starlette(routes=[Route("/product", product)], lifespan=lifespan)
    resilience.install(app, dashboard=True, authorize=authorize, prefix=prefix)
    return app, resilience


@contextmanager
def load(url: str) -> Iterator[None]:
    """Asks again and again for as long as the block lasts."""
    over = threading.Event()

    def ask() -> None:
        while not over.wait(GAP):
            try:
                urllib.request.urlopen(url, timeout=5).close()
            except (urllib.error.URLError, OSError):
                continue

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(10)
