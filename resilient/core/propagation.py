"""What a request on its way out says of the work that it is part of: how long its caller waits, and how much it matters.

Rules of this file: no clock; times are seconds that are left. Whoever is told learns something of our callers, so only
the origin that was named is told, and never whoever it redirects to.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from .origin import PORTS, Origin

__all__ = ["CRITICALITY_HEADER", "DEADLINE_HEADER", "Propagation"]

DEADLINE_HEADER = "X-Request-Timeout-Ms"
CRITICALITY_HEADER = "X-Criticality"
_NAMES = {"deadline": DEADLINE_HEADER, "criticality": CRITICALITY_HEADER}
_TOKEN = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
# As many digits as are read: ten for milliseconds, and eight in gRPC's `TimeoutValue`.
_MOST = 9_999_999_999
_MOST_GRPC = 99_999_999


class Propagation:
    """Which origin is told, and in which fields.

    Args:
        origin: who is told. A path counts for nothing here: it is the same server that reads the fields.
        given: True for both fields under their usual names; else the names, by "deadline" and "criticality", of those that
            are sent. A deadline is told in whole milliseconds, under the name of `grpc-timeout` as gRPC has it.

    Raises:
        TypeError, ValueError: naming the parameter `propagate`.
    """

    __slots__ = ("_key", "criticality", "deadline", "grpc")

    def __init__(self, origin: Origin | None, given: bool | Mapping[str, str]) -> None:
        names: Any = _NAMES if given is True else given
        if not isinstance(names, Mapping) or not all(isinstance(name, str) for name in names.values()):
            raise TypeError(f"propagate: expected True, False or names of headers by {' and '.join(_NAMES)}, got {given!r}")
        if not names or not names.keys() <= _NAMES.keys():
            raise ValueError(f"propagate: expected names of headers by {' and '.join(_NAMES)}, got {given!r}")
        wrong = next((name for name in names.values() if not _TOKEN.fullmatch(name)), None)
        if wrong is not None:
            raise ValueError(f"propagate: expected names of header fields, got {wrong!r}")
        if origin is None:
            raise ValueError("propagate: name the origin that is told, with origin=; a client may be led elsewhere by a redirect")
        self._key = origin.key
        self.deadline: str | None = names.get("deadline")
        self.criticality: str | None = names.get("criticality")
        self.grpc = self.deadline is not None and self.deadline.lower() == "grpc-timeout"

    def reaches(self, url: Any) -> bool:
        """Whether a request to `url` goes to the origin that is told."""
        scheme, host, port = self._key
        return url.host == host and url.scheme == scheme and (url.port or PORTS.get(scheme)) == port

    def time_left(self, seconds: float) -> str | None:
        """The value of the deadline's field; None where there is no deadline. Rounded down: who is told of more waits in vain."""
        if seconds == math.inf:
            return None
        milliseconds = max(int(seconds * 1000), 0)
        return f"{min(milliseconds, _MOST_GRPC)}m" if self.grpc else str(min(milliseconds, _MOST))
