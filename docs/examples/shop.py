"""A service with its inbound side, over a service that fails by a script: what clients see of an outage."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from fastapi import FastAPI

from resilient import Resilience
from resilient.httpx import AsyncResilientTransport
from resilient.testing import FaultyTransport


def reviews_of_two(request: httpx.Request) -> httpx.Response:
    """What the service says while it is well."""
    return httpx.Response(200, json=["good", "better"])


resilience = Resilience()
reviews = resilience.dependency("reviews", origin="http://reviews.internal", timeout=1.0)
network = FaultyTransport([reviews_of_two, httpx.ConnectError("refused")])
client = httpx.AsyncClient(transport=AsyncResilientTransport(resilience, network))


@resilience.feature("reviews", needs=[reviews], fallback=[])
async def reviewed(product: str) -> list[str]:
    """The feature, and what stands in for it."""
    response = await client.get(f"http://reviews.internal/of/{product}")
    return list(response.raise_for_status().json())


app = FastAPI()
resilience.install(app)


@app.get("/product/{product}")
async def page(product: str) -> dict[str, Any]:
    """A page that survives without its reviews."""
    return {"product": product, "reviews": await reviewed(product)}


async def main() -> None:
    """Visit the page before and in the outage."""
    async with client, httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as user:
        well = await user.get("/product/7")
        print(well.json(), well.headers.get("degraded"))
        degraded = await user.get("/product/7")
        print(degraded.json(), degraded.headers.get("degraded"))
    assert (well.status_code, degraded.status_code) == (200, 200)
    assert degraded.headers["degraded"] == "reviews;level=static"


asyncio.run(main())
