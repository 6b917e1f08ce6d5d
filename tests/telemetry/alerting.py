"""When each alert fires and when it does not, as `promtool test rules` wants it told."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["CASES", "Case"]

Series = dict[str, str]
"""A series -> its values, one a minute."""

CALLS = 'resilient_calls_total{job="shop",dependency="catalog",outcome="success"}'
REQUESTS = 'resilient_requests_total{job="shop",route="/",method="GET",status="2xx"}'
DROPPED = 'resilient_events_dropped_total{job="shop"}'
LISTENER_ERRORS = 'resilient_listener_errors_total{job="shop"}'
CHECK = 'resilient_check_state{{job="shop",check="disk",state="{}"}}'


@dataclass(frozen=True)
class Case:
    """Series with which an alert fires at minute `at`, and not yet a minute after it is `early`; and series with which it never does.

    Attributes:
        labels: of the alert, besides its severity.
        value: as its annotations show it.
        early: a minute at which it does not fire yet.
    """

    alert: str
    fires: Series
    calm: Series
    at: int
    labels: dict[str, str]
    value: str = "1"
    early: int | None = None
    severity: str = "warning"

    def units(self, annotations: dict[str, str]) -> Iterator[dict[str, Any]]:
        """Three tests: it fires, it has not fired before its time, it does not fire."""
        expected = {
            "exp_labels": {**self.labels, "severity": self.severity},
            "exp_annotations": {name: self._shown(text) for name, text in annotations.items()},
        }
        told = [{"eval_time": f"{self.at}m", "alertname": self.alert, "exp_alerts": [expected]}]
        if self.early is not None:
            told.append({"eval_time": f"{self.early}m", "alertname": self.alert, "exp_alerts": []})
        yield self._unit("fires", self.fires, told)
        yield self._unit("calm", self.calm, [{"eval_time": f"{self.at}m", "alertname": self.alert, "exp_alerts": []}])

    def _unit(self, name: str, series: Series, told: list[dict[str, Any]]) -> dict[str, Any]:
        listed = [{"series": one, "values": values} for one, values in ({DROPPED: "0x90"} | series).items() if values]
        return {"name": f"{self.alert} {name}", "interval": "1m", "input_series": listed, "alert_rule_test": told}

    def _shown(self, text: str) -> str:
        """What a template makes of the labels and the value."""
        text = re.sub(r"\{\{ or \$labels\.(\w+) \"([^\"]*)\" \}\}", lambda match: self.labels.get(match[1]) or match[2], text)
        text = re.sub(r"\{\{ \$labels\.(\w+) \}\}", lambda match: self.labels[match[1]], text)
        return re.sub(r"\{\{ \$value[^}]*\}\}", self.value, text)


def breaker(state: str) -> str:
    return f'resilient_breaker_state{{job="shop",dependency="catalog",state="{state}"}}'


def level(word: str) -> str:
    return f'resilient_feature_level{{job="shop",feature="reviews",level="{word}"}}'


def degraded(cause: str, word: str = "off") -> str:
    return f'resilient_degraded_responses_total{{job="shop",feature="reviews",level="{word}",cause="{cause}"}}'


def shed(criticality: str, reason: str) -> str:
    return f'resilient_requests_shed_total{{job="shop",criticality="{criticality}",reason="{reason}"}}'


def retries(result: str) -> str:
    return f'resilient_retries_total{{job="shop",dependency="catalog",result="{result}"}}'


def cache(result: str) -> str:
    return f'resilient_cache_requests_total{{job="shop",dependency="catalog",result="{result}"}}'


def late(side: str) -> str:
    return f'resilient_deadline_exceeded_total{{job="shop",side="{side}"}}'


CATALOG = {"job": "shop", "dependency": "catalog"}
REVIEWS = {"job": "shop", "feature": "reviews"}
SHOP = {"job": "shop"}
FAILED = 'resilient_fallback_failures_total{job="shop",feature="reviews",level="reduced",cause="ConnectError"}'
IN_USE, LIMIT = (f'resilient_bulkhead_{what}{{job="shop",dependency="catalog"}}' for what in ("in_use", "limit"))
STORE = 'resilient_store_up{job="shop",dependency="catalog"}'
LAG = 'resilient_loop_lag_seconds{job="shop"}'

CASES = (
    Case(  # while trials fail it is half-open now and then
        "ResilientCircuitOpen",
        {breaker("open"): "0 0 1 1 0 1 0 1 1 1 1 1", breaker("half-open"): "0 0 0 0 1 0 1 0 0 0 0 0", breaker("closed"): "1 1 0x9"},
        {breaker("open"): "0 0 1 1 0x9", breaker("half-open"): "0 0 0 0 1 0x9", breaker("closed"): "1 1 0 0 0 1x9"},
        at=8,
        early=5,
        labels=CATALOG,
    ),
    Case(
        "ResilientFeatureDegraded",
        {level("static"): "0 1x30", level("full"): "1 0x30"},
        {level("static"): "0 1x10 0x20", level("full"): "1 0x10 1x20"},
        at=20,
        early=14,
        labels=REVIEWS,
    ),
    Case(
        "ResilientFeatureOff",
        {degraded("ConnectError"): "0+60x30"},
        {degraded("operator"): "0+60x30", degraded("feature:catalog"): "0+60x30", degraded("ConnectError", "static"): "0+60x30"},
        at=10,
        early=1,
        labels=REVIEWS,
        severity="critical",
    ),
    Case("ResilientFallbackFailed", {FAILED: "_x15 1x5"}, {FAILED: "1x40"}, at=17, labels=REVIEWS),
    Case("ResilientFallbackFailed", {FAILED: "1x15 2x5"}, {FAILED: ""}, at=17, labels=REVIEWS),
    Case(
        "ResilientRetryBudgetExhausted",
        {retries("budget"): "0+60x30"},
        {retries("retried"): "0+60x30", retries("budget"): "5x30"},
        at=15,
        early=4,
        labels=CATALOG,
    ),
    Case(
        "ResilientCriticalShed",
        {shed("critical", "waited"): "0+60x30"},
        {shed("sheddable", "full"): "0+60x30", shed("critical", "shadow_full"): "0+60x30"},
        at=10,
        early=1,
        labels={**SHOP, "criticality": "critical"},
        severity="critical",
    ),
    Case(
        "ResilientInboundDeadlines",
        {late("inbound"): "0+10x30", REQUESTS: "0+100x30"},
        {late("inbound"): "0+4x30", late("shadow_inbound"): "0+50x30", REQUESTS: "0+100x30"},
        at=12,
        early=4,
        labels=SHOP,
        value="10%",
        severity="critical",
    ),
    Case(
        "ResilientOutboundDeadlines",
        {late("outbound"): "0+20x30", CALLS: "0+100x30"},
        {late("outbound"): "0+9x30", CALLS: "0+100x30"},
        at=12,
        early=4,
        labels=SHOP,
        value="20%",
    ),
    Case(
        "ResilientBulkheadSaturated",
        {IN_USE: "0 10x30", LIMIT: "10x31"},
        {IN_USE: "0 9x30", LIMIT: "10x31"},
        at=10,
        early=4,
        labels=CATALOG,
        value="100%",
    ),
    Case("ResilientStaleServed", {cache("stale_if_error"): "0+60x40"}, {cache("stale"): "0+60x40"}, at=30, early=10, labels=CATALOG),
    Case("ResilientStoreDown", {STORE: "1 0x30"}, {STORE: "1 1 0 1x30"}, at=5, early=2, labels=CATALOG, value="0"),
    Case(
        "ResilientCheckIll",
        {CHECK.format("ill"): "0 1x30", CHECK.format("well"): "1 0x30"},
        {CHECK.format("ill"): "0 1 1 0x30", CHECK.format("unknown"): "0x30", CHECK.format("well"): "1x30"},
        at=10,
        early=4,
        labels={**SHOP, "check": "disk"},
    ),
    Case(
        "ResilientCheckIll",
        {CHECK.format("unknown"): "1x30"},
        {CHECK.format("well"): "1x30"},
        at=10,
        early=3,
        labels={**SHOP, "check": "disk"},
    ),
    Case("ResilientLoopLate", {LAG: "0 0.5x30"}, {LAG: "0 0.2x30"}, at=10, early=4, labels=SHOP, value="500ms"),
    Case("ResilientEventsLost", {DROPPED: "0x5 3x20", LISTENER_ERRORS: "0x30"}, {LISTENER_ERRORS: "7x30"}, at=8, labels=SHOP),
    Case("ResilientEventsLost", {LISTENER_ERRORS: "0x5 3x20"}, {LISTENER_ERRORS: "0x30"}, at=8, labels=SHOP),
    Case(  # a job that was there, beside another that still is
        "ResilientMetricsAbsent",
        {DROPPED: "0x10 stale", 'resilient_events_dropped_total{job="orders"}': "0x60"},
        {DROPPED: "0x10 _x3 0x60"},
        at=25,
        early=14,
        labels=SHOP,
        severity="critical",
    ),
    Case("ResilientMetricsAbsent", {DROPPED: ""}, {DROPPED: "0x90"}, at=70, early=2, labels={}, severity="critical"),
)
