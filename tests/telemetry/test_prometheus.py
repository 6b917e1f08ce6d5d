"""The page of a single process."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Counter
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families as parse_text

from resilient.core.degradation import Level
from resilient.events import (
    CacheUsed,
    CallRejected,
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
from resilient.telemetry import labels as caps
from resilient.telemetry.plain import BATCH
from resilient.telemetry.prometheus import Metrics

Read = Callable[[Metrics], dict[tuple[str, tuple[tuple[str, str], ...]], float]]

OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"

NAMES = {
    "resilient_calls": ("counter", {"dependency", "outcome"}),
    "resilient_call_duration_seconds": ("histogram", {"dependency", "le"}),
    "resilient_requests": ("counter", {"route", "method", "status"}),
    "resilient_request_duration_seconds": ("histogram", {"route", "le"}),
    "resilient_rejections": ("counter", {"dependency", "policy", "reason"}),
    "resilient_retries": ("counter", {"dependency", "result"}),
    "resilient_hedges": ("counter", {"dependency", "result"}),
    "resilient_failovers": ("counter", {"dependency", "target", "cause"}),
    "resilient_breaker_state": ("gauge", {"dependency", "state"}),
    "resilient_breaker_transitions": ("counter", {"dependency", "from", "to", "reason"}),
    "resilient_bulkhead_in_use": ("gauge", {"dependency"}),
    "resilient_bulkhead_limit": ("gauge", {"dependency"}),
    "resilient_bulkhead_queued": ("gauge", {"dependency"}),
    "resilient_budget_remaining_ratio": ("gauge", {"dependency"}),
    "resilient_feature_level": ("gauge", {"feature", "level"}),
    "resilient_degraded_responses": ("counter", {"feature", "level", "cause"}),
    "resilient_fallback_failures": ("counter", {"feature", "level", "cause"}),
    "resilient_deadline_exceeded": ("counter", {"side"}),
    "resilient_clients_gone": ("counter", {"result"}),
    "resilient_cache_requests": ("counter", {"dependency", "result"}),
    "resilient_cache_bytes": ("gauge", {"dependency"}),
    "resilient_cache_entries": ("gauge", {"dependency"}),
    "resilient_store_up": ("gauge", {"dependency"}),
    "resilient_requests_shed": ("counter", {"criticality", "reason"}),
    "resilient_admission_in_flight": ("gauge", set()),
    "resilient_admission_limit": ("gauge", set()),
    "resilient_admission_queued": ("gauge", set()),
    "resilient_admission_streams": ("gauge", set()),
    "resilient_loop_lag_seconds": ("gauge", set()),
    "resilient_check_state": ("gauge", {"check", "state"}),
    "resilient_checks": ("counter", {"check", "result"}),
    "resilient_draining": ("gauge", set()),
    "resilient_drain_in_flight": ("gauge", set()),
    "resilient_drain_hooks_failed": ("counter", {"cause"}),
    "resilient_faults_injected": ("counter", {"dependency", "kind"}),
    "resilient_abandoned_responses": ("counter", {"dependency"}),
    "resilient_listener_errors": ("counter", set()),
    "resilient_events_dropped": ("counter", set()),
}

EVENTS: list[tuple[Event, str, dict[str, str]]] = [
    (
        CallRejected(at=1.0, dependency="catalog", policy="breaker", reason="outage"),
        "resilient_rejections_total",
        {"dependency": "catalog", "policy": "breaker", "reason": "outage"},
    ),
    (
        CallRejected(at=1.0, dependency="catalog", policy="bulkhead", reason="full", enforced=False),
        "resilient_rejections_total",
        {"dependency": "catalog", "policy": "bulkhead", "reason": "shadow_full"},
    ),
    (
        RetryDecided(at=1.0, dependency="catalog", result="budget", attempt=1),
        "resilient_retries_total",
        {"dependency": "catalog", "result": "budget"},
    ),
    (
        HedgeDecided(at=1.0, dependency="catalog", result="won", delay=0.1),
        "resilient_hedges_total",
        {"dependency": "catalog", "result": "won"},
    ),
    (
        FailedOver(at=1.0, dependency="catalog", target="eu", to="us", cause="circuit_open"),
        "resilient_failovers_total",
        {"dependency": "catalog", "target": "eu", "cause": "circuit_open"},
    ),
    (
        CircuitChanged(at=1.0, dependency="catalog", old="closed", new="open", reason="outage"),
        "resilient_breaker_transitions_total",
        {"dependency": "catalog", "from": "closed", "to": "open", "reason": "outage"},
    ),
    (
        FeatureDegraded(at=1.0, dependency="catalog", feature="prices", level=Level.STATIC, cause="outage"),
        "resilient_degraded_responses_total",
        {"feature": "prices", "level": "static", "cause": "outage"},
    ),
    (
        FallbackServed(at=1.0, dependency="catalog", level="static", cause="timeout"),
        "resilient_degraded_responses_total",
        {"feature": "catalog", "level": "static", "cause": "timeout"},
    ),
    (
        FallbackFailed(at=1.0, dependency="catalog", feature="prices", step=0, level="reduced", cause="timeout"),
        "resilient_fallback_failures_total",
        {"feature": "prices", "level": "reduced", "cause": "timeout"},
    ),
    (DeadlinePassed(at=1.0, side="inbound", limit="inbound"), "resilient_deadline_exceeded_total", {"side": "inbound"}),
    (ClientGone(at=1.0), "resilient_clients_gone_total", {"result": "cancelled"}),
    (ClientGone(at=1.0, enforced=False), "resilient_clients_gone_total", {"result": "shadow_cancelled"}),
    (
        CacheUsed(at=1.0, dependency="catalog", result="hit"),
        "resilient_cache_requests_total",
        {"dependency": "catalog", "result": "hit"},
    ),
    (
        FaultInjected(at=1.0, dependency="catalog", kind="hang"),
        "resilient_faults_injected_total",
        {"dependency": "catalog", "kind": "hang"},
    ),
    (
        FaultInjected(at=1.0, dependency="catalog", kind="status", enforced=False),
        "resilient_faults_injected_total",
        {"dependency": "catalog", "kind": "shadow_status"},
    ),
    (ResponseAbandoned(at=1.0, dependency="catalog"), "resilient_abandoned_responses_total", {"dependency": "catalog"}),
    (DrainHookFailed(at=1.0, hook="checkpoint", cause="late"), "resilient_drain_hooks_failed_total", {"cause": "late"}),
]


def name(metric: str, **label_values: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return metric, tuple(sorted(label_values.items()))


def transitions(dependency: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name("resilient_breaker_transitions_total", **{"dependency": dependency, "from": "closed", "to": "open", "reason": "outage"})


def opened(dependency: str) -> CircuitChanged:
    return CircuitChanged(at=1.0, dependency=dependency, old="closed", new="open", reason="outage")


def all_events(metrics: Metrics) -> None:
    for event, _, _ in EVENTS:
        metrics.on_event(event)


@pytest.mark.parametrize(("accept", "parse"), [("", parse_text), (OPENMETRICS, parse_openmetrics)])
def test_names_types_and_labels_are_the_promised_ones(parts: Any, accept: str, parse: Any) -> None:
    catalog = parts.dependency("catalog")
    metrics = Metrics(parts.source(catalog, features=(parts.feature("prices"),), checks=(parts.check("disk"),)))
    catalog.stats.record("success", 0.02, 1.0)
    metrics.count_request("/orders/{order_id}", "GET", "2xx", 0.02)
    metrics.count_shed("sheddable", "standing")
    metrics.count_check("disk", "raised")
    all_events(metrics)
    body, content_type = metrics.render(accept)
    assert content_type.startswith("text/plain" if accept == "" else "application/openmetrics-text")
    families = {family.name: family for family in parse(body.decode())}
    found = {family.name: (family.type, {label for sample in family.samples for label in sample.labels}) for family in families.values()}
    assert found == NAMES
    for family in families.values():
        suffixes = {"counter": {"_total"}, "gauge": {""}, "histogram": {"_bucket", "_sum", "_count"}}[family.type]
        assert {sample.name.removeprefix(family.name) for sample in family.samples} == suffixes


def test_every_name_is_on_the_page_before_anything_has_happened(parts: Any) -> None:
    body, _ = Metrics(parts.source()).render(OPENMETRICS)
    assert {family.name for family in parse_openmetrics(body.decode())} == set(NAMES)


def test_states_and_zeros_are_there_from_the_start(parts: Any, samples: Read) -> None:
    page = samples(Metrics(parts.source(parts.dependency("catalog"), features=(parts.feature("prices"),))))
    for state in ("closed", "open", "half-open"):
        assert page[name("resilient_breaker_state", dependency="catalog", state=state)] == (state == "closed")
    for level in ("full", "reduced", "static", "off"):
        assert page[name("resilient_feature_level", feature="prices", level=level)] == (level == "full")
    for outcome in ("success", "failure", "ignored"):
        assert page[name("resilient_calls_total", dependency="catalog", outcome=outcome)] == 0
    for side in ("inbound", "outbound"):
        assert page[name("resilient_deadline_exceeded_total", side=side)] == 0
    assert page[name("resilient_call_duration_seconds_count", dependency="catalog")] == 0
    assert page[name("resilient_bulkhead_limit", dependency="catalog")] == 100
    assert page[name("resilient_budget_remaining_ratio", dependency="catalog")] == 1
    assert page[name("resilient_listener_errors_total")] == 0
    assert page[name("resilient_admission_in_flight")] == 3
    assert page[name("resilient_admission_limit")] == 500
    assert page[name("resilient_admission_queued")] == 1
    assert page[name("resilient_admission_streams")] == 2
    assert page[name("resilient_loop_lag_seconds")] == 0.25
    assert (page[name("resilient_draining")], page[name("resilient_drain_in_flight")]) == (1, 7)


def test_states_are_read_at_the_scrape(parts: Any, samples: Read) -> None:
    catalog, prices = parts.dependency("catalog"), parts.feature("prices")
    source = parts.source(catalog, features=(prices,))
    metrics = Metrics(source)
    catalog.breaker.current_state = "half-open"
    catalog.bulkhead.in_use, catalog.bulkhead.queued = 7, 3
    catalog.budget.remaining_ratio = lambda: 0.25
    prices.level = Level.STATIC
    source.outbox.listener_errors, source.outbox.dropped = 4, 5
    page = samples(metrics)
    assert page[name("resilient_breaker_state", dependency="catalog", state="half-open")] == 1
    assert page[name("resilient_breaker_state", dependency="catalog", state="closed")] == 0
    assert page[name("resilient_bulkhead_in_use", dependency="catalog")] == 7
    assert page[name("resilient_bulkhead_queued", dependency="catalog")] == 3
    assert page[name("resilient_budget_remaining_ratio", dependency="catalog")] == 0.25
    assert page[name("resilient_cache_bytes", dependency="catalog")] == 3000
    assert page[name("resilient_cache_entries", dependency="catalog")] == 2
    assert page[name("resilient_store_up", dependency="catalog")] == 1
    assert page[name("resilient_feature_level", feature="prices", level="static")] == 1
    assert page[name("resilient_feature_level", feature="prices", level="full")] == 0
    assert page[name("resilient_listener_errors_total")] == 4
    assert page[name("resilient_events_dropped_total")] == 5


def test_checks_are_read_at_the_scrape_and_counted(parts: Any, samples: Read) -> None:
    disk = parts.check("disk", "unknown")
    metrics = Metrics(parts.source(checks=(disk, parts.check("queue"))))
    metrics.count_check("disk", "raised")
    metrics.count_check("disk", "raised")
    disk.state = "ill"
    page = samples(metrics)
    for state in ("well", "ill", "unknown"):
        assert page[name("resilient_check_state", check="disk", state=state)] == (state == "ill")
        assert page[name("resilient_check_state", check="queue", state=state)] == (state == "well")
    assert page[name("resilient_checks_total", check="disk", result="raised")] == 2


def test_a_policy_that_is_not_there_has_no_series(parts: Any, samples: Read) -> None:
    bare = parts.dependency("bare", state=None)
    bare.bulkhead = bare.budget = bare.cache = None
    page = samples(Metrics(parts.source(bare)))
    assert {metric for metric, labels in page if ("dependency", "bare") in labels} == {
        "resilient_calls_total",
        "resilient_call_duration_seconds_bucket",
        "resilient_call_duration_seconds_count",
        "resilient_call_duration_seconds_sum",
    }


def test_calls_and_durations(parts: Any, samples: Read) -> None:
    catalog = parts.dependency("catalog")
    metrics = Metrics(parts.source(catalog))
    for seconds in (0.002, 0.03, 0.03, 70.0):
        catalog.stats.record("success", seconds, 1.0)
    catalog.stats.record("failure", 0.3, 1.0)
    catalog.stats.record("ignored", None, 1.0)
    catalog.stats.record("rejected", None, 1.0)
    page = samples(metrics)
    assert [
        page[name("resilient_calls_total", dependency="catalog", outcome=o)] for o in ("success", "failure", "ignored", "rejected")
    ] == [
        4,
        1,
        1,
        1,
    ]
    buckets = {
        le: page[name("resilient_call_duration_seconds_bucket", dependency="catalog", le=le)] for le in ("0.001", "0.05", "30.0", "+Inf")
    }
    assert buckets == {"0.001": 0, "0.05": 3, "30.0": 4, "+Inf": 5}
    assert page[name("resilient_call_duration_seconds_sum", dependency="catalog")] == pytest.approx(70.362)


@pytest.mark.parametrize(("event", "metric", "label_values"), EVENTS)
def test_each_event_is_one_more_of_its_counter(parts: Any, samples: Read, event: Event, metric: str, label_values: dict[str, str]) -> None:
    metrics = Metrics(parts.source(parts.dependency("catalog")))
    before = samples(metrics)
    metrics.on_event(event)
    metrics.on_event(event)
    page = samples(metrics)
    changed = {key: value - before.get(key, 0) for key, value in page.items() if value != before.get(key, 0)}
    assert changed == {name(metric, **label_values): 2}


def test_an_event_that_counts_nowhere_changes_nothing(parts: Any, samples: Read) -> None:
    metrics = Metrics(parts.source(parts.dependency("catalog")))
    before = samples(metrics)
    metrics.on_event(Event(at=1.0, dependency="catalog"))
    metrics.on_event(FeatureChanged(at=1.0, feature="prices", old="full", new="static", cause="outage"))
    assert samples(metrics) == before


# -- inbound requests -------------------------------------------------------------------------------------------------

ORDER = "/orders/{order_id}"


def requests(route: str, method: str, status: str) -> tuple[str, tuple[tuple[str, str], ...]]:
    return name("resilient_requests_total", route=route, method=method, status=status)


def test_requests_and_their_durations(parts: Any, samples: Read) -> None:
    metrics = Metrics(parts.source())
    for seconds in (0.001, 0.02, 0.02, 70.0):
        metrics.count_request(ORDER, "GET", "2xx", seconds)
    metrics.count_request(ORDER, "POST", "5xx", 0.3)
    metrics.count_request("unmatched", "GET", "4xx", 0.0)
    for _ in range(2):  # a second scrape adds nothing
        page = samples(metrics)
        assert {key: value for key, value in page.items() if key[0] == "resilient_requests_total"} == {
            requests(ORDER, "GET", "2xx"): 4,
            requests(ORDER, "POST", "5xx"): 1,
            requests("unmatched", "GET", "4xx"): 1,
        }
        bucket = "resilient_request_duration_seconds_bucket"
        assert [page[name(bucket, route=ORDER, le=le)] for le in ("0.001", "0.01", "0.025", "0.5", "30.0", "+Inf")] == [1, 1, 3, 4, 4, 5]
        assert page[name("resilient_request_duration_seconds_sum", route=ORDER)] == pytest.approx(70.341)
        assert page[name("resilient_request_duration_seconds_count", route="unmatched")] == 1


def test_requests_are_timed_in_the_buckets_that_calls_are(parts: Any, samples: Read) -> None:
    metrics = Metrics(parts.source(parts.dependency("catalog")))
    metrics.count_request(ORDER, "GET", "2xx", 0.02)
    page = samples(metrics)

    def bounds(metric: str) -> list[str]:
        return [dict(labels)["le"] for found, labels in page if found == f"{metric}_bucket"]

    assert bounds("resilient_request_duration_seconds") == bounds("resilient_call_duration_seconds")


@pytest.mark.slow
def test_ground_53_routes_beyond_the_cap_are_other(parts: Any, samples: Read) -> None:
    metrics = Metrics(parts.source())
    for turn in range(2):
        for index in range(1200):
            metrics.count_request(f"/r{index}", "GET", "2xx", 0.01 + turn)
    page = samples(metrics)
    for metric in ("resilient_requests_total", "resilient_request_duration_seconds_count"):
        by_route = {dict(labels)["route"]: value for (found, labels), value in page.items() if found == metric}
        assert by_route == {**{f"/r{index}": 2 for index in range(1000)}, "other": 400}


def test_ground_53_the_series_of_requests_are_capped_and_routes_keep_their_times(
    parts: Any, samples: Read, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(caps, "MAX_SERIES", 4)
    metrics = Metrics(parts.source(), limits={"route": 2})
    for index in range(90):
        metrics.count_request(f"/r{index % 3}", f"M{index % 5}", "2xx", 0.01)
    page = samples(metrics)
    counted = {labels: value for (metric, labels), value in page.items() if metric == "resilient_requests_total"}
    assert len(counted) == 5
    assert sum(counted.values()) == 90
    assert requests("other", "other", "other")[1] in counted
    for route in ("/r0", "/r1", "other"):
        assert page[name("resilient_request_duration_seconds_count", route=route)] == 30


def test_ground_55_each_request_is_counted_exactly_once_from_many_threads_during_scrapes(parts: Any, samples: Read) -> None:
    metrics = Metrics(parts.source())
    start = threading.Barrier(5)

    def serve() -> None:
        start.wait()
        for turn in range(2000):
            metrics.count_request(f"/r{turn % 3}", "GET" if turn % 2 else "POST", "2xx", 0.01)

    threads = [threading.Thread(target=serve) for _ in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    seen, serving = 0.0, True
    while serving:
        serving = any(thread.is_alive() for thread in threads)
        page = samples(metrics)
        total = sum(value for (metric, _), value in page.items() if metric == "resilient_requests_total")
        # The counter and the histogram are of the same moment.
        assert total == sum(value for (metric, _), value in page.items() if metric == "resilient_request_duration_seconds_count")
        assert total >= seen
        seen = total
    assert seen == 8000
    assert page[name("resilient_request_duration_seconds_sum", route="/r0")] == pytest.approx(0.01 * 4 * 667)


def test_pitfall_10_requests_that_nobody_scrapes_do_not_pile_up(parts: Any) -> None:
    metrics = Metrics(parts.source())
    for _ in range(1000):
        metrics.count_request(ORDER, "GET", "2xx", 0.01)
        assert len(metrics._backend._pending) < BATCH


# -- the scrape -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", "text/plain; version=0.0.4; charset=utf-8"),
        ("*/*", "text/plain; version=0.0.4; charset=utf-8"),
        ("text/plain;version=1.0.0;q=0.5", "text/plain; version=1.0.0; charset=utf-8; escaping=underscores"),
        ("application/openmetrics-text", "application/openmetrics-text; version=1.0.0; charset=utf-8"),
        ("application/openmetrics-text;version=what", "text/plain; version=0.0.4; charset=utf-8"),
        ("application/openmetrics-text;version=1", "text/plain; version=0.0.4; charset=utf-8"),
    ],
)
def test_the_format_is_the_one_that_was_asked_for(parts: Any, accept: str, content_type: str) -> None:
    body, answered = Metrics(parts.source()).render(accept)
    assert answered == content_type
    assert body.endswith(b"# EOF\n") == ("openmetrics" in content_type)


def test_odd_label_values_survive_both_formats(parts: Any) -> None:
    odd = 'a"b\\c\nd é'
    metrics = Metrics(parts.source(parts.dependency(odd)))
    for accept, parse in (("", parse_text), (OPENMETRICS, parse_openmetrics)):
        families: Any = parse(metrics.render(accept)[0].decode())
        values = {sample.labels["dependency"] for family in families for sample in family.samples if "dependency" in sample.labels}
        assert values == {odd}


# -- the registry -----------------------------------------------------------------------------------------------------


def test_a_registry_that_is_given_is_shown_as_a_whole(parts: Any) -> None:
    registry = CollectorRegistry()
    Counter("orders", "Orders.", registry=registry).inc()
    metrics = Metrics(parts.source(parts.dependency("catalog")), registry=registry)
    body, _ = metrics.render()
    assert b"orders_total 1.0" in body
    assert b'resilient_breaker_state{dependency="catalog",state="closed"} 1.0' in body
    metrics.close()
    assert [family.name for family in registry.collect()] == ["orders"]
    Metrics(parts.source(), registry=registry)


def test_two_of_them_in_one_registry_are_told_apart_by_an_error(parts: Any) -> None:
    registry = CollectorRegistry()
    Metrics(parts.source(), registry=registry)
    with pytest.raises(ValueError, match=r"registry: .* registry of its own"):
        Metrics(parts.source(), registry=registry)


def test_two_of_them_with_registries_of_their_own_do_not_mix(parts: Any, samples: Read) -> None:
    one, two = Metrics(parts.source(parts.dependency("one"))), Metrics(parts.source(parts.dependency("two")))
    one.on_event(opened("one"))
    assert samples(one)[transitions("one")] == 1
    assert transitions("one") not in samples(two)


def test_registering_reads_nothing(parts: Any) -> None:
    source = parts.source(parts.dependency("catalog"))
    del source.outbox
    Metrics(source, registry=CollectorRegistry(auto_describe=True))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"registry": 3}, TypeError, "registry"),
        ({"limits": {"dependencies": 5}}, ValueError, "limits: 'dependencies'"),
        ({"limits": {"dependency": 0}}, ValueError, r"limits\['dependency'\]"),
        ({"limits": {"reason": 1.5}}, TypeError, r"limits\['reason'\]"),
    ],
)
def test_settings_are_checked(parts: Any, arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        Metrics(parts.source(), **arguments)


# -- bounds -----------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_ground_53_label_values_beyond_the_cap_are_other(parts: Any, samples: Read) -> None:
    dependencies = [parts.dependency(f"host{index}") for index in range(1200)]
    source = parts.source(*dependencies)
    metrics = Metrics(source)
    for dependency in dependencies:
        dependency.stats.record("success", 0.01, 1.0)
        metrics.on_event(opened(dependency.name))
    page = samples(metrics)
    shown = {dict(labels)["dependency"] for _, labels in page if "dependency" in dict(labels)}
    assert len(shown) == 1001
    assert page[name("resilient_calls_total", dependency="other", outcome="success")] == 200
    assert page[name("resilient_call_duration_seconds_count", dependency="other")] == 200
    assert page[name("resilient_breaker_state", dependency="other", state="closed")] == 200
    assert page[transitions("other")] == 200
    assert sum(value for (metric, _), value in page.items() if metric == "resilient_calls_total") == 1200


def test_ground_53_every_label_has_a_cap(parts: Any, samples: Read) -> None:
    metrics = Metrics(parts.source(parts.dependency("d")), limits={"cause": 3})
    for index in range(1500):
        word = f"word{index}"
        metrics.on_event(CallRejected(at=1.0, dependency="d", policy=word, reason=word))
        metrics.on_event(FeatureDegraded(at=1.0, feature=word, level=word, cause=word))
        metrics.on_event(DeadlinePassed(at=1.0, side=word, limit="total"))
    page = samples(metrics)

    def distinct(metric: str, label: str) -> int:
        return len({dict(labels)[label] for found, labels in page if found == metric})

    assert distinct("resilient_rejections_total", "policy") == 51
    assert distinct("resilient_rejections_total", "reason") == 201
    assert distinct("resilient_degraded_responses_total", "feature") == 1001
    assert distinct("resilient_degraded_responses_total", "cause") == 4
    assert distinct("resilient_deadline_exceeded_total", "side") == 51
    for metric in ("resilient_rejections_total", "resilient_degraded_responses_total", "resilient_deadline_exceeded_total"):
        assert sum(value for (found, _), value in page.items() if found == metric) == 1500


def test_ground_53_the_series_of_a_family_are_capped_too(parts: Any, samples: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(caps, "MAX_SERIES", 100)
    metrics = Metrics(parts.source(*(parts.dependency(f"d{index}") for index in range(20))))
    for index in range(400):
        metrics.on_event(CallRejected(at=1.0, dependency=f"d{index % 20}", policy="p", reason=f"r{index // 20}"))
    page = samples(metrics)
    rejections = {labels: value for (metric, labels), value in page.items() if metric == "resilient_rejections_total"}
    assert len(rejections) == 101
    assert rejections[name("", dependency="other", policy="other", reason="other")[1]] == 300


@pytest.mark.slow
def test_pitfall_10_dependencies_that_come_and_go_leave_nothing_behind(parts: Any, samples: Read) -> None:
    source = parts.source(parts.dependency("stays"))
    metrics = Metrics(source, limits={"dependency": 80})
    sizes = set()
    for round_ in range(20):
        for index in range(40):
            made = parts.dependency(f"host{round_}-{index}")
            source.dependencies[made.name] = made
            metrics.on_event(opened(made.name))
            if index % 2:  # some go before any scrape has seen them
                del source.dependencies[made.name]
        page = samples(metrics)
        assert page[transitions(f"host{round_}-0")] == 1
        assert not any(f"host{round_ - 1}-0" in dict(labels).values() for _, labels in page)
        sizes.add(len(page))
        for key in [key for key in source.dependencies if key != "stays"]:
            del source.dependencies[key]
    assert len(sizes) == 1


def test_calls_never_fall_when_a_dependency_is_forgotten_and_made_anew_between_scrapes(parts: Any, samples: Read) -> None:
    first = parts.dependency("catalog")
    source = parts.source(first)
    metrics = Metrics(source)
    calls, durations = (
        name("resilient_calls_total", dependency="catalog", outcome="success"),
        name("resilient_call_duration_seconds_count", dependency="catalog"),
    )
    first.stats.record("success", 0.1, 1.0)
    metrics.on_event(opened("catalog"))
    assert samples(metrics)[calls] == 1
    first.stats.record("success", 0.1, 1.0)  # after the scrape, before it is forgotten
    second = parts.dependency("catalog")
    second.stats.record("success", 0.1, 1.0)
    source.dependencies = {"catalog": second}
    for _ in range(2):
        page = samples(metrics)
        assert (page[calls], page[durations], page[transitions("catalog")]) == (3, 3, 1)


def test_a_dependency_that_is_gone_takes_its_series_with_it(parts: Any, samples: Read) -> None:
    gone = parts.dependency("gone")
    source = parts.source(gone)
    metrics = Metrics(source)
    metrics.on_event(opened("gone"))
    metrics.on_event(opened(""))  # a pipeline without a name is nobody's to take away
    assert samples(metrics)[transitions("gone")] == 1
    source.dependencies = {}
    page = samples(metrics)
    assert not any(("dependency", "gone") in labels for _, labels in page)
    assert page[transitions("")] == 1


def test_what_is_counted_under_other_never_falls(parts: Any, samples: Read) -> None:
    dependencies = [parts.dependency(f"host{index}") for index in range(4)]
    source = parts.source(*dependencies)
    metrics = Metrics(source, limits={"dependency": 2})
    for dependency in dependencies:
        dependency.stats.record("success", 0.1, 1.0)
        metrics.on_event(opened(dependency.name))
    other = name("resilient_calls_total", dependency="other", outcome="success")
    assert samples(metrics)[other] == 2
    for index in (3, 0, 2):  # of the capped ones, of the named ones
        del source.dependencies[f"host{index}"]
        page = samples(metrics)
        assert page[other] == 2
        assert page[transitions("other")] == 2
    assert page[name("resilient_calls_total", dependency="host1", outcome="success")] == 1


# -- while it runs ----------------------------------------------------------------------------------------------------


def test_a_feature_may_have_news_to_tell_when_it_is_looked_at(parts: Any, samples: Read) -> None:
    source = parts.source()
    metrics = Metrics(source)

    class Recovering:
        name = "prices"

        @property
        def level(self) -> str:
            metrics.on_event(FeatureDegraded(at=1.0, feature="prices", level="static", cause="outage"))
            return "full"

    source.features["prices"] = Recovering()
    assert samples(metrics)[name("resilient_degraded_responses_total", feature="prices", level="static", cause="outage")] == 1


def test_an_event_in_the_middle_of_counting_is_neither_lost_nor_a_deadlock(parts: Any, samples: Read) -> None:
    metrics = Metrics(parts.source(parts.dependency("catalog")))

    class Finalized(str):
        """As when garbage collection runs at this very place and finalizers have events to tell."""

        __slots__ = ("looks",)
        left = 9

        def __hash__(self) -> int:
            self.looks = getattr(self, "looks", 0) + 1
            if self.looks == 3 and Finalized.left:  # is it known? what is it so far? make it one more
                Finalized.left -= 1
                for _ in range(BATCH):
                    metrics.on_event(CallRejected(at=1.0, dependency="catalog", policy="breaker", reason="outage"))
            return hash(str(self))

    metrics.on_event(CallRejected(at=1.0, dependency="catalog", policy="breaker", reason="outage"))
    metrics.render()
    for _ in range(BATCH):
        metrics.on_event(CallRejected(at=1.0, dependency="catalog", policy="breaker", reason=Finalized("outage")))
    page = samples(metrics)
    assert Finalized.left == 0
    assert page[name("resilient_rejections_total", dependency="catalog", policy="breaker", reason="outage")] == 1 + 10 * BATCH


def test_pitfall_10_events_that_nobody_scrapes_do_not_pile_up(parts: Any) -> None:
    metrics = Metrics(parts.source(parts.dependency("catalog")))
    for _ in range(1000):
        metrics.on_event(opened("catalog"))
        assert len(metrics._backend._pending) < BATCH


def test_events_from_many_threads_during_scrapes_are_all_counted(parts: Any, samples: Read) -> None:
    source = parts.source(parts.dependency("catalog"))
    metrics = Metrics(source)
    start = threading.Barrier(5)
    failures: list[BaseException] = []

    def emit(number: int) -> None:
        try:
            start.wait()
            for turn in range(1000):
                metrics.on_event(CallRejected(at=1.0, dependency="catalog", policy="breaker", reason=f"r{(turn + number) % 7}"))
        except BaseException as error:
            failures.append(error)
            raise

    threads = [threading.Thread(target=emit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    start.wait()
    seen = 0.0
    for turn in count():
        alive = any(thread.is_alive() for thread in threads)
        page = samples(metrics)
        total = sum(value for (metric, _), value in page.items() if metric == "resilient_rejections_total")
        assert total >= seen
        seen = total
        if not alive or turn > 10_000:
            break
    assert not failures
    assert seen == 4000
