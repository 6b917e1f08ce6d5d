"""Timeout: how long a call, one attempt of it, and the reading of its body may take."""

from __future__ import annotations

import math
from collections.abc import Awaitable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..core.bounds import not_negative, one_of, positive

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["Timeout"]


@dataclass(frozen=True, kw_only=True)
class Timeout:
    """Bound a call in time.

    It arms nothing itself: it lowers the call's deadline, which the attempt, every wait in a queue and every chunk of
    the body then keep to. A deadline inherited from the inbound request or from an outer call only ever shortens it.

    Args:
        total: seconds for everything up to the response headers, or up to the return of a function, retries and
            waits included.
        attempt: seconds for one attempt, in force only while another attempt could follow. At most `total`;
            by default min(10, total).
        first_byte: seconds until the first chunk of the body; `idle` by default.
        idle: seconds between two chunks of the body. By default 10, but no limit for event streams and upgraded
            connections, which fall silent by design.
        body: "idle" limits the pauses of the body alone; "total" puts the whole body under `total` too.
        min_useful: an attempt is not started with fewer seconds left.

    Raises:
        DeadlineExceeded: from the call; its `reason` names the limit.
    """

    total: float = 30.0
    attempt: float | None = None
    first_byte: float | None = None
    idle: float | None = None
    body: Literal["idle", "total"] = "idle"
    min_useful: float = 0.01

    def __post_init__(self) -> None:
        not_negative("min_useful", self.min_useful)
        one_of("body", self.body, ("idle", "total"))
        for name in ("total", "attempt", "first_byte", "idle"):
            value = getattr(self, name)
            if value is not None and value != math.inf:  # infinity stands for: no limit
                positive(name, value)
        if self.attempt is None:
            object.__setattr__(self, "attempt", min(10.0, self.total))
        elif self.attempt > self.total:
            raise ValueError(f"attempt: {self.attempt} s is longer than total, {self.total} s")

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        call.lower(call.runtime.now() + (self.total if call.total is None else min(call.total, self.total)), "total")
        call.attempt_timeout = self.attempt  # type: ignore[assignment]  # __post_init__ has put a number there
        call.min_useful = self.min_useful
        call.timeout = self
        return inner(call)

    def chunk_limit(self, *, first: bool, silent: bool) -> float:
        """Seconds that one chunk of a body may take; `silent` for streams that may pause as they like."""
        limit = self.first_byte if first and self.first_byte is not None else self.idle
        if limit is None:
            return math.inf if silent else 10.0
        return limit
