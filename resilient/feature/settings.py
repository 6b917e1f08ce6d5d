"""What the settings of a feature may be. Every error names the parameter."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from datetime import datetime
from typing import Any, Protocol, cast

from ..core.bounds import flag, not_negative
from ..core.degradation import Level
from ..core.orders import LONGEST_TEXT
from ..core.schedule import Schedule
from .standing import Circuit, Standing

__all__ = [
    "Named",
    "check",
    "circuits",
    "features",
    "hands_on_awaitables",
    "level_of",
    "names",
    "schedule_of",
    "seconds_until",
    "tenant_of",
    "text",
    "token",
]

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,63}")
_LONGEST_TENANT = 200


class Named(Protocol):
    """A dependency, or another feature."""

    @property
    def name(self) -> str: ...


def token(name: Any) -> str:
    """A name that can be told to clients and be a label."""
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {name!r}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"name: expected a letter followed by at most 63 letters, digits or any of -_.:/, got {name!r}")
    return name


def names(needs: Any) -> tuple[str, ...]:
    """The names of what a feature needs."""
    if isinstance(needs, str) or not isinstance(needs, Iterable):
        raise TypeError(f"needs: expected dependencies in a list, got {needs!r}")
    found = tuple(getattr(dependency, "name", None) for dependency in needs)
    if not all(isinstance(name, str) for name in found):
        raise TypeError(f"needs: expected dependencies, got {needs!r}")
    return cast("tuple[str, ...]", found)


def circuits(needs: Iterable[Any]) -> tuple[Circuit, ...]:
    """Those of them that tell of their circuit; anything else with a name is there for attribution."""
    return tuple(one for one in needs if not isinstance(one, Standing) and isinstance(one, Circuit))


def features(needs: Iterable[Any]) -> tuple[Standing, ...]:
    """Those of them that are features."""
    return tuple(one for one in needs if isinstance(one, Standing))


def check(*, critical: bool, required: bool, writes: bool, dim: float, dwell: float, recover_after: float) -> None:
    """The plain settings."""
    for name, value in (("critical", critical), ("required", required), ("writes", writes)):
        flag(name, value)
    for name, seconds in (("dim", dim), ("dwell", dwell), ("recover_after", recover_after)):
        not_negative(name, seconds)
    if recover_after < dwell:
        raise ValueError(f"recover_after must be at least dwell = {dwell!r}, not {recover_after!r}")


def schedule_of(schedule: Any, allowed: Callable[[str, Level], None]) -> Schedule:
    """The schedule, with no level in it that the feature cannot have."""
    made = schedule if isinstance(schedule, Schedule) else Schedule(schedule)
    for level in made.levels:
        allowed("schedule", level)
    return made


def level_of(level: Any) -> Level:
    """A level, or the word for one."""
    try:
        return Level(level)
    except ValueError:
        raise ValueError(f"level: expected one of {', '.join(Level)}, got {level!r}") from None


def text(name: str, value: Any) -> str:
    """Who or why, as it is kept and logged."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {value!r}")
    if len(value) > LONGEST_TEXT or not (value.isprintable() or not value):
        raise ValueError(f"{name}: expected at most {LONGEST_TEXT} printable characters, got {value!r:.50}")
    return value


def tenant_of(tenant: Any) -> str | None:
    """The name of a tenant, or None for everybody."""
    if tenant is not None and not isinstance(tenant, str):
        raise TypeError(f"tenant: expected a string or None, got {tenant!r}")
    if tenant is not None and not 0 < len(tenant) <= _LONGEST_TENANT:
        raise ValueError(f"tenant: expected 1 to {_LONGEST_TENANT} characters, got {tenant!r:.50}")
    return tenant


def seconds_until(until: Any, wall: float) -> float:
    """Seconds from now. A date is told in UTC or with an offset: without, nobody knows which moment it is."""
    if isinstance(until, datetime):
        if until.tzinfo is None:
            raise ValueError(f"until: expected a date with a time zone, got {until!r}")
        seconds = until.timestamp() - wall
        if seconds <= 0:
            raise ValueError(f"until: {until} is over")
        return seconds
    if isinstance(until, bool) or not isinstance(until, int | float):
        raise TypeError(f"until: expected a date with a time zone, or seconds from now, got {until!r}")
    if not 0 < until < float("inf"):
        raise ValueError(f"until: expected seconds above 0, got {until!r}")
    return until


def hands_on_awaitables(fn: Callable[..., Any]) -> bool:
    """Whether a plain function says that what it returns is to be awaited."""
    try:
        said = inspect.get_annotations(fn).get("return", "")
    except (TypeError, ValueError):
        return False
    return re.search(r"\b(Awaitable|Coroutine|Future|Task)\b", said if isinstance(said, str) else repr(said)) is not None
