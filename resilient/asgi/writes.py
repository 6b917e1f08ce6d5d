"""Read-only mode for whole requests: those that could change something are refused, unless their route is exempt."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from typing import Any

from ..core.route import Route
from ..core.writes import SAFE_METHODS, ReadOnly, WriteMode
from ..events import CallRejected
from .criticality import path_of
from .errors import LONGEST, SPREAD
from .protocols import Scope
from .responses import Problem

__all__ = ["CONTROLS", "WriteGate"]

CONTROLS = ("/resilience/controls",)
"""What is never refused: who takes writes again does it here."""


class WriteGate:
    """Says which requests a read-only service refuses: those whose method is not safe (RFC 9110 section 9.2.1).

    Args:
        exempt: patterns of requests that are served all the same: "POST /login", "/search", "PUT /drafts/{id}".
        mode: says whether writes are taken.
        chance: a source of numbers in [0, 1), for the spread of `Retry-After`.

    Raises:
        TypeError, ValueError: `exempt` cannot be read; the message shows it.
    """

    __slots__ = ("_chance", "_exempt", "mode")

    def __init__(self, exempt: Iterable[str] = (), *, mode: WriteMode | None = None, chance: Callable[[], float] = random.random) -> None:
        if isinstance(exempt, str) or not isinstance(exempt, Iterable):
            raise TypeError(f"exempt_writes: expected patterns in a list, got {exempt!r}")
        self._exempt = tuple(Route(pattern, name="exempt_writes") for pattern in (*CONTROLS, *exempt))
        for route in self._exempt:
            if route.origin is not None:
                raise ValueError(f"exempt_writes: a pattern names a path, and no origin: {route.pattern!r}")
        self.mode = WriteMode() if mode is None else mode
        self._chance = chance

    def refuses(self, scope: Scope) -> bool:
        """Whether a read-only service does not serve this request."""
        method, path = scope["method"], path_of(scope)
        return method not in SAFE_METHODS and not any(route.matches(method, None, path) for route in self._exempt)

    def answer(self, stop: ReadOnly, resilience: Any) -> Problem | None:
        """Tell of a refusal. Returns what the client is told, or None where the request is let through all the same."""
        now = resilience.clock.now()
        event = CallRejected(at=now, policy="read_only", reason="read_only", enforced=stop.enforce)
        resilience.outbox.emit(event)
        if not stop.enforce:
            return None
        seconds = min(stop.wait(now), LONGEST)
        return Problem(
            status=503,
            error="http_request_denied",
            detail="This service takes no changes at present.",
            retry_after=max(math.ceil(seconds + max(seconds * SPREAD, 1.0) * self._chance()), 1),
        )
