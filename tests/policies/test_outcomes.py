"""What the end of a plain call says of the dependency: the table of outcomes, seen through a whole pipeline."""

from __future__ import annotations

import concurrent.futures
import socket
from typing import Any

import pytest

from resilient import Bulkhead, BulkheadFull, CircuitBreaker, CircuitOpen, Outcome, RateLimited, Retry
from resilient.core.backoff import Constant

from .driver import World, takes

OUTAGES = [ConnectionError, ConnectionRefusedError, BrokenPipeError, TimeoutError, socket.gaierror, concurrent.futures.TimeoutError]
FAILURES = [ValueError, KeyError, OSError, RuntimeError, ExceptionGroup("several", [ValueError()])]
IGNORED = [CircuitOpen("another's"), BulkheadFull("another's"), RateLimited("another's")]


def judged(world: World, error: Any) -> tuple[str, bool]:
    """The outward word, and whether it is an outage: the row of those trips, one of the others does not."""
    circuit = CircuitBreaker(outage_failures=1, outage_quiet=0, minimum_calls=1000)
    pipeline = world.pipeline(circuit)
    world.fails(pipeline, error)
    (word,) = (word for word, count in pipeline.stats.snapshot().counts.items() if count)
    assert circuit.fail_counter == (word == "failure")
    return word, circuit.current_state == "open"


@pytest.mark.parametrize("error", OUTAGES)
def test_nobody_there(world: World, error: Any) -> None:
    assert judged(world, error) == ("failure", True)


@pytest.mark.parametrize("error", FAILURES)
def test_it_failed(world: World, error: Any) -> None:
    assert judged(world, error) == ("failure", False)


@pytest.mark.parametrize("error", IGNORED)
def test_somebody_elses_refusal(world: World, error: Any) -> None:
    assert judged(world, error) == ("ignored", False)


@pytest.mark.parametrize("outcome", list(Outcome))
def test_a_hook_overrides(world: World, outcome: Outcome) -> None:
    circuit = CircuitBreaker(outage_failures=2, outage_quiet=0, minimum_calls=1000)
    pipeline = world.pipeline(circuit, classify=lambda result, error: outcome)
    world.call(pipeline, "answer")
    world.fails(pipeline, ValueError)
    assert pipeline.stats.snapshot().counts[outcome.label] == 2
    assert (circuit.current_state == "open") == (outcome is Outcome.OUTAGE)


def test_a_hook_is_not_asked_of_our_own_refusals(world: World) -> None:
    circuit = CircuitBreaker(fail_max=1)
    pipeline = world.pipeline(
        circuit, Bulkhead(max_concurrent=1, queue=0), classify=lambda result, error: Outcome.FAILURE if error else None
    )
    ends = world.together(pipeline, (0, takes(1)), (0.5, "too many"))
    assert isinstance(ends[1].error, BulkheadFull)
    assert circuit.fail_counter == 0 and pipeline.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 1}


def test_a_hook_may_leave_it_to_the_default(world: World) -> None:
    seen = []

    def classify(result: Any, error: BaseException | None) -> None:
        seen.append((result, type(error).__name__))

    pipeline = world.pipeline(classify=classify)
    world.call(pipeline, "answer")
    world.fails(pipeline, KeyError)
    assert seen == [("answer", "NoneType"), (None, "KeyError")]
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 1, "ignored": 0}


def test_pitfall_08_the_last_attempt_is_judged_too(world: World) -> None:
    circuit = CircuitBreaker(fail_max=3)
    pipeline = world.pipeline(Retry(on=ValueError, backoff=Constant(0, jitter="none")), circuit)
    world.fails(pipeline, ValueError)
    assert circuit.current_state == "open"
    assert pipeline.stats.snapshot().counts["failure"] == 1  # one call, three attempts


def test_only_successes_teach_how_long_a_call_takes(world: World) -> None:
    pipeline = world.pipeline()
    world.times(30, pipeline, takes(9, ValueError))
    assert pipeline.stats.p95() is None
    world.times(19, pipeline, takes(0.2))
    assert pipeline.stats.p95() is None
    world.times(1, pipeline, takes(0.2))
    assert pipeline.stats.p95() == pytest.approx(0.2, rel=0.125)  # the width of a bucket
