"""The template of the route that served a request: a bounded word for what its path was."""

from __future__ import annotations

from typing import Any

from .protocols import Scope

__all__ = ["UNMATCHED", "route_template"]

UNMATCHED = "unmatched"
"""All that no route serves: a path that a client may make up must not become a label."""


def route_template(scope: Scope) -> str:
    """The path template that the router has put into the scope, prefixed with the mounts it lies under.

    `/orders/{order_id}` rather than `/orders/81`; `/tenants/{tenant}/orders` for a route that is mounted under
    `/tenants/{tenant}`; `UNMATCHED` where no route was found, or none that has a template.
    """
    # FastAPI leaves out of the route's own path what `include_router` put before it.
    context = scope.get("fastapi", {}).get("effective_route_context")
    path = getattr(context, "path_format", None) or getattr(scope.get("route"), "path", None)
    if not isinstance(path, str) or _is_mount(scope):
        return UNMATCHED
    return _mounts(scope, path) + path or "/"


def _is_mount(scope: Scope) -> bool:
    """Whether the last match was a mount, beneath which no route was found."""
    route: Any = scope.get("route")
    return hasattr(route, "app") and not hasattr(route, "endpoint")


def _mounts(scope: Scope, path: str) -> str:
    if "app_root_path" not in scope:
        return ""
    prefix: str = scope["root_path"][len(scope["app_root_path"]) :]
    # A mount's own parameters stand in the prefix as values.
    named = {str(value): name for name, value in scope.get("path_params", {}).items() if f"{{{name}" not in path}
    return "/".join(f"{{{named[part]}}}" if part in named else part for part in prefix.split("/"))
