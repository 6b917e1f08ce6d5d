"""Metrics of a single process: plain numbers, turned into samples when somebody scrapes."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.utils import floatToGoString

from ..stats import EXPORTED_BOUNDS, CallSnapshot, CallStats
from .families import (
    CALLS,
    COUNTERS,
    DEADLINES,
    DURATIONS,
    EVENTS_DROPPED,
    GAUGES,
    LISTENER_ERRORS,
    REQUEST_DURATIONS,
    SIDES,
    Family,
    Key,
    describe,
)
from .labels import OTHER, LabelCap
from .source import DependencyView, Source, gauges

__all__ = ["PlainCollector"]

EVENT_COUNTERS = tuple(family for family in COUNTERS if family.labels and family is not CALLS)
EDGES = [*map(floatToGoString, EXPORTED_BOUNDS), "+Inf"]
BATCH = 64  # events that may wait to be counted
NOTHING = CallSnapshot({}, [0] * len(EDGES), 0.0)


@dataclass(slots=True)
class _Entry:
    label: str
    stats: CallStats
    before: CallSnapshot = NOTHING

    def total(self) -> CallSnapshot:
        now = self.stats.snapshot()
        return now if self.before is NOTHING else self.before + now


class Ledger:
    """Call totals by label value, which never fall for a label that stays.

    A dependency that was forgotten and made anew between two scrapes starts with new numbers: what the old ones had
    come to is kept. One that is gone at a scrape takes its label with it, unless that is `other`, which keeps its calls.
    """

    def __init__(self, labels: LabelCap) -> None:
        self._labels = labels
        self._entries: dict[str, _Entry] = {}
        self._gone = NOTHING  # calls of dependencies that were counted under `other` and exist no more

    def update(self, dependencies: list[DependencyView]) -> tuple[list[tuple[str, DependencyView]], dict[str, CallSnapshot]]:
        """Takes what exists now. Returns it with its labels, and the totals by label."""
        self._retire({dependency.name for dependency in dependencies})
        labelled: list[tuple[str, DependencyView]] = []
        totals: dict[str, CallSnapshot] = {}
        for dependency in dependencies:
            name, stats = dependency.name, dependency.stats
            entry = self._entries.get(name)
            if entry is None:
                entry = self._entries[name] = _Entry(self._labels.admit("dependency", name), stats)
            elif entry.stats is not stats:
                entry.before, entry.stats = entry.total(), stats
            labelled.append((entry.label, dependency))
            total = entry.total()
            totals[entry.label] = totals[entry.label] + total if entry.label in totals else total
        if self._gone.counts:
            totals[OTHER] = totals.get(OTHER, NOTHING) + self._gone
        return labelled, totals

    def _retire(self, here: set[str]) -> None:
        for name in self._entries.keys() - here:
            entry = self._entries.pop(name)
            if entry.label == OTHER:
                self._gone = self._gone + entry.total()
            else:
                self._labels.free("dependency", entry.label)


class _Durations:
    """What is asked of a route: a histogram and no estimate, so that it takes a small part of the memory of `CallStats`."""

    __slots__ = ("buckets", "seconds")

    def __init__(self) -> None:
        self.buckets = [0] * len(EDGES)
        self.seconds = 0.0

    def snapshot(self) -> CallSnapshot:
        return CallSnapshot({}, list(accumulate(self.buckets)), self.seconds)


class PlainCollector:
    """Counts events, and reads the rest at a scrape.

    Args:
        source: what is read.
        labels: which label values are admitted.
    """

    def __init__(self, source: Source, labels: LabelCap) -> None:
        self._source = source
        self._labels = labels
        self._ledger = Ledger(labels)
        self._scraping = threading.Lock()
        # Re-entrant: garbage collection may run in the middle of a fold, and a finalizer may have an event to tell.
        self._counting = threading.RLock()
        self._folding = False
        self._pending: deque[tuple[Family, Key, float | None]] = deque()
        self._counts: dict[Family, dict[Key, int]] = {family: {} for family in EVENT_COUNTERS}
        self._by_route: dict[str, _Durations] = {}
        for side in SIDES:
            self._counts[DEADLINES][labels.admit_key(DEADLINES, (side,), 0)] = 0

    def count(self, family: Family, key: Key, seconds: float | None = None) -> None:
        """One more event; of a request also how long it took.

        An append to a queue, as in `CallStats`: an open circuit rejects at a high rate, and every request comes here.
        """
        pending = self._pending
        pending.append((family, key, seconds))
        if len(pending) >= BATCH:
            with self._counting:
                self._fold()

    def _fold(self) -> None:
        """Move what is pending into the counts. The lock is held."""
        if self._folding:  # by an outer frame of this very thread, which will take the new ones too
            return
        self._folding = True
        pending, counts, by_route = self._pending, self._counts, self._by_route
        try:
            while pending:
                family, key, seconds = pending.popleft()
                if seconds is not None:
                    durations = by_route.get(key[0]) or self._durations_of(key[0])
                    durations.buckets[bisect_left(EXPORTED_BOUNDS, seconds)] += 1
                    durations.seconds += seconds
                series = counts[family]
                if key in series:
                    series[key] += 1
                else:
                    key = self._labels.admit_key(family, key, len(series))
                    series[key] = series.get(key, 0) + 1
        finally:
            self._folding = False

    def _durations_of(self, route: str) -> _Durations:
        return self._by_route.setdefault(self._labels.admit("route", route), _Durations())

    def totals(self, families: Collection[Family]) -> dict[Family, dict[Key, float]]:
        """What was counted of some families, those of events and requests."""
        with self._counting:
            self._fold()
            return {family: dict[Key, float](self._counts[family]) for family in families}

    def moved(self, family: Family, words: Key, who: str, to: str) -> None:
        """States are read at the scrape."""

    def watch(self, dependency: DependencyView) -> None:
        """Dependencies are found at the scrape."""

    def page(self, registry: CollectorRegistry) -> CollectorRegistry:
        """What to encode at a scrape."""
        return registry

    # -- what prometheus_client calls -----------------------------------------------------------------------------

    def describe(self) -> list[Metric]:
        """Names and types without a sample, so that registering reads nothing."""
        return describe()

    def collect(self) -> Iterator[Metric]:
        """All samples of this moment."""
        source = self._source
        dependencies = list(source.dependencies.values())
        with self._scraping:
            labelled, calls = self._ledger.update(dependencies)
        features = [(self._labels.admit("feature", feature.name), feature) for feature in source.features.values()]
        # A feature may have news to tell listeners when its level is looked at, so that counts come after states.
        checks = [(self._labels.admit("check", check.name), check) for check in source.checks.values()]
        states = gauges(labelled, features, list(source.admissions), checks, getattr(source, "leaving", None))
        with self._counting:
            self._fold()
            self._forget()
            counts = {family: series.copy() for family, series in self._counts.items()}
            requests = {route: durations.snapshot() for route, durations in self._by_route.items()}
        yield _counted_calls(calls)
        yield _histogram(DURATIONS, calls)
        yield _histogram(REQUEST_DURATIONS, requests)
        for family in (*EVENT_COUNTERS, *GAUGES):
            metric = _empty(family)
            for key, value in (counts[family] if family in counts else states[family]).items():
                metric.add_metric(key, value)
            yield metric
        for family, value in ((LISTENER_ERRORS, source.outbox.listener_errors), (EVENTS_DROPPED, source.outbox.dropped)):
            metric = _empty(family)
            metric.add_metric((), value)
            yield metric

    def _forget(self) -> None:
        """Drop the series of dependencies that are gone, and give their label values back."""
        # Read anew: one made since the ledger was updated may have been counted by now.
        here = {dependency.name for dependency in list(self._source.dependencies.values())} | {"", OTHER}
        gone: set[str] = set()
        for family, series in self._counts.items():
            if family.labels[0] == "dependency":
                for key in [key for key in series if key[0] not in here]:
                    del series[key]
                    gone.add(key[0])
        for label in gone:
            self._labels.free("dependency", label)


def _empty(family: Family) -> CounterMetricFamily | GaugeMetricFamily:
    kind = CounterMetricFamily if family.kind == "counter" else GaugeMetricFamily
    return kind(family.name, family.help, labels=family.labels)


def _counted_calls(calls: dict[str, CallSnapshot]) -> Metric:
    metric = _empty(CALLS)
    for label, snapshot in calls.items():
        for outcome, count in snapshot.counts.items():
            metric.add_metric((label, outcome), count)
    return metric


def _histogram(family: Family, snapshots: dict[str, CallSnapshot]) -> Metric:
    metric = HistogramMetricFamily(family.name, family.help, labels=family.labels)
    for label, snapshot in snapshots.items():
        metric.add_metric((label,), list(zip(EDGES, snapshot.buckets, strict=True)), snapshot.seconds)
    return metric
