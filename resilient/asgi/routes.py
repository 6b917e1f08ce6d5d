"""The routes that a service has beside its own, and how they and the middleware get into an app."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, cast

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route

from ..core.bounds import flag
from .admission import Admission
from .deadline import Trusted
from .drain import Drain
from .health import Probe, liveness, readiness, startup
from .metrics import metrics_endpoint
from .middleware import ResilienceMiddleware, drain_of
from .protocols import Served, check_resilience
from .writes import CONTROLS

__all__ = ["install", "routes"]


Ask = Callable[[Request], Any]


def routes(
    resilience: Served,
    prefix: str = "",
    *,
    metrics: bool = True,
    health: bool = True,
    dashboard: bool = False,
    authorize: Ask | None = None,
    dashboard_readers: Ask | None = None,
    dashboard_hosts: Iterable[str] | None = None,
    trusted: Trusted = (),
) -> list[Route]:
    """Routes for Starlette and FastAPI: `/metrics`, `/livez`, `/readyz`, `/startupz`, and `/resilience` if asked for; each under
    `prefix`. Those that begin with `authorize` and `dashboard` are as for `Resilience.install`.

    `/readyz?verbose` tells those who are `trusted` (addresses and networks of peers, or a function of the ASGI scope) what is behind.

    Raises:
        TypeError: a parameter is of the wrong kind; the message names it.
        ValueError: `prefix` is neither empty nor a path that begins with a slash and does not end with one; or something is
            said of a dashboard that is not asked for.
    """
    for name, value in (("metrics", metrics), ("health", health), ("dashboard", dashboard)):
        flag(name, value)
    check_resilience(resilience, "metrics" if metrics else "draining")
    for name, given in (("authorize", authorize), ("dashboard_readers", dashboard_readers), ("dashboard_hosts", dashboard_hosts)):
        if given is not None and not dashboard:
            raise ValueError(f"{name}: it guards the dashboard, and there is none; ask for it with dashboard=True")
    if not isinstance(prefix, str) or (prefix and (not prefix.startswith("/") or prefix.endswith("/"))):
        raise ValueError(f"prefix: expected a path such as /internal, got {prefix!r}")
    endpoints: dict[str, Any] = {}
    if metrics:
        endpoints["metrics"] = metrics_endpoint(resilience)
    if health:
        endpoints["livez"] = Probe(resilience, liveness)
        for name, ask in (("readyz", readiness), ("startupz", startup)):
            endpoints[name] = Probe(resilience, ask, trusted, verbose=True)
    made = [
        Route(f"{prefix}/{name}", endpoint, methods=["GET"], name=f"resilient_{name}", include_in_schema=False)
        for name, endpoint in endpoints.items()
    ]
    if dashboard:
        made += resilience.dashboard(prefix, authorize=authorize, readers=dashboard_readers, hosts=dashboard_hosts)
    return made


def install(
    resilience: Served,
    app: Any,
    *,
    dashboard: bool = False,
    metrics: bool = True,
    health: bool = True,
    prefix: str = "",
    authorize: Ask | None = None,
    dashboard_readers: Ask | None = None,
    dashboard_hosts: Iterable[str] | None = None,
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
        dashboard: whether to add `/resilience`: a page that shows the service at work, and its JSON.
        authorize: says who may act through the dashboard: a function of the request, async or not, that returns the
            operator's name, or None. By default nobody may.
        dashboard_readers: likewise, who may read it. By default whoever reaches it, as `/metrics`.
        dashboard_hosts: the names that the dashboard is reached by; by default any.
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
    guards: dict[str, Any] = {"authorize": authorize, "dashboard_readers": dashboard_readers, "dashboard_hosts": dashboard_hosts}
    trusted = options.get("trusted", ())
    made = routes(resilience, prefix, metrics=metrics, health=health, dashboard=dashboard, trusted=trusted, **guards)
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
    if dashboard:
        options["exempt_writes"] = (*options.get("exempt_writes", ()), *(f"{prefix}{path}" for path in CONTROLS))
    if isinstance(drain, Drain):
        drain.spare(route.path for route in made)
    app.add_middleware(ResilienceMiddleware, resilience, **options)
    app.router.routes[:0] = [route for route in made if route.path not in taken]
