"""CircuitBreaker in a pipeline: what trips it, what closes it, what callers see. The rules alone are tested in core."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Bulkhead, CircuitBreaker, CircuitOpen, Outcome, Rejected, Timeout
from resilient.events import CallRejected, CircuitChanged

from .driver import Script, World, at, only_awaited, takes


def steady(**settings: Any) -> CircuitBreaker:
    """One without jitter."""
    return CircuitBreaker(jitter=0.0, **settings)


def changes(world: World) -> list[tuple[str, str, str]]:
    return [(event.old, event.new, event.reason) for event in world.listener.of(CircuitChanged)]


def opened(world: World, circuit: CircuitBreaker, *outer: Any) -> Any:
    pipeline = world.pipeline(*outer, circuit, name="shop")
    circuit.trip("outage")
    world.listener.clear()
    return pipeline


# -- tripping ----------------------------------------------------------------------------------------------------


def test_a_dead_dependency_is_noticed_in_a_second(world: World) -> None:
    pipeline = world.pipeline(steady(), name="shop")
    ends = world.times(20, pipeline, ConnectionRefusedError, every=0.25)
    assert ends.index("CircuitOpen") == 5  # five in a row, and 1 s without a success
    assert changes(world)[0] == ("closed", "open", "outage")
    assert world.listener.of(CircuitChanged)[0].dependency == "shop"


def test_a_blip_in_the_middle_of_traffic_trips_nothing(world: World) -> None:
    circuit = steady()
    pipeline = world.pipeline(circuit)
    world.together(pipeline, *[(number / 20, "ok") for number in range(60)], *[(3, takes(0.05, ConnectionError))] * 100)
    assert circuit.current_state == "closed"
    assert world.call(pipeline) == "ok"


def test_a_dependency_that_answers_half_of_the_time_is_used(world: World) -> None:
    circuit = steady()
    pipeline = world.pipeline(circuit)
    for _ in range(60):
        world.times(2, pipeline, Script("ok", ConnectionError), every=0.1)
    assert circuit.current_state == "closed"


def test_ground_31_half_failures_trip_where_so_set(world: World) -> None:
    circuit = steady(failure_rate=0.5)
    pipeline = world.pipeline(circuit)
    world.times(20, pipeline, Script(*["ok", ValueError] * 10), every=0.1)
    assert circuit.reason == "failure_rate" and circuit.current_state == "open"


def test_a_plain_exception_is_a_failure_but_no_outage(world: World) -> None:
    circuit = steady(failure_rate=1.0, minimum_calls=100)
    world.times(50, world.pipeline(circuit), ValueError, every=0.1)
    assert circuit.current_state == "closed" and circuit.fail_counter == 50


def test_pitfall_11_the_window_forgets(world: World) -> None:
    circuit = steady()
    pipeline = world.pipeline(circuit)
    for _ in range(10):
        world.times(19, pipeline, ValueError)  # one fewer than it takes
        world.sleep(11)
    assert circuit.current_state == "closed"


def test_ground_27_excluded_errors_are_neutral(world: World) -> None:
    circuit = steady(fail_max=2, success_threshold=1, exclude=[KeyError])
    pipeline = world.pipeline(circuit)
    world.times(5, pipeline, Script(ValueError, KeyError, KeyError, KeyError, ValueError))
    assert circuit.current_state == "open"  # two failures in a row: what came between counts nowhere
    circuit.half_open()
    world.fails(pipeline, KeyError)
    assert circuit.current_state == "half-open"
    assert pipeline.stats.snapshot().counts["failure"] == 6  # excluded from the breaker, not from what is told


def test_slow_calls_trip_where_so_set(world: World) -> None:
    circuit = steady(slow_call=1.0, slow_rate=0.5, minimum_calls=4, window=60)
    pipeline = world.pipeline(circuit)
    world.times(4, pipeline, Script("ok", takes(1.5), "ok", takes(1.0)))
    assert circuit.reason == "slow_rate"


def test_switching_slow_calls_on_does_not_make_a_call_slow_that_is_under_way(world: World) -> None:
    circuit = steady(minimum_calls=1)
    pipeline = world.pipeline(circuit)
    world.together(pipeline, (0, takes(0.2)), at(0.1, lambda: circuit.configure(slow_call=5, slow_rate=0.1)))
    assert circuit.current_state == "closed"


def test_the_tripping_call_keeps_its_own_error(world: World) -> None:
    assert isinstance(world.fails(world.pipeline(steady(outage_failures=1, outage_quiet=0)), ConnectionError("mine")), ConnectionError)


def test_a_classifier_decides(world: World) -> None:
    circuit = steady(outage_failures=3, outage_quiet=0)
    pipeline = world.pipeline(circuit, classify=lambda result, error: Outcome.OUTAGE if result == "sorry" else None)
    assert world.times(4, pipeline, "sorry") == ["sorry"] * 3 + ["CircuitOpen"]


# -- open --------------------------------------------------------------------------------------------------------


def test_a_rejection_says_why_and_when_to_come_back(world: World) -> None:
    pipeline = opened(world, steady(break_time=2))
    world.sleep(0.5)
    script = Script()
    error = world.fails(pipeline, script)
    assert isinstance(error, CircuitOpen) and isinstance(error, Rejected)
    assert (error.dependency, error.policy, error.reason, error.retry_after) == ("shop", "breaker", "outage", pytest.approx(1.5))
    assert script.asked == []
    assert [(event.policy, event.reason, event.enforced) for event in world.listener.of(CallRejected)] == [("breaker", "outage", True)]
    assert pipeline.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 1}


def test_a_rejection_of_an_inner_dependency_is_no_failure_of_the_outer_one(world: World) -> None:
    circuit = steady(outage_failures=1, outage_quiet=0)
    assert isinstance(world.fails(world.pipeline(circuit), CircuitOpen("inner", dependency="inner")), CircuitOpen)
    assert circuit.current_state == "closed" and circuit.fail_counter == 0


def test_isolated_by_hand_until_closed_by_hand(world: World) -> None:
    circuit = steady()
    pipeline = world.pipeline(circuit)
    circuit.open()
    world.sleep(3600)
    error = world.fails(pipeline)
    assert isinstance(error, CircuitOpen) and (error.reason, error.retry_after) == ("forced", None)
    circuit.close()
    assert world.call(pipeline) == "ok"
    assert changes(world) == [("closed", "open", "forced"), ("open", "closed", "forced")]


# -- half-open ---------------------------------------------------------------------------------------------------


def test_three_good_trials_close_it(world: World) -> None:
    circuit = steady()
    pipeline = opened(world, circuit)
    world.sleep(1)
    assert world.times(3, pipeline) == ["ok"] * 3
    assert circuit.current_state == "closed" and circuit.reason == ""
    assert changes(world) == [("open", "half-open", "break_over"), ("half-open", "closed", "recovered")]


def test_two_of_three_failed_open_it_again_for_longer(world: World) -> None:
    circuit = steady()
    pipeline = opened(world, circuit)
    breaks = []
    for _ in range(4):
        error = world.fails(pipeline)
        assert isinstance(error, CircuitOpen) and error.retry_after is not None
        breaks.append(error.retry_after)
        world.sleep(error.retry_after)
        assert world.times(3, pipeline, ConnectionError) == ["ConnectionError"] * 2 + ["CircuitOpen"]
    assert breaks == pytest.approx([1, 2, 3, 3])
    assert circuit.reason == "outage"


def test_breaks_are_spread(world: World) -> None:
    breaks = set()
    for draw in (0.0, 0.25, 0.999999):
        circuit = CircuitBreaker(random=lambda draw=draw: draw)
        error = world.fails(opened(world, circuit))
        assert isinstance(error, CircuitOpen)
        breaks.add(round(error.retry_after or 0, 3))
    assert breaks == {0.8, 0.9, 1.2}


@pytest.mark.parametrize("trials", [1, 3])
def test_ground_28_no_more_than_n_trials_at_a_time(world: World, trials: int) -> None:
    pipeline = opened(world, steady(trials=trials))
    world.sleep(1)
    ends = world.together(pipeline, *[(number / 1000, takes(1)) for number in range(200)])
    assert [end.value for end in ends].count("ok") == trials
    assert all(isinstance(end.error, CircuitOpen) for end in ends[trials:])


def test_pitfall_02_no_stampede_on_a_dependency_that_is_just_getting_up(world: World) -> None:
    """500 callers at the very moment the break is over: three of them get through."""
    pipeline = opened(world, steady())
    world.sleep(1)
    ends = world.together(pipeline, *[(0.0, takes(1))] * 500)
    assert sum(end.error is None for end in ends) == 3


def test_ground_29_pitfall_11_a_call_from_before_the_outage_neither_closes_nor_opens(world: World) -> None:
    circuit = steady()
    pipeline = world.pipeline(circuit)
    states: list[str] = []
    world.together(
        pipeline,
        *[(0.0, takes(5))] * 3,  # begun while it was closed, ending well while it is half-open
        *[(0.1, takes(5, ConnectionError))] * 3,
        at(1, lambda: circuit.trip("outage")),
        (4, takes(3)),
        at(6, lambda: states.append(circuit.current_state)),
    )
    assert states == ["half-open"]


def test_ground_30_a_late_failure_does_not_extend_the_break(world: World) -> None:
    circuit = steady(break_time=2)
    pipeline = world.pipeline(circuit)
    ends = world.together(pipeline, (0, takes(2.5, ConnectionError)), at(1, lambda: circuit.trip("outage")), (3.1, "trial"))
    assert ends[1].value == "trial"


def test_pitfall_03_a_hung_trial_cannot_wedge_it(world: World) -> None:
    pipeline = opened(world, steady(trials=1, lease=10))
    world.sleep(1)
    ends = world.together(pipeline, (0, takes(1000)), (9, "too soon"), (10.1, "next trial"))
    assert isinstance(ends[1].error, CircuitOpen)
    assert ends[2].value == "next trial"


@only_awaited
def test_pitfall_03_the_verdict_of_a_trial_that_times_out_counts(world: World) -> None:
    """Whatever a call's own limit is: the lease outlasts it, or a dead dependency would be asked for ever."""
    for timeout in (Timeout(total=60, attempt=20), Timeout(total=120)):
        circuit = steady()
        pipeline = opened(world, circuit, timeout)
        world.sleep(1)
        world.together(pipeline, *[(0.0, takes(1000))] * 3)
        assert circuit.current_state == "open"


def test_a_lease_of_ones_own_stays_as_it_is(world: World) -> None:
    pipeline = opened(world, steady(trials=1, lease=2), Timeout(total=60, attempt=1))
    world.sleep(1)
    ends = world.together(pipeline, (0, takes(50)), (2.1, "next trial"))
    assert ends[1].value == "next trial"


def test_a_throttled_trial_has_failed_and_elsewhere_it_counts_nowhere(world: World) -> None:
    circuit = steady(outage_failures=1, outage_quiet=0)
    pipeline = world.pipeline(circuit, classify=lambda result, error: Outcome.THROTTLED if result == "429" else None)
    world.times(50, pipeline, "429")
    assert circuit.current_state == "closed"
    circuit.trip()
    world.sleep(1)
    world.times(2, pipeline, "429")
    assert circuit.current_state == "open"


def test_a_refusal_further_in_gives_the_trial_back(world: World) -> None:
    circuit = steady(trials=1)
    pipeline = world.pipeline(circuit, Bulkhead(max_concurrent=1, queue=0))
    ends = world.together(pipeline, (0, takes(2)), at(0.1, circuit.half_open), (0.5, "refused"), (2.5, "trial"))
    assert type(ends[1].error).__name__ == "BulkheadFull"
    assert ends[2].value == "trial" and circuit.current_state == "closed"
