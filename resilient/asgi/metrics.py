"""The inbound side of metrics: what each request came to, and the page that is scraped."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar
from starlette.requests import Request
from starlette.responses import Response

from .inbound import Inbound
from .protocols import ASGIApp, Measured, RequestCounter, Scope, Served
from .route import UNMATCHED, route_template

__all__ = ["MetricsMiddleware", "RequestMetrics", "metrics_endpoint"]

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY", "CONNECT", "TRACE"})
_STATUS_CLASSES = {hundreds: f"{hundreds}xx" for hundreds in range(1, 6)}

# Scrapes have threads of their own: when every other one is taken is when they are needed most.
_SCRAPERS: RunVar[anyio.CapacityLimiter] = RunVar("resilient_scrapers")
_MOST_SCRAPES = 2


class RequestMetrics:
    """Puts what a request came to into labels of which there are few, whatever clients send.

    Args:
        metrics: is told the route's template, the method, the class of the status ("2xx"; "none" where nothing was
            sent), and the seconds from the request's arrival to the return of the app.
    """

    __slots__ = ("_count",)

    def __init__(self, metrics: RequestCounter) -> None:
        self._count = metrics.count_request

    def ended(self, scope: Scope, status: int, seconds: float) -> None:
        """One request is over; `status` is 0 where no response was started."""
        method = scope["method"]
        self._count(
            UNMATCHED if "route" not in scope and "endpoint" not in scope else route_template(scope),
            method if method in _METHODS else "other",
            _STATUS_CLASSES.get(status // 100, "none"),
            seconds,
        )


class MetricsMiddleware(Inbound):
    """Counts requests and their time by route template, method and class of the status.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to; its `metrics` count.
    """

    def __init__(self, app: ASGIApp, resilience: Measured) -> None:
        super().__init__(app, resilience)
        self.requests: RequestMetrics | None = RequestMetrics(resilience.metrics)


def metrics_endpoint(resilience: Served) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers with the metrics, rendered in a thread so that no request waits for a scrape."""

    async def metrics(request: Request) -> Response:
        accept = ",".join(request.headers.getlist("accept"))
        limiter = _SCRAPERS.get(None)
        if limiter is None:
            _SCRAPERS.set(limiter := anyio.CapacityLimiter(_MOST_SCRAPES))
        page, media_type = await anyio.to_thread.run_sync(resilience.metrics.render, accept, limiter=limiter)
        return Response(page, headers={"content-type": media_type, "cache-control": "no-store"})

    return metrics
