"""Timeout: total, attempt, deadlines from outside, what a cut says of the dependency, and late values."""

from __future__ import annotations

import math
from typing import Any

import pytest

from resilient import CircuitBreaker, Deadline, DeadlineExceeded, Fallback, Retry, Timeout, current_deadline
from resilient.context import deadline_scope
from resilient.core.backoff import Constant
from resilient.events import DeadlinePassed
from resilient.testing import FakeClock

from .driver import Script, World, only_awaited, only_in_threads, takes


def cut_or_late(world: World, seconds: float, late: float) -> tuple[float, str]:
    """When a call that takes `late` seconds under a limit of `seconds` is over, and which limit is told."""
    return (seconds, "total") if world.interrupts else (late, "late")


def test_a_call_in_time_is_not_touched(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=2))
    assert world.call(pipeline, takes(1.9)) == "ok"
    assert world.now == pytest.approx(1.9)
    assert not world.listener.events


def test_the_total_bounds_a_call(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=2), name="shop")
    if world.interrupts:
        error = world.fails(pipeline, takes(5))
        assert isinstance(error, DeadlineExceeded) and isinstance(error, TimeoutError)
        assert (error.dependency, error.policy, error.reason) == ("shop", "timeout", "total")
    else:
        assert world.call(pipeline, takes(5)) == "ok"  # a deadline never interrupts running code
    ended, limit = cut_or_late(world, 2, 5)
    assert world.now == pytest.approx(ended)
    assert [(event.side, event.limit, event.dependency) for event in world.listener.of(DeadlinePassed)] == [("outbound", limit, "shop")]


def test_retries_and_their_waits_count_towards_the_total(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=2), Retry(attempts=10, on=ValueError, backoff=Constant(0.4, jitter="none")))
    script = Script(takes(0.3, ValueError))
    assert isinstance(world.fails(pipeline, script), ValueError)
    assert script.asked == pytest.approx([0, 0.7, 1.4])  # the next one could not begin before 2.1
    assert world.now == pytest.approx(1.7)


def test_the_attempt_limit_leaves_time_for_another(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=10, attempt=1), Retry(attempts=2, on=TimeoutError, backoff=Constant(0.5, jitter="none")))
    script = Script(takes(3, "late"), "ok")
    if world.interrupts:
        assert world.call(pipeline, script) == "ok"
        assert script.asked == pytest.approx([0, 1.5])
        assert [event.limit for event in world.listener.of(DeadlinePassed)] == ["attempt"]
    else:
        assert world.call(pipeline, script) == "late"
        assert script.asked == [0]


def test_the_last_attempt_has_all_that_is_left(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=10, attempt=1), Retry(attempts=2, on=Exception, backoff=Constant(0, jitter="none")))
    assert world.call(pipeline, ValueError, takes(9, "patience")) == "patience"


def test_an_attempt_that_none_can_follow_has_the_whole_total(world: World) -> None:
    """A plain function is repeated only for errors that are named; without any, no other attempt could follow."""
    assert world.call(world.pipeline(Timeout(total=10, attempt=1), Retry()), takes(9)) == "ok"
    assert world.call(world.pipeline(Timeout(total=10, attempt=1)), takes(9)) == "ok"


def test_an_attempt_with_too_little_left_is_not_started(world: World) -> None:
    pipeline = world.pipeline(Timeout(total=1, min_useful=0.5), Retry(attempts=2, on=ValueError, backoff=Constant(0, jitter="none")))
    script = Script(takes(0.6, ValueError), "ok")
    assert isinstance(world.fails(pipeline, script), ValueError)
    assert script.asked == [0]


def test_a_deadline_that_is_over_already_starts_nothing(world: World) -> None:
    script = Script()
    with deadline_scope(Deadline(world.clock.now() - 1, world.clock)):
        error = world.fails(world.pipeline(), script)
    assert isinstance(error, DeadlineExceeded) and error.reason == "caller"
    assert script.asked == []


@pytest.mark.parametrize(("inner", "outer", "reason"), [(1.0, 3.0, "total"), (3.0, 1.0, "caller")])
def test_the_earliest_deadline_holds(world: World, inner: float, outer: float, reason: str) -> None:
    with deadline_scope(Deadline.after(outer, world.clock)):
        if world.interrupts:
            error = world.fails(world.pipeline(Timeout(total=inner)), takes(5))
            assert isinstance(error, DeadlineExceeded) and error.reason == reason
            assert world.now == pytest.approx(1)
        else:
            assert world.call(world.pipeline(Timeout(total=inner)), takes(5)) == "ok"
            assert [event.limit for event in world.listener.of(DeadlinePassed)] == ["late"]


def test_an_inbound_deadline_keeps_a_reserve_for_the_reply(world: World) -> None:
    seen = []
    with deadline_scope(Deadline(world.clock.now() + 2, world.clock, inbound=True)):
        world.call(world.pipeline(Timeout(total=30)), lambda: seen.append(current_deadline().remaining))  # type: ignore[union-attr]
    assert seen == pytest.approx([2 - 0.005])


def test_the_deadline_is_visible_inside_the_call_and_gone_after_it(world: World) -> None:
    seen: list[Any] = []
    pipeline = world.pipeline(Timeout(total=3, attempt=1), Retry(attempts=2, on=ValueError, backoff=Constant(0.5, jitter="none")))

    def look() -> None:
        deadline = current_deadline()
        seen.append((deadline, deadline and deadline.remaining))
        if len(seen) == 1:
            raise ValueError("again")

    world.call(pipeline, look)
    assert [left for _, left in seen] == pytest.approx([1.0, 2.5])  # the attempt's limit, then what is left of the total
    assert current_deadline() is None
    # What was started inside has a context of its own, in which the deadline ends with the attempt too.
    assert [deadline.at for deadline, _ in seen] == [math.inf, math.inf]


@pytest.mark.parametrize("attempt", [None, math.inf])
def test_an_infinite_deadline_is_none(world: World, attempt: float | None) -> None:
    with deadline_scope(Deadline(math.inf, world.clock)):
        world.call(world.pipeline(Timeout(total=math.inf, attempt=attempt)), lambda: None)
        world.call(world.pipeline(CircuitBreaker()), lambda: None)
    assert not world.listener.events


def test_a_deadline_of_another_clock_counts_by_what_is_left(world: World) -> None:
    other = FakeClock(5.0)
    with deadline_scope(Deadline.after(2, other)):
        world.call(world.pipeline(Timeout(total=30)), lambda: None)
    with deadline_scope(Deadline(other.now() - 1, other)):
        assert isinstance(world.fails(world.pipeline(Timeout(total=30)), 1), DeadlineExceeded)


def test_ground_13_the_callees_own_timeout_error_passes_untouched(world: World) -> None:
    error = TimeoutError("mine")
    raised = world.fails(world.pipeline(Timeout(total=30)), error)
    assert type(raised) is TimeoutError and str(raised) == "mine"
    assert not world.listener.of(DeadlinePassed)


def test_pitfall_12_the_callees_timeout_error_at_once_is_not_told_as_ours(world: World) -> None:
    assert not isinstance(world.fails(world.pipeline(Timeout(total=30, attempt=10)), TimeoutError("0 s")), DeadlineExceeded)


def test_infinity_is_no_limit(world: World) -> None:
    assert world.call(world.pipeline(Timeout(total=math.inf)), takes(1e6)) == "ok"


def test_each_attempt_may_have_a_total_of_its_own(world: World) -> None:
    """Any order is allowed: a Timeout inside a Retry bounds each attempt alone."""
    pipeline = world.pipeline(Retry(attempts=3, on=TimeoutError, backoff=Constant(0.5, jitter="none")), Timeout(total=1))
    script = Script(takes(5, "late"), takes(5, "late"), takes(0.5))
    if world.interrupts:
        assert world.call(pipeline, script) == "ok"
        assert script.asked == pytest.approx([0, 1.5, 3])
    else:
        assert world.call(pipeline, script) == "late"


@only_awaited
def test_an_outer_total_stays_in_force_around_inner_ones(world: World) -> None:
    retry = Retry(attempts=9, on=TimeoutError, backoff=Constant(0, jitter="none"))
    pipeline = world.pipeline(Timeout(total=2.5), retry, Timeout(total=1))
    script = Script(takes(5))
    error = world.fails(pipeline, script)
    assert isinstance(error, DeadlineExceeded)
    assert world.now == pytest.approx(2.5)
    assert len(script.asked) == 3


# -- what it says of the dependency ------------------------------------------------------------------------------


def breaker() -> CircuitBreaker:
    return CircuitBreaker(outage_failures=1, outage_quiet=0)


def test_a_full_own_total_is_a_failure(world: World) -> None:
    circuit = breaker()
    pipeline = world.pipeline(Timeout(total=2), circuit)
    world.times(1, pipeline, takes(5))
    assert circuit.current_state == "open"


def test_an_impatient_caller_does_not_open_a_healthy_circuit(world: World) -> None:
    circuit = breaker()
    pipeline = world.pipeline(Timeout(total=10), circuit)
    for _ in range(20):
        world.call(pipeline, takes(0.2))
    with deadline_scope(Deadline.after(0.1, world.clock)):
        world.times(1, pipeline, takes(0.15))
    assert circuit.current_state == "closed"
    assert pipeline.stats.snapshot().counts["ignored"] == 1


def test_a_hang_is_seen_though_every_caller_is_impatient(world: World) -> None:
    circuit = breaker()
    pipeline = world.pipeline(Timeout(total=10), circuit)
    for _ in range(20):
        world.call(pipeline, takes(0.2))
    with deadline_scope(Deadline.after(0.5, world.clock)):
        world.times(1, pipeline, takes(5))
    assert circuit.current_state == "open"


@pytest.mark.parametrize(("patience", "state"), [(0.9, "closed"), (1.1, "open")])
def test_with_few_samples_a_second_is_long(world: World, patience: float, state: str) -> None:
    circuit = breaker()
    pipeline = world.pipeline(Timeout(total=10), circuit)
    with deadline_scope(Deadline.after(patience, world.clock)):
        world.times(1, pipeline, takes(patience + 0.01))
    assert circuit.current_state == state


@only_in_threads
def test_a_late_value_is_returned_counted_and_a_failure(world: World) -> None:
    circuit = breaker()
    pipeline = world.pipeline(Fallback("fallback"), Timeout(total=1), circuit, name="shop")
    assert world.call(pipeline, takes(2, "late")) == "late"
    assert circuit.current_state == "open"
    assert pipeline.stats.snapshot().counts["failure"] == 1
    assert [event.limit for event in world.listener.of(DeadlinePassed)] == ["late"]


@only_in_threads
def test_an_error_after_the_deadline_is_still_that_error(world: World) -> None:
    assert isinstance(world.fails(world.pipeline(Timeout(total=1)), takes(2, KeyError)), KeyError)
