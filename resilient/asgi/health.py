"""What orchestrators ask: is the process alive, has it started, may it be sent requests?"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ..core.degradation import service_level
from .protocols import Served

__all__ = ["Check", "health_endpoint", "liveness", "readiness", "startup"]

Check = Callable[[Served], tuple[bool, dict[str, Any]]]


def liveness(resilience: Served) -> tuple[bool, dict[str, Any]]:
    """Always well: that it is answered is the answer. A restart heals no dependency, so none is looked at."""
    return True, {"status": "alive"}


def startup(resilience: Served) -> tuple[bool, dict[str, Any]]:
    """Well once the service has started."""
    complete = resilience.startup_complete
    return complete, {"status": "started" if complete else "starting"}


def readiness(resilience: Served) -> tuple[bool, dict[str, Any]]:
    """Well from the end of the start-up to the beginning of the drain, and unless the service says otherwise itself.

    A failing dependency is told of and changes nothing: all replicas share it, and would leave the load balancer at
    once, taking along every feature that still works.
    """
    if resilience.draining:
        status = "draining"
    elif not resilience.startup_complete:
        status = "starting"
    else:
        status = "ready" if resilience.ready else "not ready"
    dependencies = list(resilience.dependencies.values())
    features = dict(resilience.features)
    levels = {name: feature.level for name, feature in features.items()}
    return status == "ready", {
        "status": status,
        "service": service_level((level, features[name].critical) for name, level in levels.items()),
        "down": [
            {"dependency": dependency.name, "state": dependency.state, "required": dependency.required}
            for dependency in dependencies
            if dependency.state != "closed"
        ],
        "features": levels,
    }


def health_endpoint(resilience: Served, check: Check) -> Callable[[Request], Awaitable[Response]]:
    """An endpoint that answers 200 or 503 with what `check` says."""

    async def health(request: Request) -> Response:
        well, document = check(resilience)
        return JSONResponse(document, status_code=200 if well else 503, headers={"cache-control": "no-store"})

    return health
