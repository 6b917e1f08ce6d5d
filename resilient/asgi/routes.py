"""The routes that a service has beside its own, and how they and the middleware get into an app."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

from starlette.applications import Starlette
from starlette.routing import Route

from ..core.bounds import flag
from .admission import Admission
from .drain import Drain
from .health import health_endpoint, liveness, readiness, startup
from .metrics import metrics_endpoint
from .middleware import ResilienceMiddleware, drain_of
from .protocols import Served, check_resilience

__all__ = ["install", "routes"]


def routes(resilience: Served, prefix: str = "", *, metrics: bool = True, health: bool = True, dashboard: bool = False) -> list[Route]:
    """Routes for Starlette and FastAPI: `/metrics`, `/livez`, `/readyz`, `/startupz`, each under `prefix`.

    Raises:
        TypeError: a parameter is of the wrong kind; the message names it.
        ValueError: `prefix` is neither empty nor a path that begins with a slash and does not end with one, or
            `dashboard` is asked for: this release has none.
    """
    for name, value in (("metrics", metrics), ("health", health), ("dashboard", dashboard)):
        flag(name, value)
    check_resilience(resilience, "metrics" if metrics else "draining")
    if dashboard:
        raise ValueError("dashboard: this release has no dashboard; leave it False")
    if not isinstance(prefix, str) or (prefix and (not prefix.startswith("/") or prefix.endswith("/"))):
        raise ValueError(f"prefix: expected a path such as /internal, got {prefix!r}")
    endpoints = {}
    if metrics:
        endpoints["metrics"] = metrics_endpoint(resilience)
    if health:
        for name, check in (("livez", liveness), ("readyz", readiness), ("startupz", startup)):
            endpoints[name] = health_endpoint(resilience, check)
    return [
        Route(f"{prefix}/{name}", endpoint, methods=["GET"], name=f"resilient_{name}", include_in_schema=False)
        for name, endpoint in endpoints.items()
    ]


def install(
    resilience: Served,
    app: Any,
    *,
    dashboard: bool = False,
    metrics: bool = True,
    health: bool = True,
    prefix: str = "",
    **options: Any,
) -> None:
    """Put the middleware around a Starlette or FastAPI app and the routes into it.

    It may be called before or after the app's own routes are added. The routes come first, so that a catch-all of the
    app does not hide them; where the app has one of these paths already, that one stays. Middleware that is added later
    lies further out.

    Args:
        resilience: the `Resilience` that the app belongs to.
        app: the app.
        metrics: whether to add `/metrics`.
        health: whether to add `/livez`, `/readyz` and `/startupz`.
        prefix: what the paths begin with.
        dashboard: must be False; this release has none.
        options: settings of `ResilienceMiddleware`.

    Raises:
        TypeError, ValueError: `app` is no Starlette app, an option is unknown, or a parameter is wrong; the message names it.
        RuntimeError: the app has served already, or has the middleware already.
    """
    if not isinstance(app, Starlette):
        raise TypeError(
            f"app: expected a Starlette or FastAPI app, got {app!r}; "
            "around another ASGI app put resilient.asgi.ResilienceMiddleware(app, resilience)"
        )
    if app.middleware_stack is not None:
        raise RuntimeError("app: it has started already; install before it serves its first request or lifespan")
    if any(cast("Any", middleware.cls) is ResilienceMiddleware for middleware in app.user_middleware):
        raise RuntimeError("app: ResilienceMiddleware is installed already")
    # Starlette makes the middleware once more, for itself: what can be read only once is read now.
    options = {name: tuple(value) if isinstance(value, Iterator) else value for name, value in options.items()}
    made = routes(resilience, prefix, metrics=metrics, health=health, dashboard=dashboard)
    admission = options.get("admission", True)
    if admission is True:
        options["admission"] = admission = Admission()
    drain = options.get("drain")
    if drain is None or drain is True:
        options["drain"] = drain = drain_of(drain)
    ResilienceMiddleware(app, resilience, **options)  # a wrong setting is told here, and not at the first request
    taken = {getattr(route, "path", None) for route in app.router.routes}
    if admission is not False:
        admission.spare(route.path for route in made)
    if isinstance(drain, Drain):
        drain.spare(route.path for route in made)
    app.add_middleware(ResilienceMiddleware, resilience, **options)
    app.router.routes[:0] = [route for route in made if route.path not in taken]
