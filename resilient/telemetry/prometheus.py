"""Metrics: counts events, reads the rest at a scrape, and renders the page for /metrics."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Mapping
from pathlib import Path

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from ..events import Event
from .families import CHECKS, COUNTED, MOVED, REQUESTS, SHED, Family, Key
from .labels import LabelCap
from .multiprocess import BoundChildren
from .plain import PlainCollector
from .source import DependencyView, Source

__all__ = ["Metrics"]


class Metrics:
    """A listener that counts, and the page that tells.

    With `PROMETHEUS_MULTIPROC_DIR` in the environment (before the program starts) every worker writes to files in that
    directory, and a scrape of any of them tells of all: counters are summed, a gauge is summed over the workers alive
    (of the retry budget: the least). Without it the numbers are plain ones of this process.

    Args:
        source: what is read at a scrape; a `Resilience`.
        registry: a registry to be part of, so that the page shows its other metrics too. One of its own by default.
            With several workers the page is made from the directory, which holds the metrics of the whole program.
        limits: how many distinct values a label may have, by label name, e.g. `{"dependency": 200}`; later ones become
            `other`. By default 1000 dependencies, 1000 features, 1000 routes, 200 reasons, 200 causes, 50 of anything else.

    Raises:
        ValueError: `registry` has these metrics already, `limits` names no label or is below 1, or
            PROMETHEUS_MULTIPROC_DIR is not a directory.
        TypeError: `registry` is no registry, or a limit is not a whole number.
        RuntimeError: PROMETHEUS_MULTIPROC_DIR was set after prometheus_client was imported.
    """

    def __init__(self, source: Source, *, registry: CollectorRegistry | None = None, limits: Mapping[str, int] | None = None) -> None:
        if registry is not None and not isinstance(registry, CollectorRegistry):
            raise TypeError(f"registry: expected a prometheus_client.CollectorRegistry, got {registry!r}")
        self._registry = CollectorRegistry() if registry is None else registry
        directory = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
        labels = LabelCap(limits)
        self.on_request: Callable[[str, str, float], None] | None = None
        """Called with the route, the class of the status, and the seconds of each request that is over; None for nobody."""
        self._backend = BoundChildren(source, labels, Path(directory)) if directory else PlainCollector(source, labels)
        self._count = self._backend.count
        try:
            self._registry.register(self._backend)
        except ValueError as error:
            raise ValueError("registry: it has the metrics of another Resilience already; give each a registry of its own") from error

    def watch(self, dependency: DependencyView) -> None:
        """Count the calls of a dependency that was made just now. To be called once for each, before its first call."""
        self._backend.watch(dependency)

    def on_event(self, event: Event) -> None:
        """Count an event. Part of being a `Listener`."""
        counted = COUNTED.get(type(event))
        if counted is not None:
            family, key_of = counted
            self._backend.count(family, key_of(event))
        moved = MOVED.get(type(event))
        if moved is not None:
            family, words, move_of = moved
            self._backend.moved(family, words, *move_of(event))

    def count_request(self, route: str, method: str, status: str, seconds: float) -> None:
        """Count an inbound request that is over.

        Args:
            route: the template of the route that served it. What clients send must not get in here: 1000 of them are
                told apart.
            method: its method.
            status: the class of the answer's status, such as "2xx".
            seconds: how long it took.
        """
        self._count(REQUESTS, (route, method, status), seconds)
        if self.on_request is not None:
            self.on_request(route, status, seconds)

    def count_shed(self, criticality: str, reason: str) -> None:
        """Count an inbound request that was turned away. An overload makes many of them: it takes no event."""
        self._backend.count(SHED, (criticality, reason))

    def count_check(self, check: str, result: str) -> None:
        """Count an answer of a check of the service's health."""
        self._backend.count(CHECKS, (check, result))

    def totals(self, families: Collection[Family]) -> dict[Family, dict[Key, float]]:
        """What this process has counted of some families of counters, by their label values."""
        return self._backend.totals(families)

    def families(self) -> list[Metric]:
        """Every family of ours with its samples, of this process alone. It blocks for some milliseconds."""
        return list(self._backend.collect())

    def render(self, accept: str = "") -> tuple[bytes, str]:
        """The page. It blocks for some milliseconds: call it in a thread, not on an event loop.

        Args:
            accept: the request's `Accept` header; it chooses between the Prometheus text format and OpenMetrics.

        Returns:
            The body and its content type.
        """
        encode, content_type = _encoder(accept)
        return encode(self._backend.page(self._registry)), content_type

    def close(self) -> None:
        """Leave the registry. Nothing may be rendered afterwards."""
        self._registry.unregister(self._backend)


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):
        # It compares versions without looking whether they are numbers, and the header is the client's to write.
        return choose_encoder("")
