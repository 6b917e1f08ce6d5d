"""What a server says about its own limits: `Retry-After`, the `RateLimit` fields, and their unofficial forerunners.

Rules of this file: pure functions of fields and wall time. What cannot be understood is ignored and counted; nothing that
a server sends raises.

`RateLimit` and `RateLimit-Policy` are structured fields (draft-ietf-httpapi-ratelimit-headers, revision 10: lists of
strings with the parameters r, t, q, w and qu), parsed by the library http-sf. The draft may still change, so unknown
parameters are passed over, and so is a field of which any part is malformed.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeGuard

from .retry import parse_retry_after, seconds_of_date

__all__ = ["Allowance", "Told", "parse_limits", "parse_told", "says_not_here"]

Field = Callable[[str], "str | None"]

THROTTLED = frozenset({429, 503})
LONGEST_FIELD = 2048
_NUMBER = re.compile(r"\d{1,15}(\.\d{1,9})?")
# A reset above this is no length of time but a moment: seconds since 1970, or milliseconds.
_MOMENT, _MILLISECONDS = 1e8, 1e11


@dataclass(frozen=True, slots=True)
class Told:
    """What one answer said.

    Attributes:
        wait: seconds for which nothing should be sent.
        remaining: requests that may still be sent ...
        reset: ... in so many seconds.
        garbage: fields that could not be understood.
        unread: there was a field that only http-sf can read, which is not installed.
    """

    wait: float | None = None
    remaining: int | None = None
    reset: float = 0.0
    garbage: int = 0
    unread: bool = False


class Allowance:
    """How many calls may go until a server's limit is reset: half of them at once, the other half evenly until then.

    So one answer that says how little is left makes the sender slower at once, and never lets more go than is left.

    Attributes:
        until: when it no longer holds.
        used: calls that went since.
        ticket: the last one that was taken before.
    """

    __slots__ = ("_at_once", "_pause", "_since", "ticket", "until", "used")

    def __init__(self, remaining: int, reset: float, now: float, until: float, ticket: int) -> None:
        at_once = max(1, remaining // 2)
        self._at_once = at_once
        self._pause = reset / (remaining - at_once) if remaining > at_once else math.inf
        self._since = now
        self.until = until
        self.used = 0
        self.ticket = ticket

    def earliest(self, number: int) -> float:
        """When the call may go that is the next but `number` - 1."""
        beyond = self.used + number - self._at_once
        return -math.inf if beyond <= 0 else min(self._since + beyond * self._pause, self.until)


def parse_told(status: int, field: Field, wall: float, *, fields: bool = True) -> Told | None:
    """What an answer says about the server's limits, or None if it says nothing.

    Args:
        status: the answer's.
        field: the value of a header field by its name in lower case, or None.
        wall: wall time, in seconds since 1970.
        fields: whether to look at more than `Retry-After`. It takes precedence over them wherever it is there.
    """
    garbage, unread = 0, False
    if status in THROTTLED and (value := field("retry-after")) is not None:
        wait = parse_retry_after(value, wall, field("date"))
        if wait is not None:
            return Told(wait=wait)
        garbage += 1
    if fields and not _from_cache(field):
        for read in (_structured, _unofficial):
            try:
                limit = read(field, wall)
            except ValueError:
                garbage += 1
            except ModuleNotFoundError:
                unread = True
            else:
                if limit is not None:
                    return Told(remaining=limit[0], reset=limit[1], garbage=garbage, unread=unread)
    return Told(garbage=garbage, unread=unread) if garbage or unread else None


def says_not_here(field: Field) -> bool:
    """Whether an answer says that another try at the same place is of no use.

    That is `X-Envoy-Overloaded`, which Envoy gives and heeds where a service turns requests away under load, as our own
    admission does; and gRPC's `grpc-retry-pushback-ms` with a value that is negative or no number (gRFC A6).
    """
    if field("x-envoy-overloaded") is not None:
        return True
    pushback = field("grpc-retry-pushback-ms")
    return pushback is not None and not (pushback.isascii() and pushback.isdigit())


def _from_cache(field: Field) -> bool:
    """Whether a cache has answered: what it kept says nothing about the limits of now."""
    age = field("age")
    return age is not None and age.strip() not in ("", "0")


def _structured(field: Field, wall: float) -> tuple[int, float] | None:
    """The tightest limit of a `RateLimit` field: what remains of it, and the seconds until it is reset."""
    value = field("ratelimit")
    if value is None:
        return None
    windows: dict[str, int] | None = None
    found: list[tuple[int, float]] = []
    for name, parameters in parse_limits(value):
        remaining, reset = parameters.get("r"), parameters.get("t")
        if not _is_count(remaining) or not (reset is None or _is_count(reset)):
            raise ValueError(f"RateLimit: {value!r}")
        if parameters.get("qu", "requests") != "requests":
            continue
        if reset is None:
            windows = _windows(field) if windows is None else windows
            reset = windows.get(name)
        if reset is not None:
            found.append((remaining, float(reset)))
    # Nothing left outweighs anything; of two such the longer wait.
    return min(found, key=lambda limit: (limit[0], -limit[1]), default=None)


def _windows(field: Field) -> dict[str, int]:
    """The length of each policy's window, where the server tells it."""
    value = field("ratelimit-policy")
    policies = [] if value is None else parse_limits(value)
    return {name: parameters["w"] for name, parameters in policies if _is_count(parameters.get("w"))}


def _is_count(value: Any) -> TypeGuard[int]:
    return type(value) is int and value >= 0


def parse_limits(value: str) -> list[tuple[str, dict[str, Any]]]:
    """The members of a `RateLimit` or `RateLimit-Policy` field: names and parameters.

    Raises:
        ValueError: it is malformed.
        ModuleNotFoundError: http-sf is not installed.
    """
    if len(value) > LONGEST_FIELD:
        raise ValueError("the field is too long")
    members: list[tuple[str, dict[str, Any]]] = _http_sf().parse(value.encode("ascii"), tltype="list")
    # Of an inner list or a token the name is no str.
    if not all(type(name) is str for name, _ in members):
        raise ValueError("a member is no string")
    return members


@functools.cache
def _find_http_sf() -> Any:
    try:
        import http_sf  # an extra: only those need it who have such servers
    except ModuleNotFoundError:
        return None
    return http_sf


def _http_sf() -> Any:
    module = _find_http_sf()
    if module is None:
        raise ModuleNotFoundError("http-sf is not installed", name="http_sf")
    return module


def _unofficial(field: Field, wall: float) -> tuple[int, float] | None:
    """`X-RateLimit-Remaining` and `-Reset`, or the same without the X: seconds, or a moment since 1970."""
    for prefix in ("x-ratelimit-", "ratelimit-"):
        remaining = field(prefix + "remaining")
        reset = None if remaining is None else field(prefix + "reset")
        if remaining is not None and reset is not None:
            left, seconds = _number(remaining), _number(reset)
            if seconds >= _MOMENT:
                date = field("date")
                since = None if date is None else seconds_of_date(date)
                moment = seconds / 1000 if seconds >= _MILLISECONDS else seconds
                seconds = max(0.0, moment - (wall if since is None else since))
            return int(left), seconds
    return None


def _number(value: str) -> float:
    value = value.strip()
    if not (value.isascii() and _NUMBER.fullmatch(value)):
        raise ValueError(f"no number: {value!r}")
    return float(value)
