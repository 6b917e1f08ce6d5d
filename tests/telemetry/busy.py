"""A service with everything switched on that has seen everything, so that each family of metrics has samples."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx2
from fastapi import FastAPI

from resilient import (
    AdaptiveThrottle,
    Brownout,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    Fallback,
    Hedge,
    RateLimit,
    RateLimited,
    Resilience,
    Retry,
    Timeout,
    chain,
)
from resilient.asgi import StaleResponses
from resilient.events import ClientGone, DrainHookFailed, FailedOver, HedgeDecided, ResponseAbandoned
from resilient.httpx2 import ResilientTransport
from resilient.stores import SQLiteStore
from resilient.testing import FaultyTransport

AT = 0.0


def busy_app(place: Path) -> tuple[FastAPI, Resilience]:
    """The app and its `Resilience`, with a store in `place`; what is too long to provoke is told as events."""
    resilience = Resilience(brownout=Brownout(target=1.0), chaos=True, store=SQLiteStore(place / "cache.db"))
    resilience.dependency("catalog", origin="http://catalog", cache=True, timeout=2.0)
    reviews = resilience.dependency("reviews", Fallback([]), CircuitBreaker(fail_max=1))
    limited = resilience.dependency("limited", AdaptiveThrottle(), RateLimit(1, per=3600.0))
    resilience.dependency("slow", Timeout(total=1.0), Retry(), Hedge(delay=0.1), Bulkhead(), CircuitBreaker())
    broken = resilience.dependency("broken", Chaos(fault=ZeroDivisionError, rate=1.0))

    with httpx2.Client(transport=ResilientTransport(resilience, FaultyTransport([503, 200]))) as client:
        for _ in range(2):
            client.get("http://catalog/item")
    reviews.call_sync(_fails)
    broken_feature(resilience, broken)
    for _ in range(2):
        try:
            limited.call_sync(int)
        except RateLimited:
            break
    for event in (
        FailedOver(at=AT, dependency="slow", target="eu", to="us", cause="circuit_open"),
        HedgeDecided(at=AT, dependency="slow", result="won"),
        ResponseAbandoned(at=AT, dependency="slow"),
        ClientGone(at=AT),
        DrainHookFailed(at=AT, hook="checkpoint", cause="late"),
    ):
        resilience.outbox.emit(event)
    resilience.metrics.count_shed("sheddable", "full")
    resilience.check("disk", _well)
    resilience.metrics.count_check("disk", "well")

    app = FastAPI()
    resilience.install(app, stale=StaleResponses(stale_if_error=300, routes=["/kept"]))

    @app.get("/product/{product}")
    async def product(product: str) -> dict[str, Any]:
        return {"product": product}

    return app, resilience


def _fails() -> None:
    raise ConnectionError


def _well() -> bool:
    return True


def broken_feature(resilience: Resilience, broken: Any) -> None:
    """One use of a feature, the first of whose fallbacks fails."""

    def replica() -> Iterator[str]:
        raise ConnectionError

    @resilience.feature("recommendations", needs=[broken], fallback=chain(replica, []), on=ZeroDivisionError)
    def recommended() -> Any:
        return broken.call_sync(int)

    recommended()
