"""Metrics of one worker among several: prometheus_client's memory-mapped values, one file a process.

Counters and histograms are written as things happen. One-hot states (breaker, feature) are written when
they change, the other gauges (bulkhead, budget) and the listener counters when this very worker is scraped: a scrape
that another worker answers shows them as of then.
"""

from __future__ import annotations

import functools
import os
import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, cast

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, values
from prometheus_client.core import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from ..stats import EXPORTED_BOUNDS, OUTCOMES
from .families import (
    ALL,
    CALLS,
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
from .source import AdmissionView, CheckView, DependencyView, FeatureView, LeavingView, Source, gauges
from .workers import identify, sweep_dead

__all__ = ["BoundChildren"]


@functools.cache
def _parents() -> dict[Family, Counter | Gauge | Histogram]:
    # Once a process, as the files are: a second value for a series would write over what the first has counted.
    return {family: _parent(family) for family in ALL}


def _parent(family: Family) -> Counter | Gauge | Histogram:
    if family.kind == "counter":
        return Counter(family.name, family.help, family.labels, registry=None)
    if family.kind == "histogram":
        return Histogram(family.name, family.help, family.labels, registry=None, buckets=EXPORTED_BOUNDS)
    mode = cast("Literal['livesum', 'livemin', 'livemax']", family.merge)
    return Gauge(family.name, family.help, family.labels, registry=None, multiprocess_mode=mode)


class BoundChildren:
    """Writes into the children of prometheus_client's metrics, each looked up once.

    Args:
        source: what is read.
        labels: which label values are admitted. None is given back: a series stays in the file until the process ends.
        directory: PROMETHEUS_MULTIPROC_DIR.

    Raises:
        ValueError: `directory` is none.
        RuntimeError: prometheus_client was imported before the variable was set, and counts for one process.
    """

    def __init__(self, source: Source, labels: LabelCap, directory: Path) -> None:
        if not directory.is_dir():
            raise ValueError(f"PROMETHEUS_MULTIPROC_DIR: {str(directory)!r} is not a directory")
        if not getattr(values.ValueClass, "_multiprocess", True):
            raise RuntimeError("PROMETHEUS_MULTIPROC_DIR was set after prometheus_client was imported; set it before the program starts")
        self._source = source
        self._labels = labels
        self._directory = directory
        # Re-entrant: garbage collection may run in the middle, and a finalizer may have an event to tell.
        self._binding = threading.RLock()
        self._stating = threading.RLock()
        self._refreshing = threading.RLock()
        self._children: dict[tuple[Family, Key], Any] = {}
        self._series = dict.fromkeys(ALL, 0)
        self._shown: dict[Family, set[Key]] = {family: set() for family in GAUGES}
        self._told = {LISTENER_ERRORS: 0, EVENTS_DROPPED: 0}
        self._begin()

    def _begin(self) -> None:
        """Be a worker, with files of its own. The child of a fork begins anew."""
        self._pid = os.getpid()
        identify(self._directory)
        for side in SIDES:
            self._child(DEADLINES, (side,))
        for family in self._told:
            self._child(family, ())
        self._refresh()

    # -- as things happen -----------------------------------------------------------------------------------------

    def count(self, family: Family, key: Key, seconds: float | None = None) -> None:
        """One more event; of a request also how long it took."""
        if self._pid != os.getpid():
            self._begin()
        self._child(family, key).inc()
        if seconds is not None:
            self._child(REQUEST_DURATIONS, key[:1]).observe(seconds)

    def totals(self, families: Collection[Family]) -> dict[Family, dict[Key, float]]:
        """What this worker alone has counted of some families, those of events and requests."""
        found: dict[Family, dict[Key, float]] = {family: {} for family in families}
        for (family, key), child in list(self._children.items()):
            if family in found:
                found[family][key] = child._value.get()
        return found

    def moved(self, family: Family, words: Key, who: str, to: str) -> None:
        """A state has changed."""
        # What `other` stands for is a sum over several, which one of them does not know.
        if self._labels.admit(family.labels[0], who) != OTHER:
            with self._stating:
                self._show(family, {(who, word): float(word == to) for word in words})

    def watch(self, dependency: DependencyView) -> None:
        """Count the calls of a dependency from now on, and show its state."""
        label = self._labels.admit("dependency", dependency.name)
        dependency.stats.on_record = self._recorder(label)
        if label != OTHER:
            self._show_states([(label, dependency)], [])

    def _recorder(self, label: str) -> Callable[[str, float | None], None]:
        by_outcome = {outcome: self._child(CALLS, (label, outcome)) for outcome in OUTCOMES}
        observe = self._child(DURATIONS, (label,)).observe

        def record(outcome: str, seconds: float | None) -> None:
            if self._pid != os.getpid():
                self._begin()
            (by_outcome.get(outcome) or self._child(CALLS, (label, outcome))).inc()
            if seconds is not None:
                observe(seconds)

        return record

    def _child(self, family: Family, key: Key) -> Any:
        child = self._children.get((family, key))
        if child is None:
            with self._binding:
                # Gauges are bounded by their labels; what is beyond the cap of one is summed before it comes here.
                key = self._labels.admit_key(family, key, 0 if family.kind == "gauge" else self._series[family])
                child = self._children.get((family, key))
                if child is None:
                    parent = _parents()[family]
                    child = self._children[family, key] = parent.labels(*key) if key else parent
                    self._series[family] += 1
        return child

    # -- at a scrape of this worker -------------------------------------------------------------------------------

    def page(self, registry: CollectorRegistry) -> CollectorRegistry:
        """What to encode: the files of all workers, this one's brought up to date and the dead ones' gauges removed."""
        if self._pid != os.getpid():
            self._begin()
        self._refresh()
        sweep_dead(self._directory)
        files = CollectorRegistry()
        MultiProcessCollector(files, path=str(self._directory))  # type: ignore[no-untyped-call]
        return files

    def _refresh(self) -> None:
        with self._refreshing:
            before = {family: shown.copy() for family, shown in self._shown.items()}
            present = self._show_present()
            for family, shown in before.items():
                # Nothing of a series can be taken out of a file; this is what adds nothing to the other workers'.
                gone = shown - present[family]
                self._show(family, dict.fromkeys(gone, 1.0 if family.merge == "livemin" else 0.0))
                self._shown[family] -= gone
            outbox = self._source.outbox
            for family, total in ((LISTENER_ERRORS, outbox.listener_errors), (EVENTS_DROPPED, outbox.dropped)):
                self._child(family, ()).inc(total - self._told[family])
                self._told[family] = total

    def _show_present(self) -> dict[Family, set[Key]]:
        """Write the state of all there is. Returns the series written."""
        present: dict[Family, set[Key]] = {family: set() for family in GAUGES}
        dependencies: list[DependencyView] = list(self._source.dependencies.values())
        named = [(self._labels.admit("dependency", dependency.name), dependency) for dependency in dependencies]
        features = [(self._labels.admit("feature", feature.name), feature) for feature in self._source.features.values()]
        for dependency in dependencies:
            if dependency.stats.on_record is None:
                self.watch(dependency)
        # One at a time, so that an event loop with a change to tell never waits for all of them.
        parts: list[tuple[list[tuple[str, DependencyView]], list[tuple[str, FeatureView]]]] = [
            *(([pair], []) for pair in named if pair[0] != OTHER),
            *(([], [pair]) for pair in features if pair[0] != OTHER),
            ([pair for pair in named if pair[0] == OTHER], [pair for pair in features if pair[0] == OTHER]),
        ]
        for part in parts:
            for family, keys in self._show_states(*part).items():
                present[family].update(keys)
        checks = [(self._labels.admit("check", check.name), check) for check in self._source.checks.values()]
        leaving = getattr(self._source, "leaving", None)
        for family, keys in self._show_states([], [], list(self._source.admissions), checks, leaving).items():
            present[family].update(keys)
        return present

    def _show_states(
        self,
        dependencies: list[tuple[str, DependencyView]],
        features: list[tuple[str, FeatureView]],
        admissions: Iterable[AdmissionView] = (),
        checks: Iterable[tuple[str, CheckView]] = (),
        leaving: LeavingView | None = None,
    ) -> dict[Family, dict[Key, float]]:
        # Reading and writing are one step, or a change between the two would be written over by what was before it.
        with self._stating:
            states = gauges(dependencies, features, admissions, checks, leaving)
            for family, series in states.items():
                self._show(family, series)
        return states

    def _show(self, family: Family, series: dict[Key, float]) -> None:
        for key, value in series.items():
            self._child(family, key).set(value)
        self._shown[family].update(series)

    # -- what prometheus_client calls, for a registry that shows this worker alone ----------------------------------

    def describe(self) -> list[Metric]:
        """Names and types without a sample, so that registering reads nothing."""
        return describe()

    def collect(self) -> Iterator[Metric]:
        """What this worker has written, brought up to date."""
        if self._pid != os.getpid():
            self._begin()
        self._refresh()
        for parent in _parents().values():
            yield from parent.collect()
