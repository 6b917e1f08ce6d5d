"""One log record a transition, never one a call."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..core.degradation import Level
from ..events import (
    BrownoutChanged,
    CheckChanged,
    CircuitChanged,
    ControlUsed,
    DrainChanged,
    DrainHookFailed,
    Event,
    FeatureChanged,
    FeatureOrdered,
    ReadOnlyChanged,
    ResponseAbandoned,
    ServiceChanged,
    SettingChanged,
    StartupChanged,
)

__all__ = ["TransitionLog"]

logger = logging.getLogger("resilient")

REMEMBERED = 1000  # names of dependencies that were warned of; beyond them only the counter tells
SEVERITY = {level.value: level.severity for level in Level}


class TransitionLog:
    """A listener that writes to the logger `resilient`; what every record tells is in its `extra` too.

    =================== ======================================================== ==========================================
    `event`             other fields                                             level
    =================== ======================================================== ==========================================
    circuit_changed     dependency, old, new, reason, retry_after, at            WARNING when it opens, else INFO
    feature_changed     feature, old, new, cause, by, why, at                    WARNING when users get less, else INFO
    feature_ordered     feature, what, level, by, why, tenant, share, at         INFO
    service_changed     old, new, at                                             WARNING unless it is healthy
    brownout_changed    share, measured, enforced, at                            WARNING when it begins, else INFO
    read_only_changed   read_only, by, why, enforced, at                         WARNING when it begins, else INFO
    drain_changed       what, by, why, in_flight, routes, at                     WARNING when it is overdue, else INFO
    drain_hook_failed   hook, cause, at                                          WARNING
    response_abandoned  dependency, at                                           WARNING, the first time of a dependency
    setting_changed     dependency, key, old, new, source, at                    WARNING
    control_used        action, about, by, why, told, at                         WARNING
    check_changed       check, dependency, old, new, reason, at                  INFO when it is well, else WARNING
    startup_changed     complete, waiting, seconds, at                           WARNING unless all was done
    =================== ======================================================== ==========================================

    None of these names is one of `logging.LogRecord`. Times are seconds; `at` is on the clock of the `Resilience`.
    """

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._tell: dict[type[Event], Callable[[Any], None]] = {
            CircuitChanged: self._circuit_changed,
            FeatureChanged: self._feature_changed,
            FeatureOrdered: self._feature_ordered,
            ServiceChanged: self._service_changed,
            BrownoutChanged: self._brownout_changed,
            ReadOnlyChanged: self._read_only_changed,
            DrainChanged: self._drain_changed,
            DrainHookFailed: self._drain_hook_failed,
            ResponseAbandoned: self._response_abandoned,
            SettingChanged: self._setting_changed,
            ControlUsed: self._control_used,
            CheckChanged: self._check_changed,
            StartupChanged: self._startup_changed,
        }

    def on_event(self, event: Event) -> None:
        """Log an event if it is a transition. Part of being a `Listener`."""
        tell = self._tell.get(type(event))
        if tell is not None:
            tell(event)

    def _circuit_changed(self, event: CircuitChanged) -> None:
        retry = "" if event.retry_after is None else f", next trial in {event.retry_after:.1f} s"
        logger.log(
            logging.WARNING if event.new == "open" else logging.INFO,
            "circuit of %s%s: %s -> %s (%s%s)",
            event.dependency,
            f" for {event.key!r}" if event.key else "",  # quoted, for it may come from a request
            event.old,
            event.new,
            event.reason,
            retry,
            extra={
                "event": "circuit_changed",
                "dependency": event.dependency,
                "old": event.old,
                "new": event.new,
                "reason": event.reason,
                "retry_after": event.retry_after,
                "key": event.key,
                "at": event.at,
            },
        )

    def _feature_changed(self, event: FeatureChanged) -> None:
        logger.log(
            logging.WARNING if SEVERITY.get(event.new, 0) > SEVERITY.get(event.old, 0) else logging.INFO,
            "feature %s: %s -> %s (%s%s)",
            event.feature,
            event.old,
            event.new,
            event.cause,
            _said(event.by, event.why),
            extra={
                "event": "feature_changed",
                "feature": event.feature,
                "old": str(event.old),
                "new": str(event.new),
                "cause": event.cause,
                "by": event.by,
                "why": event.why,
                "at": event.at,
            },
        )

    def _feature_ordered(self, event: FeatureOrdered) -> None:
        logger.info(
            "feature %s: %s: %s for %s%s",
            event.feature,
            event.what,
            event.level,
            f"{event.share:.0%} of {'everybody' if event.tenant is None else repr(event.tenant)}",
            _said(event.by, event.why),
            extra={
                "event": "feature_ordered",
                "feature": event.feature,
                "what": event.what,
                "level": str(event.level),
                "by": event.by,
                "why": event.why,
                "tenant": event.tenant,
                "share": event.share,
                "at": event.at,
            },
        )

    def _service_changed(self, event: ServiceChanged) -> None:
        logger.log(
            logging.INFO if event.new == "healthy" else logging.WARNING,
            "the service: %s -> %s",
            event.old,
            event.new,
            extra={"event": "service_changed", "old": event.old, "new": event.new, "at": event.at},
        )

    def _brownout_changed(self, event: BrownoutChanged) -> None:
        logger.log(
            logging.WARNING if event.share < 1 else logging.INFO,
            "brownout%s: %.0f%% of optional work, at %.2f of what is wanted",
            "" if event.enforced else " (shadow)",
            event.share * 100,
            event.measured,
            extra={
                "event": "brownout_changed",
                "share": event.share,
                "measured": event.measured,
                "enforced": event.enforced,
                "at": event.at,
            },
        )

    def _read_only_changed(self, event: ReadOnlyChanged) -> None:
        logger.log(
            logging.WARNING if event.read_only else logging.INFO,
            "the service %s%s",
            "is read-only" if event.read_only else "takes writes",
            _said(event.by, event.why),
            extra={
                "event": "read_only_changed",
                "read_only": event.read_only,
                "by": event.by,
                "why": event.why,
                "enforced": event.enforced,
                "at": event.at,
            },
        )

    def _drain_changed(self, event: DrainChanged) -> None:
        logger.log(
            logging.WARNING if event.what == "overdue" else logging.INFO,
            "drain %s, %d requests under way%s%s",
            event.what,
            event.in_flight,
            f" ({', '.join(event.routes)})" if event.routes else "",
            _said(event.by, event.why),
            extra={
                "event": "drain_changed",
                "what": event.what,
                "by": event.by,
                "why": event.why,
                "in_flight": event.in_flight,
                "routes": event.routes,
                "at": event.at,
            },
        )

    def _drain_hook_failed(self, event: DrainHookFailed) -> None:
        logger.warning(
            "drain hook %s: %s",
            event.hook,
            "failed" if event.cause == "error" else "not done in time",
            extra={"event": "drain_hook_failed", "hook": event.hook, "cause": event.cause, "at": event.at},
        )

    def _response_abandoned(self, event: ResponseAbandoned) -> None:
        if event.dependency in self._warned or len(self._warned) >= REMEMBERED:
            return
        self._warned.add(event.dependency)
        logger.warning(
            "a streamed response of %s was dropped without being closed, so its connection and slot were held until it was"
            " collected; close responses, best with `with client.stream(...)` (later ones are only counted)",
            event.dependency,
            extra={"event": "response_abandoned", "dependency": event.dependency, "at": event.at},
        )

    def _setting_changed(self, event: SettingChanged) -> None:
        logger.warning(
            "setting %s: %s -> %s (%s)",
            event.key,
            event.old,
            event.new,
            event.source,
            extra={
                "event": "setting_changed",
                "dependency": event.dependency,
                "key": event.key,
                "old": event.old,
                "new": event.new,
                "source": event.source,
                "at": event.at,
            },
        )

    def _control_used(self, event: ControlUsed) -> None:
        logger.warning(
            "dashboard: %s %s%s%s",
            event.action,
            event.about or "the service",
            f" ({event.told})" if event.told else "",
            _said(event.by, event.why),
            extra={
                "event": "control_used",
                "action": event.action,
                "about": event.about,
                "by": event.by,
                "why": event.why,
                "told": event.told,
                "at": event.at,
            },
        )

    def _check_changed(self, event: CheckChanged) -> None:
        logger.log(
            logging.INFO if event.new == "well" else logging.WARNING,
            "check %s: %s -> %s%s",
            event.check,
            event.old,
            event.new,
            f" ({event.reason})" if event.reason else "",
            extra={
                "event": "check_changed",
                "check": event.check,
                "dependency": event.dependency,
                "old": event.old,
                "new": event.new,
                "reason": event.reason,
                "at": event.at,
            },
        )

    def _startup_changed(self, event: StartupChanged) -> None:
        logger.log(
            logging.WARNING if event.waiting else logging.INFO,
            "the service %s after %.1f s%s",
            "has started" if event.complete else "has not started",
            event.seconds,
            f", without {', '.join(event.waiting)}" if event.waiting else "",
            extra={
                "event": "startup_changed",
                "complete": event.complete,
                "waiting": list(event.waiting),
                "seconds": event.seconds,
                "at": event.at,
            },
        )


def _said(by: str, why: str) -> str:
    """Who and why, quoted: somebody has typed them."""
    return (f", by {by!r}" if by else "") + (f": {why!r}" if why else "")
