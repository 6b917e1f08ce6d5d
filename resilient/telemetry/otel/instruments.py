"""The metrics of /metrics as OpenTelemetry's observable instruments: the same names, read from the same numbers."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from opentelemetry.metrics import CallbackOptions, Meter, Observation

from ..families import ALL, Family
from ..prometheus import Metrics

__all__ = ["Instruments"]

FRESH = 1.0  # seconds for which what was read for one collection may be used by it
UNITS = {"_seconds": "s", "_bytes": "By"}
HISTOGRAM = ("_bucket", "_sum", "_count")


class Instruments:
    """One observable instrument for each series of names on /metrics.

    Counters are observable counters, gauges observable gauges. There is no observable histogram, and to record each call
    would cost more than the call: its buckets, sum and count are three instruments named as on the page, whose values may
    be asked the same questions. They are up-down counters, to whose names no exporter adds `_total`.

    Args:
        meter: makes them.
        metrics: what they read.
        attributes: put on every point, for those who have several `Resilience` in one process.
    """

    def __init__(self, meter: Meter, metrics: Metrics, attributes: Mapping[str, Any]) -> None:
        self._metrics = metrics
        self._attributes = dict(attributes)
        self._names = tuple(name for family in ALL for name in _names(family))
        self._lock = threading.RLock()  # to read a feature's level may tell listeners of a change, and these may be anybody
        self._left: dict[str, list[Any]] = {}
        self._read_at = 0.0
        self.closed = False
        for family in ALL:
            self._make(meter, family)

    def _make(self, meter: Meter, family: Family) -> None:
        unit = next((unit for ending, unit in UNITS.items() if family.name.endswith(ending)), "")
        make: dict[str, Callable[..., object]] = {
            "counter": meter.create_observable_counter,
            "gauge": meter.create_observable_gauge,
            "histogram": meter.create_observable_up_down_counter,
        }
        for name in _names(family):
            # Of a histogram only the sum is in seconds, and an exporter would add the unit to a name that does not end with it.
            make[family.kind](name, [self._observer(name)], unit="" if family.kind == "histogram" else unit, description=family.help)

    def _observer(self, name: str) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for sample in [] if self.closed else self._take(name):
                yield Observation(sample.value, {**sample.labels, **self._attributes})

        return observe

    def _take(self, name: str) -> list[Any]:
        """The samples of one name.

        A collection asks for one name after another, and each once: what was read for the first serves the others, and a
        name that was given out already begins another collection.
        """
        with self._lock:
            now = time.monotonic()
            if name not in self._left or now - self._read_at > FRESH:
                self._left = {known: [] for known in self._names}
                for metric in self._metrics.families():
                    for sample in metric.samples:
                        if sample.name in self._left:  # and not the time that a counter was made
                            self._left[sample.name].append(sample)
                self._read_at = now
            return self._left.pop(name)


def _names(family: Family) -> tuple[str, ...]:
    return tuple(family.name + ending for ending in HISTOGRAM) if family.kind == "histogram" else (family.name,)
