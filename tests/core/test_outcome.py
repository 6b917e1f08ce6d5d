from __future__ import annotations

import asyncio
import concurrent.futures
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.outcome import Outcome, outcome_of_cut, outcome_of_error, outcome_of_status
from resilient.errors import AllTargetsFailed, BulkheadFull, CircuitOpen, Rejected

SUCCESS, FAILURE, OUTAGE, THROTTLED, IGNORED = Outcome


@pytest.mark.parametrize(
    ("outcome", "label", "failed", "counted"),
    [
        (SUCCESS, "success", False, True),
        (FAILURE, "failure", True, True),
        (OUTAGE, "failure", True, True),
        (THROTTLED, "ignored", False, False),
        (IGNORED, "ignored", False, False),
    ],
)
def test_what_an_outcome_tells(outcome: Outcome, label: str, failed: bool, counted: bool) -> None:
    assert (outcome.label, outcome.failed, outcome.counted) == (label, failed, counted)
    # Plain attributes, since they are read on every call.
    assert vars(outcome).keys() >= {"label", "failed", "counted"}
    assert Outcome(outcome.value) is outcome  # type: ignore[call-arg]


def test_five_outcomes_that_are_not_aliases() -> None:
    assert len(Outcome) == 5


@pytest.mark.parametrize(
    ("statuses", "outcome"),
    [
        ((100, 101, 200, 204, 206, 301, 304, 399), SUCCESS),
        ((400, 401, 403, 404, 409, 410, 418, 422, 499, 501), SUCCESS),
        ((408, 425, 500, 505, 507, 511, 520, 599), FAILURE),
        ((502, 503, 504), OUTAGE),
        ((429,), THROTTLED),
        ((0, 99, 600, 999), FAILURE),
    ],
)
def test_status_table(statuses: tuple[int, ...], outcome: Outcome) -> None:
    assert {outcome_of_status(status) for status in statuses} == {outcome}


@given(st.integers())
def test_every_number_has_an_outcome(status: int) -> None:
    assert isinstance(outcome_of_status(status), Outcome)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (ConnectionRefusedError(), OUTAGE),
        (ConnectionResetError(), OUTAGE),
        (BrokenPipeError(), OUTAGE),
        (TimeoutError(), OUTAGE),
        (concurrent.futures.TimeoutError(), OUTAGE),
        (socket.gaierror(), OUTAGE),
        (ValueError(), FAILURE),
        (FileNotFoundError(), FAILURE),
        (ExceptionGroup("several", [ValueError()]), FAILURE),
        (AllTargetsFailed(), FAILURE),
        (Rejected(), IGNORED),
        (BulkheadFull(), IGNORED),
        (CircuitOpen(), IGNORED),
    ],
)
def test_error_table(error: BaseException, outcome: Outcome) -> None:
    assert outcome_of_error(error) is outcome


@pytest.mark.parametrize("error", [asyncio.CancelledError(), KeyboardInterrupt(), GeneratorExit(), SystemExit()], ids=repr)
def test_ground_26_a_cancellation_is_neutral(error: BaseException) -> None:
    assert outcome_of_error(error) is IGNORED
    assert outcome_of_error(BaseExceptionGroup("several", [error])) is IGNORED


@pytest.mark.parametrize(
    ("ran", "own_timeout", "p95", "outcome"),
    [
        # Its own full timeout, within a timer's millisecond, whatever is usual.
        (10.0, 10.0, 30.0, OUTAGE),
        (9.999, 10.0, 30.0, OUTAGE),
        (9.99, 10.0, 30.0, IGNORED),
        # Longer than the p95 of successes.
        (0.201, 10.0, 0.2, OUTAGE),
        (0.2, 10.0, 0.2, IGNORED),
        # Too few samples: half of its own timeout, at most 1 s.
        (0.16, 0.3, None, OUTAGE),
        (0.15, 0.3, None, IGNORED),
        (1.01, 10.0, None, OUTAGE),
        (1.0, 10.0, None, IGNORED),
        (0.0, 10.0, None, IGNORED),
    ],
)
def test_cut_by_something_shorter(ran: float, own_timeout: float, p95: float | None, outcome: Outcome) -> None:
    assert outcome_of_cut(ran, own_timeout, p95) is outcome


@given(st.floats(0, 100), st.floats(0, 100), st.floats(0.01, 100), st.none() | st.floats(0, 100))
def test_a_longer_run_is_never_less_of_a_hang(ran: float, more: float, own_timeout: float, p95: float | None) -> None:
    if outcome_of_cut(ran, own_timeout, p95) is OUTAGE:
        assert outcome_of_cut(ran + more, own_timeout, p95) is OUTAGE
