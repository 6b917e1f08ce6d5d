"""One log record a transition."""

from __future__ import annotations

import logging

import pytest

from resilient.core.degradation import Level
from resilient.events import CallRejected, CircuitChanged, Event, FeatureChanged, FeatureDegraded, ResponseAbandoned, RetryDecided
from resilient.telemetry.logging import REMEMBERED, TransitionLog

FIELDS = {"event", "dependency", "feature", "old", "new", "reason", "cause", "retry_after", "at"}


def logged(caplog: pytest.LogCaptureFixture, *events: Event) -> list[logging.LogRecord]:
    log = TransitionLog()
    caplog.clear()
    with caplog.at_level(logging.DEBUG, logger="resilient"):
        for event in events:
            log.on_event(event)
    assert {record.name for record in caplog.records} <= {"resilient"}
    return caplog.records


def fields(record: logging.LogRecord) -> dict[str, object]:
    return {key: value for key, value in vars(record).items() if key in FIELDS}


def test_no_field_is_one_of_a_log_record() -> None:
    plain = logging.makeLogRecord({})
    assert not FIELDS & (set(vars(plain)) | {"message", "asctime", "taskName"})


def test_an_opening_circuit_is_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    (record,) = logged(caplog, CircuitChanged(at=12.5, dependency="catalog", old="closed", new="open", reason="outage", retry_after=1.25))
    assert record.levelno == logging.WARNING
    assert record.getMessage() == "circuit of catalog: closed -> open (outage, next trial in 1.2 s)"
    assert fields(record) == {
        "event": "circuit_changed",
        "dependency": "catalog",
        "old": "closed",
        "new": "open",
        "reason": "outage",
        "retry_after": 1.25,
        "at": 12.5,
    }


@pytest.mark.parametrize(("old", "new"), [("open", "half-open"), ("half-open", "closed"), ("open", "closed")])
def test_a_recovering_circuit_is_for_information(caplog: pytest.LogCaptureFixture, old: str, new: str) -> None:
    (record,) = logged(caplog, CircuitChanged(at=1.0, dependency="catalog", old=old, new=new, reason="trials"))
    assert record.levelno == logging.INFO
    assert record.getMessage() == f"circuit of catalog: {old} -> {new} (trials)"


@pytest.mark.parametrize(
    ("old", "new", "level"),
    [
        (Level.FULL, Level.STATIC, logging.WARNING),
        ("reduced", "off", logging.WARNING),
        ("off", "reduced", logging.INFO),
        (Level.STATIC, Level.FULL, logging.INFO),
    ],
)
def test_a_feature_that_gives_less_is_a_warning(caplog: pytest.LogCaptureFixture, old: str, new: str, level: int) -> None:
    (record,) = logged(caplog, FeatureChanged(at=2.0, feature="prices", old=old, new=new, cause="outage"))
    assert record.levelno == level
    assert record.getMessage() == f"feature prices: {old} -> {new} (outage)"
    assert fields(record) == {"event": "feature_changed", "feature": "prices", "old": old, "new": new, "cause": "outage", "at": 2.0}
    assert type(vars(record)["new"]) is str


def test_abandoned_responses_are_told_once_a_dependency(caplog: pytest.LogCaptureFixture) -> None:
    records = logged(caplog, *(ResponseAbandoned(at=3.0, dependency=name) for name in ("a", "b", "a", "a", "b")))
    assert [fields(record) for record in records] == [{"event": "response_abandoned", "dependency": name, "at": 3.0} for name in ("a", "b")]
    assert {record.levelno for record in records} == {logging.WARNING}
    assert "response of a was dropped" in records[0].getMessage()


def test_pitfall_10_the_names_remembered_are_bounded(caplog: pytest.LogCaptureFixture) -> None:
    records = logged(caplog, *(ResponseAbandoned(at=3.0, dependency=f"host{index}") for index in range(REMEMBERED + 50)))
    assert len(records) == REMEMBERED


def test_nothing_is_logged_for_a_call(caplog: pytest.LogCaptureFixture) -> None:
    assert not logged(
        caplog,
        CallRejected(at=1.0, dependency="catalog", policy="breaker", reason="outage"),
        RetryDecided(at=1.0, dependency="catalog", result="retried", attempt=1),
        FeatureDegraded(at=1.0, feature="prices", level="static", cause="outage"),
    )
