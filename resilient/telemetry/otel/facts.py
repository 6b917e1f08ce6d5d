"""Which events are told on a span, under which names. Nothing is told here."""

from __future__ import annotations

import dataclasses
import re

from ...events import (
    CacheUsed,
    CallRejected,
    CircuitChanged,
    DeadlinePassed,
    Event,
    FailedOver,
    FallbackFailed,
    FallbackServed,
    FaultInjected,
    FeatureChanged,
    FeatureDegraded,
    HedgeDecided,
    RequestShed,
    ResponseAbandoned,
    RetryDecided,
)

__all__ = ["TOLD", "attributes_of", "bounded", "told"]

Value = str | bool | int | float

LONGEST = 200  # characters of an attribute: names are shorter, and what comes from a request is not ours to multiply

STANDS_IN = frozenset({"stale", "stale_if_error", "fallback"})
"""What a cache served that was not fresh; all else that it does is counted."""

TOLD: dict[type[Event], str] = {
    kind: "resilient." + re.sub(r"(?<!^)([A-Z])", r"_\1", kind.__name__).lower()
    for kind in (
        CacheUsed,
        CallRejected,
        CircuitChanged,
        DeadlinePassed,
        FailedOver,
        FallbackFailed,
        FallbackServed,
        FaultInjected,
        FeatureChanged,
        FeatureDegraded,
        HedgeDecided,
        RequestShed,
        ResponseAbandoned,
        RetryDecided,
    )
}
"""Event -> the name of the span's event: `resilient.circuit_changed`, as in the log."""

# As the labels of the metrics are named. The one word that OpenTelemetry's conventions have for any of it is error.type.
RENAMED = {"old": "resilient.from", "new": "resilient.to"}
ERRORS = (FailedOver, FallbackFailed, FallbackServed, RetryDecided)
"""Events whose cause is a kind of error."""

NAMES: dict[type[Event], dict[str, str]] = {
    kind: {
        field.name: "error.type" if field.name == "cause" and kind in ERRORS else RENAMED.get(field.name, f"resilient.{field.name}")
        for field in dataclasses.fields(kind)
        if field.name != "at"
    }
    for kind in TOLD
}
"""Event -> field -> attribute."""


def told(event: Event) -> str | None:
    """The name of the span's event that `event` is told as, or None for one that is not."""
    if isinstance(event, CacheUsed) and event.result not in STANDS_IN:
        return None
    return TOLD.get(type(event))


def attributes_of(event: Event) -> dict[str, Value]:
    """What `event` says, as attributes; what it has nothing to say of is left out."""
    said = {}
    for field, name in NAMES[type(event)].items():
        value = getattr(event, field)
        if value is not None and value != "":
            said[name] = bounded(value)
    return said


def bounded(value: Value) -> Value:
    """A value that is not too long, and of a kind that exporters know."""
    return str(value)[:LONGEST] if isinstance(value, str) else value
