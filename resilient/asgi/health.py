"""What orchestrators ask: is the process alive, has it started, may it be sent requests?

A probe is answered from what is known already: nothing is asked for it, nothing awaited but the sending.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from ..core.degradation import service_level
from .deadline import Trusted, trust
from .protocols import Message, Receive, Scope, Send, Served
from .responses import json_messages

__all__ = ["Probe", "detail", "liveness", "readiness", "startup"]

Ask = Callable[[Served], tuple[bool, str]]


def liveness(resilience: Served) -> tuple[bool, str]:
    """Always well: that it is answered is the answer. A restart heals no dependency, so none is looked at."""
    return True, "alive"


def startup(resilience: Served) -> tuple[bool, str]:
    """Well once the service has started."""
    resilience.health.attend()
    complete = resilience.startup_complete
    return complete, "started" if complete else "starting"


def readiness(resilience: Served) -> tuple[bool, str]:
    """Well from the end of the start-up to the beginning of the drain, unless the service or a check that is required says otherwise.

    A failing dependency changes nothing by itself: all replicas share it, and would leave the load balancer at once,
    taking along every feature that still works.
    """
    health = resilience.health
    health.attend()
    well = health.look()
    if resilience.draining:
        status = "draining"
    elif not resilience.startup_complete:
        status = "starting"
    else:
        status = "ready" if resilience.ready and well else "not ready"
    return status == "ready", status


def detail(resilience: Served, status: str) -> dict[str, Any]:
    """What is behind: for those who are trusted."""
    dependencies = list(resilience.dependencies.values())
    features = dict(resilience.features)
    levels = {name: feature.level for name, feature in features.items()}
    return {
        "status": status,
        "service": service_level((level, features[name].critical) for name, level in levels.items()),
        "down": [
            {"dependency": dependency.name, "state": dependency.state, "required": dependency.required}
            for dependency in dependencies
            if dependency.state != "closed"
        ],
        "features": levels,
        "waiting": [] if resilience.startup_complete else list(resilience.health.startup.waiting),
        "checks": [_check(check, resilience.clock.now()) for check in resilience.checks.values()],
    }


def _check(check: Any, now: float) -> dict[str, Any]:
    return {
        "check": check.name,
        "state": check.state,
        "for": _seconds(now - check.since),
        "age": _seconds(check.age),
        "reason": check.reason,
        "required": check.required,
        "dependency": None if check.dependency is None else check.dependency.name,
    }


def _seconds(value: float) -> float | None:
    return None if value == math.inf else round(value, 3)


class Probe:
    """An ASGI application that answers 200 or 503, in one word; GET and HEAD.

    Args:
        resilience: the service.
        ask: what is asked.
        trusted: who is told more if he asks with `?verbose`: addresses and networks of peers, or a function of the ASGI scope.
        verbose: whether there is more to tell.
    """

    __slots__ = ("_answers", "_ask", "_resilience", "_trusts", "_verbose")

    def __init__(self, resilience: Served, ask: Ask, trusted: Trusted = (), *, verbose: bool = False) -> None:
        self._resilience = resilience
        self._ask = ask
        self._trusts = trust(trusted)
        self._verbose = verbose
        self._answers: dict[tuple[str, bool], tuple[Message, Message]] = {}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        well, status = self._ask(self._resilience)
        head = scope["method"] == "HEAD"
        if self._verbose and self._trusts is not None and _asks_for_more(scope) and self._trusts(scope):
            start, body = _messages(well, detail(self._resilience, status), head=head)
        else:
            answer = self._answers.get((status, head))
            if answer is None:
                answer = self._answers[status, head] = _messages(well, {"status": status}, head=head)
            start, body = answer
        # Whoever lies further out may add headers to the list that he is given.
        await send({**start, "headers": [*start["headers"]]})
        await send({**body})


def _asks_for_more(scope: Scope) -> bool:
    """Whether the query has `verbose` in it, as Kubernetes' own probes have it."""
    query: bytes = scope.get("query_string", b"")
    return b"verbose" in query and any(part.partition(b"=")[0] == b"verbose" for part in query.split(b"&"))


def _messages(well: bool, document: dict[str, Any], *, head: bool) -> tuple[Message, Message]:
    return json_messages(200 if well else 503, document, "application/json", [(b"cache-control", b"no-store")], head=head)
