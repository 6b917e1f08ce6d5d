"""Log records say which work they belong to: on the standard library's logging, and on structlog."""

from __future__ import annotations

import json
import logging
import logging.config
import logging.handlers
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from resilient import Bulkhead, Deadline, Resilience, Timeout, degradation_scope
from resilient.context import carry, criticality, current_dependency, current_record, deadline_scope, load
from resilient.telemetry.fields import ContextFilter, add_context, context_fields
from resilient.testing import FakeClock, FaultyTransport

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
OUTSIDE = {"dependency": "", "deadline_remaining": None, "criticality": "critical", "degraded": [], "trace_id": "", "span_id": ""}
INSIDE = OUTSIDE | {
    "deadline_remaining": 2.0,
    "criticality": "sheddable",
    "degraded": ["recommendations"],
    "trace_id": PARENT[3:35],
    "span_id": PARENT[36:52],
}


@pytest.fixture
def inside(clock: FakeClock) -> Iterator[None]:
    """Work with all that there can be."""
    resilience = Resilience(clock=clock)
    recommended = resilience.feature("recommendations", fallback=[], on=ZeroDivisionError)(lambda: 1 / 0)
    job = {"v": 1, "traceparent": PARENT}
    with deadline_scope(Deadline.after(2.0, clock)), criticality("sheddable"), degradation_scope(), load(job):
        recommended()
        yield


def test_outside_all_work_every_field_is_there() -> None:
    assert context_fields() == OUTSIDE


@pytest.mark.usefixtures("inside")
def test_inside() -> None:
    assert context_fields() == INSIDE


def test_a_scope_within_another_notes_in_the_outer_record() -> None:
    with degradation_scope() as outer:
        with degradation_scope() as inner:
            assert inner is outer
        assert current_record() is outer
    assert current_record() is None


@pytest.mark.usefixtures("inside")
def test_a_deadline_that_is_over(clock: FakeClock) -> None:
    clock.advance(2.5004)
    assert context_fields()["deadline_remaining"] == -0.5


def test_a_lifted_deadline_is_none() -> None:
    with deadline_scope(Deadline(float("inf"))):
        assert context_fields()["deadline_remaining"] is None


def test_a_span_of_opentelemetry_comes_before_what_was_loaded() -> None:
    trace = pytest.importorskip("opentelemetry.trace")
    span = trace.NonRecordingSpan(trace.SpanContext(trace_id=0xABC, span_id=0xDEF, is_remote=False))
    with load({"v": 1, "traceparent": PARENT}), trace.use_span(span):
        fields = context_fields()
    assert (fields["trace_id"], fields["span_id"]) == (f"{0xABC:032x}", f"{0xDEF:016x}")


# -- the dependency ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_dependency_whose_attempt_it_is(clock: FakeClock) -> None:
    catalog = Resilience(clock=clock).dependency("catalog")
    stock = Resilience(clock=clock).dependency("stock")

    async def ask() -> list[str]:
        async def within() -> str:
            return current_dependency()

        return [current_dependency(), await stock.call(within), current_dependency()]

    assert await catalog.call(ask) == ["catalog", "stock", "catalog"]
    assert current_dependency() == ""


def test_of_a_synchronous_call_and_a_thread_of_it(clock: FakeClock) -> None:
    catalog = Resilience(clock=clock).dependency("catalog")

    def ask() -> list[str]:
        found = [current_dependency()]
        thread = threading.Thread(target=carry(lambda: found.append(current_dependency())))
        thread.start()
        thread.join(10)
        return found

    assert catalog.call_sync(ask) == ["catalog", "catalog"]


def test_of_a_request(clock: FakeClock, library: Any) -> None:
    shop = Resilience(clock=clock).dependency("shop")
    seen: list[str] = []

    def answer(request: Any) -> Any:
        seen.append(current_dependency())
        return library.Response(200)

    with library.Client(transport=library.ours.ResilientTransport(shop, FaultyTransport([answer]))) as client:
        client.get("http://shop/")
    assert seen == ["shop"]


def test_without_a_time_limit_nobody_knows(clock: FakeClock) -> None:
    """The attempt's deadline is what tells of it, and a call without one costs nothing more."""
    assert Resilience(clock=clock).dependency("catalog", Timeout(total=1)).call_sync(current_dependency) == "catalog"
    assert Resilience(clock=clock).dependency("catalog", Bulkhead()).call_sync(current_dependency) == ""


# -- logging ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def logger() -> Iterator[logging.Logger]:
    made = logging.getLogger("test_fields")
    made.propagate = False
    made.setLevel(logging.INFO)
    yield made
    made.handlers.clear()


@pytest.mark.usefixtures("inside")
def test_a_filter_adds_them_to_records(logger: logging.Logger) -> None:
    config: dict[str, Any] = {
        "version": 1,
        "disable_existing_loggers": False,
        "filters": {"context": {"()": "resilient.telemetry.fields.ContextFilter"}},
        "formatters": {
            "plain": {"format": "%(message)s %(trace_id)s %(criticality)s %(deadline_remaining)s %(degraded)s [%(dependency)s]"}
        },
        "handlers": {"held": {"class": "logging.handlers.MemoryHandler", "capacity": 10, "filters": ["context"], "formatter": "plain"}},
        "loggers": {"test_fields": {"handlers": ["held"], "level": "INFO"}},
    }
    logging.config.dictConfig(config)
    logger.info("ordered")
    (handler,) = logger.handlers
    assert isinstance(handler, logging.handlers.MemoryHandler)
    (record,) = handler.buffer
    assert {name: getattr(record, name) for name in INSIDE} == INSIDE
    assert handler.format(record) == f"ordered {INSIDE['trace_id']} sheddable 2.0 ['recommendations'] []"
    handler.buffer.clear()
    handler.close()


def test_what_a_record_says_itself_stays(logger: logging.Logger) -> None:
    record = logger.makeRecord("resilient", logging.INFO, "", 0, "circuit of %s", ("catalog",), None, extra={"dependency": "catalog"})
    assert ContextFilter().filter(record)
    assert record.__dict__["dependency"] == "catalog" and record.__dict__["criticality"] == "critical"


@pytest.mark.usefixtures("inside")
def test_in_front_of_a_queue_it_sees_the_work_and_not_the_listener(logger: logging.Logger) -> None:
    records: queue.SimpleQueue[Any] = queue.SimpleQueue()
    handler = logging.handlers.QueueHandler(records)
    handler.addFilter(ContextFilter())
    logger.addHandler(handler)
    logger.info("ordered")
    taken: list[Any] = []
    thread = threading.Thread(target=lambda: taken.append(records.get(timeout=10)))
    thread.start()
    thread.join(10)
    assert taken[0].criticality == "sheddable" and taken[0].degraded == ["recommendations"]


# -- structlog --------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("inside")
def test_structlog_has_them_too() -> None:
    structlog = pytest.importorskip("structlog", reason="needs structlog")
    lines: list[str] = []

    class Lines:
        def info(self, line: str) -> None:
            lines.append(line)

    logger = structlog.wrap_logger(Lines(), processors=[add_context, structlog.processors.JSONRenderer()])
    logger.info("ordered", order=7, dependency="catalog")
    assert json.loads(lines[0]) == INSIDE | {"event": "ordered", "order": 7, "dependency": "catalog"}


@pytest.mark.usefixtures("inside")
def test_structlog_renders_records_of_others_with_them(logger: logging.Logger) -> None:
    """As the page shows it: our own records and those of every other library go through the same processors."""
    structlog = pytest.importorskip("structlog", reason="needs structlog")
    lines: list[str] = []

    class Lines(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    handler = Lines()
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[structlog.stdlib.add_log_level, structlog.stdlib.ExtraAdder(), add_context],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, structlog.processors.JSONRenderer()],
        )
    )
    logger.addHandler(handler)
    logger.warning("circuit of %s opens", "catalog", extra={"dependency": "catalog", "new": "open"})
    expected = INSIDE | {"event": "circuit of catalog opens", "level": "warning", "dependency": "catalog", "new": "open"}
    assert expected.items() <= json.loads(lines[0]).items()
