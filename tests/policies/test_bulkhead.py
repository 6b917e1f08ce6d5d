"""Bulkhead: slots, the queue in front of them, and who waits how long. The slots alone are tested in core."""

from __future__ import annotations

import pytest

from resilient import Bulkhead, BulkheadFull, CircuitBreaker, Deadline, DeadlineExceeded, Timeout
from resilient.call import Call
from resilient.context import deadline_scope
from resilient.events import CallRejected, DeadlinePassed
from resilient.protocols import Inner

from .driver import Arrival, Script, World, at, takes


def rejections(world: World) -> list[tuple[str, str, bool]]:
    return [(event.policy, event.reason, event.enforced) for event in world.listener.of(CallRejected)]


def test_no_more_than_so_many_at_a_time(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=3)
    pipeline = world.pipeline(bulkhead)
    seen: list[tuple[int, int]] = []
    ends = world.together(
        pipeline,
        *[(number / 1000, takes(1)) for number in range(6)],
        at(0.5, lambda: seen.append((bulkhead.in_use, bulkhead.queued))),
        at(1.5, lambda: seen.append((bulkhead.in_use, bulkhead.queued))),
    )
    assert seen == [(3, 3), (3, 0)]
    assert [end.at for end in ends] == pytest.approx([1, 1.001, 1.002, 2, 2.001, 2.002])
    assert (bulkhead.in_use, bulkhead.queued, bulkhead.limit) == (0, 0, 3)


def test_first_come_first_served(world: World) -> None:
    pipeline = world.pipeline(Bulkhead(max_concurrent=1))
    ends = world.together(pipeline, *[(number / 100, takes(0.05)) for number in range(10)])
    assert [end.at for end in ends] == sorted(end.at for end in ends)


@pytest.mark.slow
def test_a_gather_of_500_works_as_without(world: World) -> None:
    ends = world.together(world.pipeline(Bulkhead()), *[(0.0, takes(0.5))] * 500)
    assert all(end.value == "ok" for end in ends)
    assert max(end.at for end in ends) == pytest.approx(2.5)


def test_a_full_queue_rejects_at_once(world: World) -> None:
    pipeline = world.pipeline(Bulkhead(max_concurrent=1, queue=1), name="shop")
    ends = world.together(pipeline, (0, takes(1)), (0.1, takes(1)), (0.2, "too many"))
    error = ends[2].error
    assert isinstance(error, BulkheadFull) and ends[2].at == pytest.approx(0.2)
    assert (error.dependency, error.policy, error.reason) == ("shop", "bulkhead", "full")
    assert rejections(world) == [("bulkhead", "full", True)]


def test_waiting_has_an_end(world: World) -> None:
    pipeline = world.pipeline(Bulkhead(max_concurrent=1, max_wait=2))
    ends = world.together(pipeline, (0, takes(10)), (0.5, "waits"))
    error = ends[1].error
    assert isinstance(error, BulkheadFull) and error.reason == "waited" and ends[1].at == pytest.approx(2.5)


def test_by_default_five_seconds_or_the_pool_timeout_of_the_request(world: World) -> None:
    class PoolTimeout:
        def run(self, call: Call, inner: Inner) -> object:
            call.queue_timeout = 2.0
            return inner(call)

    for policies, waited in (((), 5), ((PoolTimeout(),), 2)):
        pipeline = world.pipeline(*policies, Bulkhead(max_concurrent=1))
        ends = world.together(pipeline, (0, takes(10)), (0.5, "waits"))
        assert ends[1].at == pytest.approx(0.5 + waited)


def test_no_wait_where_none_is_wanted(world: World) -> None:
    ends = world.together(world.pipeline(Bulkhead(max_concurrent=1, max_wait=0)), (0, takes(1)), (0.5, "waits"))
    assert isinstance(ends[1].error, BulkheadFull) and ends[1].at == pytest.approx(0.5)


def test_the_deadline_ends_the_wait_as_a_deadline(world: World) -> None:
    bulkhead, circuit, script = Bulkhead(max_concurrent=1), CircuitBreaker(1), Script()
    patient = world.pipeline(bulkhead)
    pipeline = world.pipeline(circuit, Timeout(total=2), bulkhead, name="shop")
    ends = world.scene([Arrival(0, script=Script(takes(5)), pipeline=patient), Arrival(0.2, script=script, pipeline=pipeline)])
    error = ends[1].error
    assert isinstance(error, DeadlineExceeded) and ends[1].at == pytest.approx(2.2)
    assert (error.policy, error.reason) == ("bulkhead", "total")
    assert script.asked == []
    assert [event.limit for event in world.listener.of(DeadlinePassed)] == ["total"]
    assert circuit.fail_counter == 0  # that says nothing of the dependency


def test_a_deadline_from_outside_ends_it_too(world: World) -> None:
    pipeline = world.pipeline(Bulkhead(max_concurrent=1))
    with deadline_scope(Deadline.after(0.5, world.clock)):
        ends = world.together(pipeline, (0, takes(0.45)), (0.1, takes(0.1)), (0.11, takes(0.1)))
    assert isinstance(ends[2].error, DeadlineExceeded) and ends[2].error.reason == "caller"


def test_a_burst_may_queue_and_a_standing_queue_may_not(world: World) -> None:
    """Once it has not been empty for a second, whoever joins waits 50 ms."""
    pipeline = world.pipeline(Bulkhead(max_concurrent=1))
    ends = world.together(pipeline, (0, takes(3)), (0.5, "burst"), (1.4, "burst"), (1.6, "standing"))
    assert [end.value for end in ends] == ["ok", "burst", "burst", None]
    error = ends[3].error
    assert isinstance(error, BulkheadFull) and error.reason == "standing"
    assert ends[3].at == pytest.approx(1.65)


def test_once_the_queue_was_empty_one_may_wait_again(world: World) -> None:
    pipeline = world.pipeline(Bulkhead(max_concurrent=1))
    ends = world.together(pipeline, (0, takes(3)), (0.5, "burst"), (3.1, takes(2)), (4, "waits"))
    assert [end.value for end in ends] == ["ok", "burst", "ok", "waits"]
    assert ends[3].at == pytest.approx(5.1)


def test_a_rejection_says_nothing_of_the_dependency(world: World) -> None:
    circuit = CircuitBreaker(1, success_threshold=1)
    pipeline = world.pipeline(circuit, Bulkhead(max_concurrent=1, queue=0))
    ends = world.together(pipeline, (0, takes(1)), *[(0.5, "too many")] * 5)
    assert sum(isinstance(end.error, BulkheadFull) for end in ends) == 5
    assert circuit.current_state == "closed" and circuit.fail_counter == 0
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 5}


def test_an_error_gives_the_slot_back(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, queue=0)
    assert world.times(5, world.pipeline(bulkhead), ValueError) == ["ValueError"] * 5
    assert bulkhead.in_use == 0


def test_one_bulkhead_for_several_pipelines(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, queue=0)
    first, second = world.pipeline(bulkhead), world.pipeline(bulkhead)
    errors = []
    world.together(first, (0, takes(1)), at(0.5, lambda: errors.append(bulkhead.in_use)))
    assert errors == [1] and world.call(second) == "ok"


def test_reset_takes_no_slot_from_a_call_under_way(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, queue=0)
    pipeline = world.pipeline(bulkhead)
    ends = world.together(pipeline, (0, takes(2)), at(0.5, pipeline.reset), (1, "too many"))
    assert isinstance(ends[1].error, BulkheadFull)
    assert bulkhead.in_use == 0
