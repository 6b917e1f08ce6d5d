"""What metrics read when they are scraped: plain attributes of the parts of a `Resilience`, never a lock of theirs held."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Protocol

from ..core.check import STATES
from ..outbox import Outbox
from ..stats import CallStats
from .families import (
    ADMISSION_LIMIT,
    ADMISSION_QUEUED,
    ADMITTED,
    BREAKER_STATE,
    BREAKER_STATES,
    BUDGET,
    CACHE_BYTES,
    CACHE_ENTRIES,
    CHECK_STATE,
    DRAIN_IN_FLIGHT,
    DRAINING,
    FEATURE_LEVEL,
    GAUGES,
    IN_USE,
    LEVELS,
    LIMIT,
    LOOP_LAG,
    QUEUED,
    STORE_UP,
    STREAMS,
    Family,
    Key,
)

__all__ = [
    "AdmissionView",
    "BreakerView",
    "BudgetView",
    "BulkheadView",
    "CheckView",
    "DependencyView",
    "FeatureView",
    "LeavingView",
    "Source",
    "gauges",
]

MERGED: dict[str, Callable[[float, float], float]] = {"livesum": lambda one, other: one + other, "livemin": min, "livemax": max}
"""How what several have becomes one value."""


class BreakerView(Protocol):
    """`current_state` is closed, open or half-open."""

    @property
    def current_state(self) -> str: ...


class BulkheadView(Protocol):
    """Slots taken, slots there are, and callers that wait for one."""

    @property
    def in_use(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def queued(self) -> int: ...


class BudgetView(Protocol):
    """`remaining_ratio()` is the share of the retry budget that is left, from 0 to 1."""

    def remaining_ratio(self) -> float: ...


class CacheView(Protocol):
    """`store` is where its answers are; it may have `size` (bytes in this process), `count`, and `up`."""

    @property
    def store(self) -> Any: ...


class DependencyView(Protocol):
    """A dependency; None stands for a policy that it does not have."""

    @property
    def name(self) -> str: ...
    @property
    def stats(self) -> CallStats: ...
    @property
    def breaker(self) -> BreakerView | None: ...
    @property
    def bulkhead(self) -> BulkheadView | None: ...
    @property
    def budget(self) -> BudgetView | None: ...
    @property
    def cache(self) -> CacheView | None: ...


class FeatureView(Protocol):
    """A feature; its level is full, reduced, static or off."""

    @property
    def name(self) -> str: ...
    @property
    def level(self) -> str: ...


class CheckView(Protocol):
    """A check of the service's health; its state is well, ill or unknown."""

    @property
    def name(self) -> str: ...
    @property
    def state(self) -> str: ...


class AdmissionView(Protocol):
    """What lets inbound requests in: how many are inside, may be, and wait; streams; and how late its event loop was."""

    @property
    def in_flight(self) -> int: ...
    @property
    def limit(self) -> int: ...
    @property
    def queued(self) -> int: ...
    @property
    def streams(self) -> int: ...
    @property
    def lag(self) -> float: ...


class LeavingView(Protocol):
    """A drain: its `order` is None while there is none; who is under way."""

    @property
    def order(self) -> Any: ...
    @property
    def in_flight(self) -> int: ...


class Source(Protocol):
    """What is scraped; `leaving`, a `LeavingView`, too if it is there.

    The mappings are read from another thread: they must bear being changed meanwhile (a copy).
    """

    @property
    def dependencies(self) -> Mapping[str, Any]: ...
    @property
    def features(self) -> Mapping[str, Any]: ...
    @property
    def admissions(self) -> Iterable[AdmissionView]: ...
    @property
    def checks(self) -> Mapping[str, Any]: ...
    @property
    def outbox(self) -> Outbox: ...


def gauges(
    dependencies: Iterable[tuple[str, DependencyView]],
    features: Iterable[tuple[str, FeatureView]],
    admissions: Iterable[AdmissionView] = (),
    checks: Iterable[tuple[str, CheckView]] = (),
    leaving: LeavingView | None = None,
) -> dict[Family, dict[Key, float]]:
    """The present state of dependencies, features and checks, each with the label values to export it under, of admission and a drain."""
    values: dict[Family, dict[Key, float]] = {family: {} for family in GAUGES}

    def put(family: Family, key: Key, value: float) -> None:
        series = values[family]
        if key in series:  # several beyond the cap share one label value
            value = MERGED[family.merge](series[key], value)
        series[key] = value

    for label, dependency in dependencies:
        _put_dependency(put, label, dependency)
    for label, feature in features:
        level = feature.level
        for word in LEVELS:
            put(FEATURE_LEVEL, (label, word), float(level == word))
    for label, check in checks:
        state = check.state
        for word in STATES:
            put(CHECK_STATE, (label, word), float(state == word))
    for admission in admissions:
        put(ADMITTED, (), admission.in_flight)
        put(ADMISSION_LIMIT, (), admission.limit)
        put(ADMISSION_QUEUED, (), admission.queued)
        put(STREAMS, (), admission.streams)
        put(LOOP_LAG, (), admission.lag)
    if leaving is not None:
        drains = leaving.order is not None
        put(DRAINING, (), float(drains))
        put(DRAIN_IN_FLIGHT, (), leaving.in_flight if drains else 0)
    return values


def _put_dependency(put: Callable[[Family, Key, float], None], label: str, dependency: DependencyView) -> None:
    breaker, bulkhead, budget = dependency.breaker, dependency.bulkhead, dependency.budget
    cache = _cache(dependency)
    shared = getattr(dependency, "variant_of", None)
    if shared is not None:  # what a variant shares is one thing, and told of once
        breaker = None if breaker is shared.breaker else breaker
        bulkhead = None if bulkhead is shared.bulkhead else bulkhead
        budget = None if budget is shared.budget else budget
        cache = None if cache is _cache(shared) else cache
    if breaker is not None:
        state = breaker.current_state
        for word in BREAKER_STATES:
            put(BREAKER_STATE, (label, word), float(state == word))
    if bulkhead is not None:
        put(IN_USE, (label,), bulkhead.in_use)
        put(LIMIT, (label,), bulkhead.limit)
        put(QUEUED, (label,), bulkhead.queued)
    if budget is not None:
        put(BUDGET, (label,), budget.remaining_ratio())
    if cache is not None:
        # What a store of the program's own does not tell is not shown.
        for family, attribute in ((CACHE_BYTES, "size"), (CACHE_ENTRIES, "count"), (STORE_UP, "up")):
            value = getattr(cache.store, attribute, None)
            if value is not None:
                put(family, (label,), float(value))


def _cache(dependency: Any) -> CacheView | None:
    """Its cache of HTTP answers, or of what functions return."""
    cache: CacheView | None = dependency.cache
    return getattr(dependency, "cached", None) if cache is None else cache
