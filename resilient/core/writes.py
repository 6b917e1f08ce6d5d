"""Whether a service takes writes.

Rules of this file: no clock, no events. `now` is an argument; what a write is, the callers know.
"""

from __future__ import annotations

import math
from typing import NamedTuple

__all__ = ["SAFE_METHODS", "ReadOnly", "WriteMode"]

SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY"})
"""Of HTTP: RFC 9110 section 9.2.1, and QUERY."""


class ReadOnly(NamedTuple):
    """That writes are refused, who said so, and for how long.

    Attributes:
        until: on the clock of the `Resilience`; infinity for when it is lifted.
        retry_after: seconds after which to try again, where `until` does not say it.
        enforce: False counts and lets through.
    """

    by: str = ""
    why: str = ""
    until: float = math.inf
    retry_after: float = 30.0
    enforce: bool = True

    def wait(self, now: float) -> float:
        """Seconds after which another try may succeed."""
        return self.retry_after if self.until == math.inf else max(self.until - now, 0.0)


class WriteMode:
    """One for all that a `Resilience` has to do with. `stop` is None while writes are taken."""

    __slots__ = ("stop",)

    def __init__(self) -> None:
        self.stop: ReadOnly | None = None

    def refuses(self, now: float) -> ReadOnly | None:
        """Why a write is refused now, if it is."""
        stop = self.stop
        return None if stop is None or now >= stop.until else stop
