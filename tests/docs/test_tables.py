"""What the pages say in tables is what the code has."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import logging
import re
from pathlib import Path
from typing import Any

import pytest

import resilient.events
from resilient import (
    AdaptiveConcurrency,
    AdaptiveThrottle,
    Bulkhead,
    CachedFallback,
    Chaos,
    CircuitBreaker,
    Failover,
    Fallback,
    Hedge,
    Outcome,
    RateLimit,
    Resilience,
    Retry,
    RetryBudget,
    Target,
    Timeout,
)
from resilient.asgi import Admission, Drain, ResilienceMiddleware, StaleResponses, routes
from resilient.core.rules import Rules
from resilient.events import (
    BrownoutChanged,
    CheckChanged,
    CircuitChanged,
    ControlUsed,
    DrainChanged,
    DrainHookFailed,
    Event,
    FeatureChanged,
    FeatureOrdered,
    ReadOnlyChanged,
    ResponseAbandoned,
    ServiceChanged,
    SettingChanged,
    StartupChanged,
)
from resilient.health import Check
from resilient.stores import MemoryStore, RedisStore, SQLiteStore
from resilient.telemetry.families import ALL
from resilient.telemetry.fields import context_fields
from resilient.telemetry.logging import TransitionLog
from resilient.telemetry.otel import OpenTelemetry, facts

DOCS = Path(__file__).parents[2] / "docs"
HEADINGS = ["About", "Usage", "Defaults", "Telemetry", "Diagram", "Anti-patterns"]
REQUIRED = inspect.Parameter.empty
# What is there for tests, or is told in words below the table.
UNTOLD = {"random", "result", "growth", "consecutive", "app", "resilience", "policies"}
PYBREAKERS = ["fail_max", "reset_timeout", "success_threshold", "exclude", "listeners", "state_storage", "name", "throw_new_error_on_trip"]


def table(page: str, heading: str, first_column: str) -> dict[str, list[str]]:
    """The rows of the table under a heading whose first column is called so, by their first cells."""
    section = (DOCS / page).read_text(encoding="utf-8").split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    tables = [block.strip().splitlines() for block in section.split("\n\n") if block.strip().startswith("|")]
    found: dict[str, list[str]] = {}
    for head, _, *lines in tables:
        if head.split("|")[1].strip() == first_column:
            for line in lines:
                first, *rest = (cell.strip() for cell in line.strip("|").split("|"))
                found[first.strip("`")] = rest
    return found


def parameters(*kinds: Any) -> dict[str, Any]:
    """Every parameter with its default."""
    found: dict[str, Any] = {}
    for kind in kinds:
        if dataclasses.is_dataclass(kind):
            found |= {field.name: field.default for field in dataclasses.fields(kind)}
        else:
            signature = inspect.signature(kind).parameters.values()
            found |= {p.name: p.default for p in signature if p.kind is not p.VAR_KEYWORD}
    return {name: default for name, default in found.items() if name not in UNTOLD}


@pytest.mark.parametrize(
    ("page", "kinds"),
    [
        ("policies/timeout.md", [Timeout]),
        ("policies/retry.md", [Retry, RetryBudget]),
        ("policies/breaker.md", [CircuitBreaker, Rules]),
        ("policies/ratelimit.md", [RateLimit]),
        ("policies/bulkhead.md", [Bulkhead]),
        ("policies/adaptive.md", [AdaptiveConcurrency]),
        ("policies/throttle.md", [AdaptiveThrottle]),
        ("policies/fallback.md", [Fallback]),
        ("policies/cached.md", [CachedFallback]),
        ("policies/chaos.md", [Chaos]),
        ("policies/hedge.md", [Hedge]),
        ("policies/failover.md", [Failover, Target]),
        ("asgi.md", [ResilienceMiddleware]),
        ("stale.md", [StaleResponses]),
        ("admission.md", [Admission]),
        ("opentelemetry.md", [OpenTelemetry]),
        ("drain.md", [Drain]),
    ],
)
def test_defaults(page: str, kinds: list[Any]) -> None:
    said = {name: cells[0].strip("`") for name, cells in table(page, "Defaults", "Parameter").items()}
    real = parameters(*kinds)
    for name in set(PYBREAKERS) - said.keys():
        real.pop(name, None)
    assert {name: REQUIRED if value == "required" else ast.literal_eval(value) for name, value in said.items()} == real


def test_defaults_of_checks() -> None:
    said = {name: ast.literal_eval(cells[0].strip("`")) for name, cells in table("health.md", "Defaults", "Parameter").items()}
    real = {name: default for name, default in parameters(Check).items() if name not in ("name", "fn", "clock", "strict")}
    of_service = parameters(Resilience)
    assert said == real | {name: of_service[name] for name in ("readiness", "startup_timeout", "start_anyway")}


def test_the_probes_of_kubernetes_fit_the_defaults() -> None:
    page = (DOCS / "health.md").read_text(encoding="utf-8")
    probes = dict(re.findall(r"^(\w+)Probe:\n((?:  .+\n)+)", page, re.MULTILINE))
    assert {name: re.findall(r"path: (\S+),", probe) for name, probe in probes.items()} == {
        "startup": ["/startupz"],
        "readiness": ["/readyz"],
        "liveness": ["/livez"],
    }
    assert all(route.path in page for route in routes(Resilience(), metrics=False))
    seconds = {name: re.findall(r"(?:periodSeconds|failureThreshold): (\d+)", probe) for name, probe in probes.items()}
    period, times = map(int, seconds["startup"])
    assert period * times > Resilience().health.startup.timeout


@pytest.mark.parametrize("page", sorted(DOCS.glob("policies/*.md")), ids=lambda page: page.stem)
def test_policy_pages_have_the_same_headings(page: Path) -> None:
    assert re.findall(r"^## (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE) == HEADINGS


def test_metrics() -> None:
    said = table("telemetry.md", "Metrics", "Metric")
    assert {name: (kind, tuple(re.findall(r"`(\w+)`", labels))) for name, (kind, labels, _) in said.items()} == {
        family.name: (family.kind, family.labels) for family in ALL
    }


def test_log_records(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="resilient")
    log = TransitionLog()
    log.on_event(CircuitChanged(at=1.0, dependency="dep", old="closed", new="open", reason="outage"))
    log.on_event(FeatureChanged(at=1.0, feature="shop", old="full", new="static", cause="deadline"))
    log.on_event(FeatureOrdered(at=1.0, feature="shop", what="ordered", level="off"))
    log.on_event(ServiceChanged(at=1.0, old="healthy", new="degraded"))
    log.on_event(BrownoutChanged(at=1.0, share=0.5, measured=2.0))
    log.on_event(ReadOnlyChanged(at=1.0, read_only=True))
    log.on_event(DrainChanged(at=1.0, what="overdue", in_flight=2, routes=("/a",)))
    log.on_event(DrainHookFailed(at=1.0, hook="checkpoint", cause="late"))
    log.on_event(ResponseAbandoned(at=1.0, dependency="dep"))
    log.on_event(ControlUsed(at=1.0, action="isolate", about="dependency:dep", by="ann"))
    log.on_event(SettingChanged(at=1.0, key="enabled", old="True", new="False", source="code"))
    log.on_event(CheckChanged(at=1.0, check="disk", old="well", new="ill", reason="returned False"))
    log.on_event(StartupChanged(at=1.0, complete=True, waiting=(), seconds=1.0))
    known = vars(logging.makeLogRecord({})).keys() | {"event", "message"}
    told: dict[str, Any] = {record.__dict__["event"]: vars(record).keys() - known for record in caplog.records}
    said = table("telemetry.md", "Logs", "`event`")
    assert {name: set(re.findall(r"`(\w+)`", cells[0])) for name, cells in said.items()} == told


def test_events() -> None:
    events = {name for name in resilient.events.__all__ if issubclass(getattr(resilient.events, name), Event)} - {"Event"}
    assert set(table("telemetry.md", "Events", "Event")) == events


def test_events_on_spans() -> None:
    said = table("opentelemetry.md", "Events on spans", "Event")
    assert {name: set(re.findall(r"`([\w.]+)`", cells[0])) for name, cells in said.items()} == {
        name: {attribute.removeprefix("resilient.") for attribute in facts.NAMES[kind].values()} for kind, name in facts.TOLD.items()
    }


def test_fields_of_log_records() -> None:
    said = table("telemetry.md", "Logs", "Field")
    assert {name for names in said for name in re.findall(r"\w+", names)} == context_fields().keys()


def test_outcomes() -> None:
    assert list(table("failures.md", "Outcomes", "Outcome")) == [outcome.name for outcome in Outcome]


ARCHITECTURE = (DOCS / "architecture.md").read_text(encoding="utf-8")
PACKAGE = DOCS.parent / "resilient"


def test_where_is_names_files_that_there_are() -> None:
    named = re.findall(r"`([\w/]+\.py)`", ARCHITECTURE)
    assert len(named) > 40
    assert [path for path in named if not (PACKAGE / path).exists() and not (DOCS.parent / path).exists()] == []


def test_layers_hold_every_module() -> None:
    drawn = ARCHITECTURE.split("```text\n", 1)[1].split("```", 1)[0]
    modules = {path.stem for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()} - {"__init__"}
    columns = " ".join(line[11:54] for line in drawn.splitlines())
    assert modules - set(columns.split()) == set()


@pytest.mark.parametrize("store", [MemoryStore, SQLiteStore, RedisStore])
def test_defaults_of_stores(store: Any) -> None:
    said = {name: cells[0].strip("`") for name, cells in table("stores.md", store.__name__, "Parameter").items()}
    real = {name: default for name, default in parameters(store).items() if name not in ("clock", "wall")}
    assert {name: REQUIRED if value == "required" else ast.literal_eval(value) for name, value in said.items()} == real


def test_figures_of_stores() -> None:
    said = {name for cell in table("stores.md", "Figures", "Attribute") for name in re.findall(r"\w+", cell)}
    assert said <= set(dir(SQLiteStore))
    assert len(said) == 10
