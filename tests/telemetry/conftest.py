"""Stand-ins for the parts of a `Resilience` that metrics read, and metrics of several workers in this one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import values
from prometheus_client.mmap_dict import MmapedDict
from prometheus_client.openmetrics.parser import text_string_to_metric_families

from resilient.outbox import Outbox
from resilient.stats import CallStats
from resilient.telemetry import multiprocess
from resilient.telemetry.prometheus import Metrics

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


class Parts:
    """Makes what a `Resilience` would."""

    @staticmethod
    def dependency(name: str, *, state: str | None = "closed") -> Any:
        return SimpleNamespace(
            name=name,
            stats=CallStats(),
            breaker=None if state is None else SimpleNamespace(current_state=state),
            bulkhead=SimpleNamespace(in_use=0, limit=100, queued=0),
            budget=SimpleNamespace(remaining_ratio=lambda: 1.0),
            cache=SimpleNamespace(store=SimpleNamespace(size=3000, count=2, up=True)),
        )

    @staticmethod
    def feature(name: str, level: str = "full") -> Any:
        return SimpleNamespace(name=name, level=level)

    @staticmethod
    def check(name: str, state: str = "well") -> Any:
        return SimpleNamespace(name=name, state=state)

    @staticmethod
    def source(*dependencies: Any, features: tuple[Any, ...] = (), checks: tuple[Any, ...] = ()) -> Any:
        return SimpleNamespace(
            dependencies={dependency.name: dependency for dependency in dependencies},
            features={feature.name: feature for feature in features},
            admissions=[SimpleNamespace(in_flight=3, limit=500, queued=1, streams=2, lag=0.25)],
            checks={check.name: check for check in checks},
            leaving=SimpleNamespace(order="now", in_flight=7),
            outbox=Outbox(),
        )


@pytest.fixture
def parts() -> Parts:
    return Parts()


@pytest.fixture
def samples() -> Callable[[Metrics], Samples]:
    """Reads a page strictly: name and labels -> value."""

    def read(metrics: Metrics) -> Samples:
        body, _ = metrics.render("application/openmetrics-text; version=1.0.0")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(body.decode())
            for sample in family.samples
        }

    return read


@pytest.fixture
def worker_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """PROMETHEUS_MULTIPROC_DIR as if it had been set before this process started."""
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    opened: list[MmapedDict] = []

    class Recorded(MmapedDict):
        def __init__(self, filename: str) -> None:
            super().__init__(filename)  # type: ignore[no-untyped-call]
            opened.append(self)

    monkeypatch.setattr(values, "MmapedDict", Recorded)
    monkeypatch.setattr(values, "ValueClass", values.MultiProcessValue())  # type: ignore[no-untyped-call]
    multiprocess._parents.cache_clear()
    yield tmp_path
    multiprocess._parents.cache_clear()
    for file in opened:
        file.close()  # type: ignore[no-untyped-call]
