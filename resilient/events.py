"""What happened, as frozen facts handed to listeners. Successes make no event: counters tell of them. Only of a cache
is every use told, for there is no other account of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

__all__ = [
    "BrownoutChanged",
    "CacheUsed",
    "CallRejected",
    "CheckChanged",
    "CircuitChanged",
    "ClientGone",
    "ControlUsed",
    "DeadlinePassed",
    "DrainChanged",
    "DrainHookFailed",
    "Event",
    "FailedOver",
    "FallbackFailed",
    "FallbackServed",
    "FaultInjected",
    "FeatureChanged",
    "FeatureDegraded",
    "FeatureOrdered",
    "HedgeDecided",
    "Listener",
    "ReadOnlyChanged",
    "RequestShed",
    "ResponseAbandoned",
    "RetryDecided",
    "ServiceChanged",
    "SettingChanged",
    "StartupChanged",
]


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all events.

    Attributes:
        at: seconds on the clock of the `Resilience` it happened in.
        dependency: the dependency's name; empty for a pipeline without one.
    """

    at: float
    dependency: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CircuitChanged(Event):
    """A circuit breaker went from one state to another ("closed", "open", "half-open").

    `key` says whose circuit it was, of a breaker that has one for each key. It is no label: keys are many.
    """

    old: str
    new: str
    reason: str
    retry_after: float | None = None
    key: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class CallRejected(Event):
    """A policy refused a call, or would have (`enforced=False`: shadow mode let it through)."""

    policy: str
    reason: str
    enforced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryDecided(Event):
    """A failed attempt was looked at. `result`: retried, exhausted, budget, deadline, pushback, unrepeatable, rejected,
    draining (the service is about to stop).
    """

    result: str
    attempt: int
    delay: float = 0.0
    cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class HedgeDecided(Event):
    """A second attempt beside a slow one has ended, or was not made.

    `result`: won, lost (to the first attempt or another hedge), failed, rejected (by our own policies), cancelled (with
    its caller); or, not made: budget, pushback, queue (calls wait for a slot already), threads (none is free), draining,
    shadow.
    """

    result: str
    delay: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class DeadlinePassed(Event):
    """A time limit was reached, or would have been (`enforced=False`: shadow mode let the call go on).

    `side`: outbound or inbound; `limit`: attempt, total, inbound, expired (when the request came), caller, idle, first_byte,
    late, stall.
    """

    side: str
    limit: str
    enforced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FailedOver(Event):
    """A target of a failover was left because of `cause`, and the call went `to` the next one; empty: there was none."""

    target: str
    to: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackServed(Event):
    """A dependency's call was answered by its fallback.

    `level`: reduced, static; `cause`: the machine-readable why; `age`: seconds since a stored answer was made.
    """

    level: str
    cause: str
    age: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheUsed(Event):
    """A cache has looked at a request.

    `result`: hit, stale (within stale-while-revalidate), validated (the origin confirmed it), miss, collapsed (into the
    fetch of another caller), stale_if_error and fallback (in place of an error), error (nothing could stand in for it),
    pass (not to be stored), bypass (none of a cache's business), write, only_if_cached; of what goes on behind the readers:
    refreshed, refresh_failed.
    """

    result: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultInjected(Event):
    """A `Chaos` harmed a call, or would have (`enforced=False`). `kind`: fault, status, result, truncated, hang, latency."""

    kind: str
    enforced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureDegraded(Event):
    """One use of a feature was served below its full level."""

    feature: str
    level: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureChanged(Event):
    """A feature's level changed. `by` and `why` are there where somebody said so: an operator, an order that is over."""

    feature: str
    old: str
    new: str
    cause: str
    by: str = ""
    why: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FeatureOrdered(Event):
    """Somebody has said what a feature is to be, or that it need not be so any more. `what`: ordered, lifted, expired.

    `tenant` says whose uses it is about (None: everybody's), `share` how many of them. Neither is a label.
    """

    feature: str
    what: str
    level: str
    by: str = ""
    why: str = ""
    tenant: str | None = None
    share: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackFailed(Event):
    """One step of a chain of fallbacks raised, and the next one is tried. `step` counts from 0."""

    feature: str
    step: int
    level: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BrownoutChanged(Event):
    """Optional features begin to be dimmed, or are no more (`share` is 1), or would be (`enforced=False`).

    `measured` is what was measured over what is wanted.
    """

    share: float
    measured: float
    enforced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ReadOnlyChanged(Event):
    """Writes are refused from now on, or no more."""

    read_only: bool
    by: str = ""
    why: str = ""
    enforced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainChanged(Event):
    """The service takes leave. `what`: begun (readiness fails), closed (no new work is taken on), drained (all that was under
    way has ended), overdue (it has not, and the time is over), resumed (it serves again as before).

    `in_flight` says how many requests and websockets are under way, `routes` which of them are the most. Neither is a label.
    """

    what: str
    by: str = ""
    why: str = ""
    in_flight: int = 0
    routes: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class DrainHookFailed(Event):
    """What was to be done before the service stops was not done. `cause`: error, late. `hook` is its name, and no label."""

    hook: str
    cause: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceChanged(Event):
    """The level of the whole service changed: healthy, degraded, critical."""

    old: str
    new: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckChanged(Event):
    """A check of the service's health went from one state to another: well, ill, unknown.

    `reason`: why the last answer was bad, without the text of an error; `dependency`: whose check it is, if any.
    """

    check: str
    old: str
    new: str
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartupChanged(Event):
    """The start-up of the service has ended (`complete`), or has taken longer than it may and goes on.

    `waiting`: what is not done; where it has ended all the same, its time was over. `seconds`: how long it has taken.
    """

    complete: bool
    waiting: tuple[str, ...]
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShed(Event):
    """The service turned a request away because it has too many or is about to stop, or would have (`enforced=False`).

    `criticality`: sheddable, sheddable_plus, critical, critical_plus; `reason`: waited (longer than it may), standing (the line
    it would wait in is one that does not empty), full, displaced (by one that matters more), streams (too many of them),
    draining (the service is about to stop).
    """

    criticality: str
    reason: str
    enforced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ClientGone(Event):
    """The client of an inbound request had gone, and the app was cancelled, or would have been (`enforced=False`)."""

    enforced: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class ResponseAbandoned(Event):
    """A streamed response was dropped without being closed; its permits and connection were taken back."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SettingChanged(Event):
    """A setting was changed while the service was at work.

    `key`: such as `dependencies.catalog.retry.attempts`; `old` and `new`: as they are shown, secrets masked; `source`: the
    file or the environment variable, or "code" where the setting was taken out of both.
    """

    key: str
    old: str
    new: str
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ControlUsed(Event):
    """An operator has used a control of the dashboard, and it is done.

    `action`: isolate, close, half_open, set_level, clear, read_only, read_write, drain; `about`: the dependency or the
    feature, empty where it is the service; `told`: what else was asked for, such as the level.
    """

    action: str
    about: str
    by: str
    why: str = ""
    told: str = ""


@runtime_checkable
class Listener(Protocol):
    """Anything that wants events. It is called after all is settled, outside every lock, and must not block.

    An exception that it raises is counted (`Outbox.listener_errors`) and goes no further.
    """

    def on_event(self, event: Event) -> None: ...
