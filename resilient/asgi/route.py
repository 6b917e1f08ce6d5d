"""The template of the route that served a request: a bounded word for what its path was."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from starlette.routing import Host, Match, Mount

from .protocols import Scope

__all__ = ["UNKNOWN_MOUNT", "UNMATCHED", "route_template"]

UNMATCHED = "unmatched"
"""All that no route serves: a path that a client may make up must not become a label."""

UNKNOWN_MOUNT = "/{mount}"
"""What a route lies under where nobody can tell: what the client sent for it must not become a label either."""

MOUNTS = (Mount, Host)
DEEPEST = 32  # mounts within mounts; an app that is mounted in itself has no end


def route_template(scope: Scope) -> str:
    """The path template of the route that served the request, prefixed with those of the mounts it lies under.

    `/orders/{order_id}` rather than `/orders/81`; `/tenants/{tenant}/orders` for a route that is mounted under
    `/tenants/{tenant}`; `UNMATCHED` where no route was found, or none that has a template. Everything in it was written
    by the program: the routers leave only the client's text of a mount behind (`root_path`), so the way to it is gone
    once more.
    """
    path = _own_path(scope)
    if path is not None and "app_root_path" not in scope:
        return path or "/"
    if path is None and "endpoint" not in scope:
        return UNMATCHED
    found = _mounts(scope)
    if path is None:
        # FastAPI does not tell which of Starlette's plain routes it took (its own /docs, our /metrics).
        path = None if found is None else _path_to(scope, found[1])
    if path is None:
        return UNMATCHED
    return (UNKNOWN_MOUNT if found is None else found[0]) + path or "/"


def _own_path(scope: Scope) -> str | None:
    """What the router has put into the scope; None if it was no route, or a mount beneath which none was found."""
    route = scope.get("route")
    if route is None:
        return None
    if isinstance(route, MOUNTS):
        return None
    # FastAPI leaves out of the route's own path what `include_router` put before it.
    context = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(context if getattr(context, "original_route", None) is route else route, "path", None)
    return path if isinstance(path, str) else None


def _mounts(scope: Scope) -> tuple[str, Iterable[Any]] | None:
    """The templates of the mounts on the way to the route, and the routes beneath the last of them. None if unknown."""
    end = scope.get("root_path", "")
    seen = {**scope, "root_path": scope.get("app_root_path", end)}
    routes, prefix = getattr(scope.get("router"), "routes", ()), ""
    for _ in range(DEEPEST):
        if seen["root_path"] == end:
            return prefix, routes
        for mount in _each(routes):
            # The router has taken a mount here, or the root were that of the end; so it was the first one to match.
            if isinstance(mount, MOUNTS):
                match, child = mount.matches(seen)
                if match is Match.FULL:
                    break
        else:
            return None
        seen.update(child)
        if not end.startswith(seen["root_path"]):
            return None  # something further in has changed the path or the root
        if isinstance(mount, Mount):
            prefix += mount.path
        routes = _routes_of(mount)
    return None


def _path_to(scope: Scope, routes: Iterable[Any], depth: int = 0) -> str | None:
    """The template of the one of `routes` that has the endpoint which served the request."""
    for route in _each(routes):
        if isinstance(route, MOUNTS):
            inside = not getattr(route, "path", "") and depth < DEEPEST  # it leaves no trace in the root
            path = _path_to(scope, _routes_of(route), depth + 1) if inside else None
            if path is not None:
                return path
        elif getattr(route, "endpoint", None) is scope["endpoint"] and route.matches(scope)[0] is not Match.NONE:
            return str(route.path)
    return None


def _each(routes: Iterable[Any]) -> Iterator[Any]:
    """Every route, also those that FastAPI keeps in the routers that were included."""
    for route in routes:
        contexts = getattr(route, "effective_route_contexts", None)
        if contexts is None:
            yield route
        else:
            for context in contexts():
                yield context.starlette_route or context


def _routes_of(mount: Mount | Host) -> Iterable[Any]:
    """The routes of a mounted app, also of one that stands in middleware."""
    routes: Iterable[Any] = mount.routes
    app: Any = mount.app
    for _ in range(DEEPEST):
        if routes or app is None:
            break
        routes, app = getattr(app, "routes", ()), getattr(app, "app", None)
    return routes
