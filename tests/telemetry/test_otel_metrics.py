"""OpenTelemetry is given the numbers of /metrics, under the names of /metrics, once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from resilient import CircuitBreaker, Fallback, Resilience
from resilient.telemetry import labels
from resilient.telemetry.families import ALL
from resilient.telemetry.prometheus import Metrics

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, MetricReader

from resilient.telemetry.otel import OpenTelemetry
from resilient.telemetry.otel import instruments as module

Points = dict[tuple[str, tuple[tuple[str, str], ...]], float]
Read = Callable[[Metrics], Points]


@pytest.fixture
def provided() -> Iterator[Callable[..., MeterProvider]]:
    made: list[MeterProvider] = []

    def provide(*readers: MetricReader) -> MeterProvider:
        made.append(MeterProvider(metric_readers=readers))
        return made[-1]

    yield provide
    for provider in made:
        provider.shutdown()


def points(reader: InMemoryMetricReader) -> Points:
    data = reader.get_metrics_data()
    if data is None:
        return {}
    return {
        (metric.name, tuple(sorted((name, str(value)) for name, value in (point.attributes or {}).items()))): point.value  # type: ignore[union-attr]
        for resource in data.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
        for point in metric.data.data_points
    }


def used(**settings: Any) -> Resilience:
    resilience = Resilience(**settings)
    catalog = resilience.dependency("catalog", Fallback([]), CircuitBreaker(fail_max=1))
    resilience.dependency("reviews", cache=True, timeout=1.0)

    @resilience.feature("recommendations", fallback=[], on=ZeroDivisionError)
    def recommended() -> float:
        return 1 / 0

    for _ in range(3):
        catalog.call_sync(lambda: 1 / 0)
        recommended()
    catalog.call_sync(int)
    resilience.metrics.count_request("/product/{id}", "GET", "2xx", 0.02)
    resilience.metrics.count_shed("sheddable", "full")
    return resilience


def test_the_numbers_are_those_of_the_page(provided: Any, samples: Read) -> None:
    resilience, reader = used(), InMemoryMetricReader()
    OpenTelemetry(resilience, meter_provider=provided(reader), tracer_provider=None)
    told = points(reader)
    assert told == samples(resilience.metrics)
    assert told[("resilient_calls_total", (("dependency", "catalog"), ("outcome", "fallback")))] == 4
    assert told[("resilient_breaker_state", (("dependency", "catalog"), ("state", "open")))] == 1
    assert {name for name, _ in told} >= {"resilient_request_duration_seconds_bucket", "resilient_request_duration_seconds_sum"}


def test_each_collection_reads_anew_and_once(provided: Any, monkeypatch: pytest.MonkeyPatch, samples: Read) -> None:
    resilience, reader = used(), InMemoryMetricReader()
    OpenTelemetry(resilience, meter_provider=provided(reader))
    reads: list[int] = []
    families = resilience.metrics.families
    monkeypatch.setattr(resilience.metrics, "families", lambda: reads.append(1) or families())
    for expected in (1, 2, 3):
        assert points(reader) == samples(resilience.metrics)
        assert len(reads) == expected
        resilience.dependencies["catalog"].call_sync(int)  # nothing is added up twice


def test_several_readers_see_the_same(provided: Any, samples: Read) -> None:
    resilience = used()
    readers = InMemoryMetricReader(), InMemoryMetricReader()
    OpenTelemetry(resilience, meter_provider=provided(*readers))
    said = samples(resilience.metrics)
    assert [points(reader) for reader in (*readers, *readers)] == [said] * 4


def test_several_threads_may_collect(provided: Any, samples: Read) -> None:
    resilience = used()
    readers = [InMemoryMetricReader() for _ in range(4)]
    OpenTelemetry(resilience, meter_provider=provided(*readers))
    found: list[Points] = []
    threads = [threading.Thread(target=lambda reader=reader: found.append(points(reader))) for reader in readers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [samples(resilience.metrics)] * 4


def test_what_was_read_long_ago_is_not_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader with views may ask for some of the names only; what it left is not for a later one."""
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    resilience, observers = used(), {}

    class Meter:
        def __getattr__(self, name: str) -> Any:
            return lambda instrument, callbacks, **described: observers.update({instrument: callbacks[0]})

    instruments = module.Instruments(Meter(), resilience.metrics, {"part": "search"})  # type: ignore[arg-type]

    def told(name: str) -> float:
        return sum(point.value for point in observers[name](None) if "fallback" in point.attributes.values())

    assert told("resilient_bulkhead_limit") == 0 and told("resilient_calls_total") == 4
    resilience.dependencies["catalog"].call_sync(int)
    assert told("resilient_calls_total") == 5  # it had been given out: another collection
    resilience.dependencies["catalog"].call_sync(int)
    assert sum(point.value for point in observers["resilient_call_duration_seconds_count"](None)) >= 0  # of the same one
    now[0] = 1.5
    assert told("resilient_degraded_responses_total") == 0
    assert told("resilient_calls_total") == 6
    assert all(point.attributes["part"] == "search" for point in observers["resilient_breaker_state"](None))
    instruments.closed = True
    assert list(observers["resilient_breaker_state"](None)) == []


def test_labels_are_bounded_as_on_the_page(provided: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(labels.CAPS, "route", 10)
    resilience, reader = Resilience(), InMemoryMetricReader()
    OpenTelemetry(resilience, meter_provider=provided(reader))
    for number in range(12):
        resilience.metrics.count_request(f"/{number}", "GET", "2xx", 0.01)
    routes = {dict(attributes)["route"] for name, attributes in points(reader) if name == "resilient_requests_total"}
    assert len(routes) == 11 and "other" in routes


def test_of_several_workers_each_tells_of_itself(worker_files: Path, provided: Any) -> None:
    resilience, reader = used(), InMemoryMetricReader()
    OpenTelemetry(resilience, meter_provider=provided(reader))
    resilience.dependency("orders").breaker.open()  # type: ignore[union-attr]
    told = points(reader)
    assert told[("resilient_calls_total", (("dependency", "catalog"), ("outcome", "fallback")))] == 4
    assert told[("resilient_bulkhead_limit", (("dependency", "orders"),))] > 0
    assert told[("resilient_breaker_state", (("dependency", "orders"), ("state", "open")))] == 1


def test_closed_it_tells_nothing(provided: Any) -> None:
    resilience, reader = used(), InMemoryMetricReader()
    telemetry = OpenTelemetry(resilience, meter_provider=provided(reader))
    telemetry.close()
    assert points(reader) == {}


def test_an_exporter_to_prometheus_has_the_names_of_the_page(provided: Any) -> None:
    """Dashboards and alerts need not know which way the numbers have come."""
    exporter = pytest.importorskip("opentelemetry.exporter.prometheus", reason="needs opentelemetry-exporter-prometheus")
    import prometheus_client

    registry = prometheus_client.CollectorRegistry()
    resilience = used()
    OpenTelemetry(resilience, meter_provider=provided(exporter.PrometheusMetricReader(registry=registry)))
    exported = {sample.name for family in registry.collect() for sample in family.samples if sample.name.startswith("resilient_")}
    page = {sample.name for family in resilience.metrics.families() for sample in family.samples if not sample.name.endswith("_created")}
    assert exported == page
    assert {family.name for family in ALL if family.kind != "histogram"} & page <= exported
