"""Events in words: what each is about, what it says, and how bad that is."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from ..core.degradation import Level
from ..events import (
    BrownoutChanged,
    CacheUsed,
    CallRejected,
    CheckChanged,
    CircuitChanged,
    ClientGone,
    ControlUsed,
    DeadlinePassed,
    DrainChanged,
    DrainHookFailed,
    Event,
    FailedOver,
    FallbackFailed,
    FallbackServed,
    FaultInjected,
    FeatureChanged,
    FeatureDegraded,
    FeatureOrdered,
    HedgeDecided,
    ReadOnlyChanged,
    RequestShed,
    ResponseAbandoned,
    RetryDecided,
    ServiceChanged,
    SettingChanged,
    StartupChanged,
)

__all__ = ["LONGEST", "QUIET", "about", "severity", "text"]

LONGEST = 300
"""Characters of an event's text."""

QUIET = frozenset(
    {
        CacheUsed,
        CallRejected,
        ClientGone,
        DeadlinePassed,
        FailedOver,
        FallbackFailed,
        FallbackServed,
        FaultInjected,
        FeatureDegraded,
        HedgeDecided,
        RequestShed,
        ResponseAbandoned,
        RetryDecided,
    }
)
"""What may come with every call: rates tell of it."""

SEVERITY = {level.value: level.severity for level in Level}


def _said(event: Any) -> str:
    return (f", by {event.by}" if event.by else "") + (f": {event.why}" if event.why else "")


def _circuit(event: CircuitChanged) -> str:
    key = f" for {event.key}" if event.key else ""
    retry = "" if event.retry_after is None else f", next trial in {event.retry_after:.1f} s"
    return f"{event.old} -> {event.new}{key} ({event.reason}{retry})"


def _ordered(event: FeatureOrdered) -> str:
    whose = "everybody" if event.tenant is None else f"tenant {event.tenant}"
    return f"{event.what}: {event.level} for {event.share:.0%} of {whose}{_said(event)}"


def _brownout(event: BrownoutChanged) -> str:
    shadow = "" if event.enforced else " (shadow)"
    return f"{event.share:.0%} of optional work{shadow}, at {event.measured:.2f} of what is wanted"


def _read_only(event: ReadOnlyChanged) -> str:
    shadow = "" if event.enforced else " (shadow)"
    return ("writes are refused" if event.read_only else "writes are taken") + shadow + _said(event)


def _control(event: ControlUsed) -> str:
    return event.action + (f" ({event.told})" if event.told else "") + _said(event)


DRAIN = {
    "begun": "a drain has begun",
    "closed": "no new work is taken on",
    "drained": "drained",
    "overdue": "not drained in time",
    "resumed": "serves again",
}


def _drain(event: DrainChanged) -> str:
    routes = f" ({', '.join(event.routes)})" if event.routes else ""
    return f"{DRAIN.get(event.what, event.what)}, {event.in_flight} under way{routes}{_said(event)}"


def _hook(event: DrainHookFailed) -> str:
    return f"drain hook {event.hook} " + ("failed" if event.cause == "error" else "was not done in time")


def _check(event: CheckChanged) -> str:
    return f"check {event.check}: {event.old} -> {event.new}" + (f" ({event.reason})" if event.reason else "")


def _startup(event: StartupChanged) -> str:
    without = f", without {', '.join(event.waiting)}" if event.waiting else ""
    return f"{'started' if event.complete else 'not started'} after {event.seconds:.1f} s{without}"


TEXTS: dict[type[Event], Callable[[Any], str]] = {
    CircuitChanged: _circuit,
    FeatureChanged: lambda event: f"{event.old} -> {event.new} ({event.cause}{_said(event)})",
    FeatureOrdered: _ordered,
    ServiceChanged: lambda event: f"{event.old} -> {event.new}",
    BrownoutChanged: _brownout,
    ReadOnlyChanged: _read_only,
    SettingChanged: lambda event: f"{event.old} -> {event.new} ({event.source})",
    ControlUsed: _control,
    DrainChanged: _drain,
    DrainHookFailed: _hook,
    CheckChanged: _check,
    StartupChanged: _startup,
}


def text(event: Event) -> str:
    """What it says; of an event that is not known here, its fields."""
    tell = TEXTS.get(type(event))
    if tell is not None:
        told = tell(event)
    else:
        values = {one.name: getattr(event, one.name) for one in fields(event) if one.name not in ("at", "dependency")}
        told = ", ".join(f"{name}={value!s:.50}" for name, value in values.items() if value not in (None, "", ()))
    return told if len(told) <= LONGEST else told[: LONGEST - 3] + "..."


def about(event: Any) -> str:
    """`dependency:<name>`, `feature:<name>`, `setting:<key>`, or `service`."""
    if isinstance(event, ControlUsed):
        return event.about or "service"
    if isinstance(event, SettingChanged):
        return f"setting:{event.key}"
    feature = getattr(event, "feature", "")
    told = f"feature:{feature}" if feature else f"dependency:{event.dependency}" if event.dependency else "service"
    return told[:LONGEST]


def severity(event: Any) -> str:
    """info, warning or bad."""
    match event:
        case CircuitChanged():
            return {"open": "bad", "half-open": "warning"}.get(event.new, "info")
        case FeatureChanged():
            if event.new == "off":
                return "bad"
            return "warning" if SEVERITY.get(event.new, 0) > SEVERITY.get(event.old, 0) else "info"
        case ServiceChanged():
            return {"healthy": "info", "degraded": "warning"}.get(event.new, "bad")
        case BrownoutChanged():
            return "warning" if event.share < 1 else "info"
        case ReadOnlyChanged():
            return "warning" if event.read_only else "info"
        case DrainChanged():
            return {"begun": "warning", "closed": "warning", "overdue": "bad"}.get(event.what, "info")
        case CheckChanged():
            return {"ill": "bad", "unknown": "warning"}.get(event.new, "info")
        case StartupChanged():
            return "warning" if event.waiting else "info"
        case ControlUsed() | SettingChanged() | DrainHookFailed():
            return "warning"
    return "info"
