"""The shop, built twice from the same handlers: once as most people write it, once with `resilient`.

    python -m resilient.demo.shop protected CATALOG RECOMMENDATIONS REVIEWS

Both variants catch what a failing optional feature raises and answer without it. The difference that the demo shows
is not a forgotten `try`.
"""

from __future__ import annotations

import functools
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import httpx
from fastapi import FastAPI

from resilient import Resilience, Timeout, standard
from resilient.httpx import AsyncResilientTransport

from .server import serve
from .timeline import FEATURE_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    Lookup = Callable[[str], Awaitable[list[Any]]]
    Optionally = Callable[[str, Lookup], Lookup]  # makes of a lookup a feature of that name that may fail alone


@dataclass(frozen=True)
class Origins:
    """Where the three services of the shop live."""

    catalog: str
    recommendations: str
    reviews: str


def bare(origins: Origins) -> FastAPI:
    """The shop on a plain client with httpx's own defaults (5 s timeouts, 100 connections)."""
    app = FastAPI()
    _pages(app, httpx.AsyncClient(headers={"User-Agent": "bare"}), origins, _caught)
    return app


def _caught(name: str, lookup: Lookup) -> Lookup:
    @functools.wraps(lookup)
    async def feature(product: str) -> list[Any]:
        try:
            return await lookup(product)
        except httpx.HTTPError:
            return []

    return feature


def protected(origins: Origins) -> FastAPI:
    """The shop on the default settings of `resilient`."""
    resilience = Resilience()
    resilience.dependency("catalog", origin=origins.catalog, required=True)
    needs = {
        name: resilience.dependency(name, *standard(timeout=Timeout(total=FEATURE_TIMEOUT, body="total")), origin=getattr(origins, name))
        for name in ("recommendations", "reviews")
    }
    client = httpx.AsyncClient(transport=AsyncResilientTransport(resilience), headers={"User-Agent": "protected"})

    def degraded(name: str, lookup: Lookup) -> Lookup:
        return resilience.feature(name, needs=[needs[name]], fallback=[])(lookup)

    app = FastAPI()
    resilience.install(app)
    _pages(app, client, origins, degraded)
    return app


def _pages(app: FastAPI, client: httpx.AsyncClient, origins: Origins, optionally: Optionally) -> None:
    async def fetch(url: str) -> Any:
        return (await client.get(url)).raise_for_status().json()

    async def recommended(product: str) -> list[Any]:
        return list(await fetch(f"{origins.recommendations}/for/{product}"))

    async def reviewed(product: str) -> list[Any]:
        return list(await fetch(f"{origins.reviews}/of/{product}"))

    recommendations = optionally("recommendations", recommended)
    reviews = optionally("reviews", reviewed)

    @app.get("/ping")
    async def ping() -> dict[str, str]:
        return {"ping": "pong"}

    @app.get("/product/{product}")
    async def product(product: str) -> dict[str, Any]:
        item = await fetch(f"{origins.catalog}/item/{product}")
        return {**item, "recommendations": await recommendations(product), "reviews": await reviews(product)}


if __name__ == "__main__":
    variant = {"bare": bare, "protected": protected}[sys.argv[1]]
    serve(variant(Origins(*sys.argv[2:])))
