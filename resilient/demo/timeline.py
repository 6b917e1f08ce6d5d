"""What happens to the upstreams, and when."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

FEATURE_TIMEOUT = 0.3
"""Seconds that the protected shop gives each of its two optional features."""

CLIENT_TIMEOUT = 5.0
"""Seconds after which the load gives an answer up, as a browser's or gateway's user would."""

SECONDS = 45.0
MIN_SECONDS = 5.0


@dataclass(frozen=True)
class Phase:
    """A stretch of time in which the upstreams behave in one way.

    Attributes:
        name: short and unique in its timeline, the key that the verdict asks for.
        title: what the reader is told.
        seconds: how long it lasts.
        faults: upstream -> fault mode; an upstream that is not named is healthy.
    """

    name: str
    title: str
    seconds: float
    faults: Mapping[str, str] = field(default_factory=dict)


_STORY = (
    Phase("healthy", "all healthy", 7),
    Phase("hang", "recommendations hang", 12, {"recommendations": "hang"}),
    Phase("recovery", "recommendations are back", 5),
    Phase("flaky", "catalog answers 503 half of the time", 7, {"catalog": "flaky"}),
    Phase("trickle", "reviews trickle", 8, {"reviews": "trickle"}),
    Phase("recovered", "healthy again", 6),
)


def timeline(seconds: float = SECONDS) -> tuple[Phase, ...]:
    """The demo's phases, which last `seconds` together.

    Raises:
        ValueError: if `seconds` is below `MIN_SECONDS`, where no phase would show anything.
    """
    if not seconds >= MIN_SECONDS:
        raise ValueError(f"seconds must be at least {MIN_SECONDS:g}, not {seconds!r}")
    scale = seconds / sum(phase.seconds for phase in _STORY)
    return tuple(replace(phase, seconds=phase.seconds * scale) for phase in _STORY)
