"""The metric families: names, types, labels, help texts, and which event counts where. Nothing is counted here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from prometheus_client.core import Metric

from ..core.check import STATES
from ..core.degradation import Level
from ..events import (
    CacheUsed,
    CallRejected,
    CheckChanged,
    CircuitChanged,
    ClientGone,
    DeadlinePassed,
    DrainHookFailed,
    Event,
    FailedOver,
    FallbackFailed,
    FallbackServed,
    FaultInjected,
    FeatureChanged,
    FeatureDegraded,
    HedgeDecided,
    ResponseAbandoned,
    RetryDecided,
)

__all__ = ["ALL", "COUNTED", "COUNTERS", "GAUGES", "MOVED", "Family", "Key", "describe"]

Key = tuple[str, ...]
"""Label values, in the order of a family's labels."""


@dataclass(frozen=True, slots=True)
class Family:
    """One metric family.

    Attributes:
        name: as exported; a counter's ends in `_total`.
        kind: counter, gauge or histogram.
        help: one line for whoever reads the page.
        labels: label names.
        merge: of a gauge, how the values of several workers, or of all dependencies beyond the cap, become one.
    """

    name: str
    kind: str
    help: str
    labels: Key = ()
    merge: str = "livesum"

    # They are keys of dicts on every event, and each is made once: identity is all the equality there is.
    __eq__ = object.__eq__
    __hash__ = object.__hash__


CALLS = Family("resilient_calls_total", "counter", "Logical calls, whatever their attempts, by how they ended.", ("dependency", "outcome"))
DURATIONS = Family(
    "resilient_call_duration_seconds",
    "histogram",
    "Time from the start of a call to its end, retries and body included.",
    ("dependency",),
)
REQUESTS = Family(
    "resilient_requests_total",
    "counter",
    "Inbound requests, by the route's template and the class of the status; none where no answer was sent.",
    ("route", "method", "status"),
)
REQUEST_DURATIONS = Family(
    "resilient_request_duration_seconds",
    "histogram",
    "Time from an inbound request's arrival until the app was done with it, body and background tasks included.",
    ("route",),
)
REJECTIONS = Family(
    "resilient_rejections_total",
    "counter",
    "Calls that a policy refused; a policy that only watches counts what it would have refused as shadow_<reason>.",
    ("dependency", "policy", "reason"),
)
RETRIES = Family("resilient_retries_total", "counter", "Failed attempts, by what was decided about another.", ("dependency", "result"))
HEDGES = Family("resilient_hedges_total", "counter", "Second attempts beside slow ones, by how they ended.", ("dependency", "result"))
FAILOVERS = Family(
    "resilient_failovers_total",
    "counter",
    "Targets of a failover that a call left for the next one, or for none.",
    ("dependency", "target", "cause"),
)
BREAKER_STATE = Family(
    "resilient_breaker_state",
    "gauge",
    "1 for the state that the circuit breaker is in, 0 for the others; with several workers, how many are in it.",
    ("dependency", "state"),
)
TRANSITIONS = Family(
    "resilient_breaker_transitions_total", "counter", "Changes of a circuit breaker's state.", ("dependency", "from", "to", "reason")
)
IN_USE = Family("resilient_bulkhead_in_use", "gauge", "Calls that hold a slot.", ("dependency",))
LIMIT = Family("resilient_bulkhead_limit", "gauge", "Slots.", ("dependency",))
QUEUED = Family("resilient_bulkhead_queued", "gauge", "Calls that wait for a slot.", ("dependency",))
BUDGET = Family(
    "resilient_budget_remaining_ratio",
    "gauge",
    "Share of the retry budget that is left; with several workers, the least.",
    ("dependency",),
    "livemin",
)
FEATURE_LEVEL = Family(
    "resilient_feature_level",
    "gauge",
    "1 for the level that the feature is at, 0 for the others; with several workers, how many are at it.",
    ("feature", "level"),
)
DEGRADED = Family(
    "resilient_degraded_responses_total",
    "counter",
    "Uses served below the full level; a dependency's own fallback counts under the dependency's name.",
    ("feature", "level", "cause"),
)
FALLBACK_FAILURES = Family(
    "resilient_fallback_failures_total",
    "counter",
    "Steps of a feature's chain of fallbacks that failed and gave way to the next.",
    ("feature", "level", "cause"),
)
DEADLINES = Family(
    "resilient_deadline_exceeded_total",
    "counter",
    "Time limits that were reached; a policy that only watches counts those that it would have enforced as shadow_<side>.",
    ("side",),
)
CLIENTS_GONE = Family(
    "resilient_clients_gone_total",
    "counter",
    "Inbound requests that were cancelled since their client had gone; where that is only watched, shadow_cancelled.",
    ("result",),
)
CACHE_REQUESTS = Family(
    "resilient_cache_requests_total", "counter", "Requests that a cache looked at, by what came of it.", ("dependency", "result")
)
CACHE_BYTES = Family(
    "resilient_cache_bytes", "gauge", "Bytes that a cache holds in this process, what comes with each entry included.", ("dependency",)
)
CACHE_ENTRIES = Family("resilient_cache_entries", "gauge", "Answers and notes that a cache holds in this process.", ("dependency",))
STORE_UP = Family(
    "resilient_store_up",
    "gauge",
    "1 while the store of a cache can be used, 0 while it is left alone; with several workers, the least.",
    ("dependency",),
    "livemin",
)
SHED = Family(
    "resilient_requests_shed_total",
    "counter",
    "Inbound requests that were turned away, under load or in a drain; in shadow mode those that would have been, as shadow_<reason>.",
    ("criticality", "reason"),
)
ADMITTED = Family("resilient_admission_in_flight", "gauge", "Inbound requests that hold a slot.")
ADMISSION_LIMIT = Family("resilient_admission_limit", "gauge", "Slots for inbound requests, as their latency allows.")
ADMISSION_QUEUED = Family("resilient_admission_queued", "gauge", "Inbound requests that wait for a slot.")
STREAMS = Family("resilient_admission_streams", "gauge", "Event streams and websockets that are open.")
LOOP_LAG = Family(
    "resilient_loop_lag_seconds",
    "gauge",
    "How late the event loop was when last looked at; 0 while nobody comes. With several workers, the most.",
    (),
    "livemax",
)
CHECK_STATE = Family(
    "resilient_check_state",
    "gauge",
    "1 for the state that the check is in, 0 for the others; with several workers, how many say so.",
    ("check", "state"),
)
CHECKS = Family("resilient_checks_total", "counter", "Times that a check was asked, by what came of it.", ("check", "result"))
DRAINING = Family("resilient_draining", "gauge", "1 while the service drains; with several workers, how many of them do.")
DRAIN_IN_FLIGHT = Family(
    "resilient_drain_in_flight", "gauge", "Inbound requests and websockets that a drain waits for; 0 while there is none."
)
DRAIN_HOOKS = Family(
    "resilient_drain_hooks_failed_total", "counter", "What was to be done before the service stops and was not: error, late.", ("cause",)
)
INJECTED = Family(
    "resilient_faults_injected_total",
    "counter",
    "Calls that a Chaos harmed, by what it did; one that only watches counts what it would have done as shadow_<kind>.",
    ("dependency", "kind"),
)
ABANDONED = Family("resilient_abandoned_responses_total", "counter", "Streamed responses dropped without being closed.", ("dependency",))
LISTENER_ERRORS = Family("resilient_listener_errors_total", "counter", "Exceptions that event listeners raised.")
EVENTS_DROPPED = Family("resilient_events_dropped_total", "counter", "Events dropped because listeners were too slow.")

ALL = (
    CALLS,
    DURATIONS,
    REQUESTS,
    REQUEST_DURATIONS,
    REJECTIONS,
    RETRIES,
    HEDGES,
    FAILOVERS,
    BREAKER_STATE,
    TRANSITIONS,
    IN_USE,
    LIMIT,
    QUEUED,
    BUDGET,
    FEATURE_LEVEL,
    DEGRADED,
    FALLBACK_FAILURES,
    DEADLINES,
    CLIENTS_GONE,
    CACHE_REQUESTS,
    CACHE_BYTES,
    CACHE_ENTRIES,
    STORE_UP,
    SHED,
    ADMITTED,
    ADMISSION_LIMIT,
    ADMISSION_QUEUED,
    STREAMS,
    LOOP_LAG,
    CHECK_STATE,
    CHECKS,
    DRAINING,
    DRAIN_IN_FLIGHT,
    DRAIN_HOOKS,
    INJECTED,
    ABANDONED,
    LISTENER_ERRORS,
    EVENTS_DROPPED,
)
COUNTERS = tuple(family for family in ALL if family.kind == "counter")
GAUGES = tuple(family for family in ALL if family.kind == "gauge")


BREAKER_STATES = ("closed", "open", "half-open")
LEVELS = tuple(level.value for level in Level)
SIDES = ("inbound", "outbound")


def _rejection(event: CallRejected) -> Key:
    return event.dependency, event.policy, event.reason if event.enforced else f"shadow_{event.reason}"


COUNTED: dict[type[Event], tuple[Family, Callable[[Any], Key]]] = {
    CallRejected: (REJECTIONS, _rejection),
    RetryDecided: (RETRIES, lambda event: (event.dependency, event.result)),
    HedgeDecided: (HEDGES, lambda event: (event.dependency, event.result)),
    FailedOver: (FAILOVERS, lambda event: (event.dependency, event.target, event.cause)),
    CircuitChanged: (TRANSITIONS, lambda event: (event.dependency, event.old, event.new, event.reason)),
    FeatureDegraded: (DEGRADED, lambda event: (event.feature, event.level, event.cause)),
    FallbackServed: (DEGRADED, lambda event: (event.dependency, event.level, event.cause)),
    FallbackFailed: (FALLBACK_FAILURES, lambda event: (event.feature, event.level, event.cause)),
    DeadlinePassed: (DEADLINES, lambda event: (event.side if event.enforced else f"shadow_{event.side}",)),
    ClientGone: (CLIENTS_GONE, lambda event: ("cancelled" if event.enforced else "shadow_cancelled",)),
    CacheUsed: (CACHE_REQUESTS, lambda event: (event.dependency, event.result)),
    DrainHookFailed: (DRAIN_HOOKS, lambda event: (event.cause,)),
    FaultInjected: (INJECTED, lambda event: (event.dependency, event.kind if event.enforced else f"shadow_{event.kind}")),
    ResponseAbandoned: (ABANDONED, lambda event: (event.dependency,)),
}
"""Event -> the counter that it is one more of, and the label values."""

MOVED: dict[type[Event], tuple[Family, Key, Callable[[Any], Key]]] = {
    CircuitChanged: (BREAKER_STATE, BREAKER_STATES, lambda event: (event.dependency, event.new)),
    FeatureChanged: (FEATURE_LEVEL, LEVELS, lambda event: (event.feature, event.new)),
    CheckChanged: (CHECK_STATE, STATES, lambda event: (event.check, event.new)),
}
"""Event -> the one-hot gauge that it moves, its words, and who moved to which of them."""


def describe() -> list[Metric]:
    """Every family without a sample, for a registry to know their names by."""
    return [Metric(family.name.removesuffix("_total"), family.help, family.kind) for family in ALL]
