"""What a breaker takes no notice of: fallbacks, refusals, the wall clock, calls that were never made."""

from __future__ import annotations

import time
from typing import Any

import pytest

from resilient import CircuitBreaker, CircuitOpen, Deadline, Fallback, Retry
from resilient.context import deadline_scope

from .driver import World


def steady(**settings: Any) -> CircuitBreaker:
    """One without jitter."""
    return CircuitBreaker(jitter=0.0, **settings)


def opened(world: World, circuit: CircuitBreaker, *outer: Any) -> Any:
    pipeline = world.pipeline(*outer, circuit, name="shop")
    circuit.trip("outage")
    return pipeline


def test_what_is_answered_from_a_fallback_is_neutral(world: World) -> None:
    """Further in it is the dependency's failure, further out it is nothing, and nowhere a success."""
    inner, outer = steady(fail_max=2), steady(trials=1)
    pipeline = world.pipeline(outer, Fallback("instead"), inner)
    outer.half_open()
    assert world.times(3, pipeline, ValueError) == ["instead"] * 3
    assert inner.current_state == "open"
    assert outer.current_state == "half-open" and outer.success_counter == 0


def test_a_rejection_by_the_breaker_is_not_counted_by_it(world: World) -> None:
    circuit = steady(break_time=3, max_break=3)
    pipeline = opened(world, circuit, Retry())
    world.times(50, pipeline, ValueError)
    world.sleep(3)
    assert world.times(3, pipeline) == ["ok"] * 3


def test_ground_35_pitfall_11_the_wall_clock_may_jump(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = opened(world, steady())
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert isinstance(world.fails(pipeline), CircuitOpen)
    monkeypatch.setattr(time, "time", lambda: 1e12)
    assert isinstance(world.fails(pipeline), CircuitOpen)
    world.sleep(1)
    assert world.call(pipeline) == "ok"


def test_a_deadline_in_the_past_takes_no_trial(world: World) -> None:
    circuit = steady(trials=1)
    pipeline = opened(world, circuit)
    world.sleep(1)
    with deadline_scope(Deadline(world.clock.now() - 1, world.clock)):
        world.fails(pipeline)
    assert world.call(pipeline) == "ok" and circuit.current_state == "closed"
