"""How long a circuit stays open where a function says so, and where it begins."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from resilient import CircuitBreaker, CircuitOpen
from resilient.events import CircuitChanged

from .driver import World


def opened_for(world: World, pipeline: Any) -> float:
    error = world.fails(pipeline)
    assert isinstance(error, CircuitOpen) and error.retry_after is not None
    return error.retry_after


def test_a_function_says_how_long_each_break_is(world: World) -> None:
    asked: list[tuple[int, str]] = []

    def break_for(number: int, reason: str) -> float:
        asked.append((number, reason))
        return 10.0 * number

    circuit = CircuitBreaker(fail_max=1, trials=1, break_for=break_for)
    pipeline = world.pipeline(circuit)
    breaks = []
    for _ in range(3):
        assert isinstance(world.fails(pipeline, ConnectionError), ConnectionError)
        breaks.append(opened_for(world, pipeline))
        world.sleep(breaks[-1])
    assert breaks == [pytest.approx(10), pytest.approx(20), pytest.approx(30)]
    assert world.call(pipeline) == "ok"
    world.fails(pipeline, ConnectionError)
    assert asked == [(1, "consecutive"), (2, "trial"), (3, "trial"), (1, "consecutive")]
    told = [event.retry_after for event in world.listener.of(CircuitChanged) if event.new == "open"]
    assert told == [10.0, 20.0, 30.0, 10.0]


def test_a_trip_by_hand_asks_it_too_and_isolation_does_not(world: World) -> None:
    circuit = CircuitBreaker(break_for=lambda number, reason: {"forced": 7.0}[reason])
    pipeline = world.pipeline(circuit)
    circuit.trip()
    assert opened_for(world, pipeline) == pytest.approx(7)
    circuit.open()
    error = world.fails(pipeline)
    assert isinstance(error, CircuitOpen) and error.retry_after is None


@pytest.mark.parametrize("broken", [0, -1, float("nan"), float("inf"), "5", None, ZeroDivisionError])
def test_where_it_fails_the_break_is_the_usual_one(world: World, broken: Any, caplog: pytest.LogCaptureFixture) -> None:
    def break_for(number: int, reason: str) -> Any:
        if broken is ZeroDivisionError:
            raise broken
        return broken

    circuit = CircuitBreaker(fail_max=1, break_for=break_for, random=lambda: 0.5)
    pipeline = world.pipeline(circuit)
    with caplog.at_level(logging.ERROR, "resilient"):
        world.fails(pipeline, ConnectionError)
    assert opened_for(world, pipeline) == pytest.approx(1)
    assert "break_for" in caplog.text


def test_it_may_use_the_breaker_for_it_is_called_outside_the_lock(world: World) -> None:
    def break_for(number: int, reason: str) -> float:
        circuit.trip()  # which changes nothing: it is open already
        return 2.0 if circuit.current_state == "open" else 9.0

    circuit = CircuitBreaker(fail_max=1, break_for=break_for)
    pipeline = world.pipeline(circuit)
    world.fails(pipeline, ConnectionError)
    assert opened_for(world, pipeline) == pytest.approx(2)


def test_a_break_that_is_over_already_is_not_lengthened(world: World) -> None:
    """Somebody closed the circuit while the function was thinking."""

    def break_for(number: int, reason: str) -> float:
        circuit.close()
        return 50.0

    circuit = CircuitBreaker(fail_max=1, break_for=break_for)
    pipeline = world.pipeline(circuit)
    world.fails(pipeline, ConnectionError)
    assert circuit.current_state == "closed" and world.call(pipeline) == "ok"


# -- where it begins --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("state", "ends"), [("closed", ["ok"] * 4), ("half-open", ["ok"] * 4), ("open", ["CircuitOpen"] * 4)])
def test_it_begins_as_it_is_told(world: World, state: str, ends: list[str]) -> None:
    circuit = CircuitBreaker(initial_state=state)
    assert circuit.current_state == state
    assert world.times(4, world.pipeline(circuit)) == ends
    assert circuit.current_state == ("open" if state == "open" else "closed")


def test_begun_half_open_a_round_of_failures_opens_it(world: World) -> None:
    circuit = CircuitBreaker(initial_state="half-open")
    assert world.times(3, world.pipeline(circuit), ValueError) == ["ValueError", "ValueError", "CircuitOpen"]


def test_begun_open_it_is_isolated_until_closed(world: World) -> None:
    circuit = CircuitBreaker(initial_state="open")
    pipeline = world.pipeline(circuit)
    world.sleep(3600)
    error = world.fails(pipeline)
    assert isinstance(error, CircuitOpen) and (error.reason, error.retry_after) == ("forced", None)
    circuit.close()
    assert world.call(pipeline) == "ok"
