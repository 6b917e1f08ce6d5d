"""AdaptiveConcurrency: what moves its limit, what does not, and that it is a bulkhead in all else."""

from __future__ import annotations

import anyio
import pytest

from resilient import AdaptiveConcurrency, Bulkhead, BulkheadFull, CircuitBreaker, Dependency, Outcome, Pipeline, Retry, Timeout, standard
from resilient.call import Call
from resilient.core.backoff import Constant
from resilient.events import CallRejected
from resilient.protocols import Inner
from resilient.telemetry.source import gauges
from resilient.testing import FakeClock

from .driver import Arrival, Script, World, at, takes
from .test_threads import CALLS, THREADS, Tally, callers, in_threads


def busy(world: World, pipeline: Pipeline, *items: object, rounds: int, each: float, at_once: int) -> None:
    """So many calls at once, again and again."""
    world.together(pipeline, *[(round_ * each, *items) for round_ in range(rounds) for _ in range(at_once)])


def rejections(world: World) -> set[tuple[str, str, bool]]:
    return {(event.policy, event.reason, event.enforced) for event in world.listener.of(CallRejected)}


# -- what moves the limit ----------------------------------------------------------------------------------------


def test_it_begins_with_20_and_grows_as_long_as_latency_stays(world: World) -> None:
    adaptive = AdaptiveConcurrency()
    assert (adaptive.limit, adaptive.largest) == (20, 1000)
    busy(world, world.pipeline(adaptive), takes(0.05), rounds=20, each=0.3, at_once=20)
    assert adaptive.limit >= 40


def test_it_stays_where_fewer_than_a_half_are_under_way(world: World) -> None:
    adaptive = AdaptiveConcurrency()
    pipeline = world.pipeline(adaptive)
    busy(world, pipeline, takes(0.05), rounds=10, each=0.3, at_once=9)
    busy(world, pipeline, takes(5), rounds=3, each=6, at_once=9)
    busy(world, pipeline, ConnectionError, rounds=10, each=0.3, at_once=9)
    assert adaptive.limit == 20


def test_an_idle_hour_changes_nothing(world: World) -> None:
    adaptive = AdaptiveConcurrency()
    pipeline = world.pipeline(adaptive)
    world.call(pipeline, takes(0.05))
    world.sleep(3600)
    world.call(pipeline, takes(3))
    assert adaptive.limit == 20


def test_longer_calls_shrink_it(world: World) -> None:
    adaptive = AdaptiveConcurrency(max_concurrent=20)
    pipeline = world.pipeline(adaptive)
    busy(world, pipeline, takes(0.05), rounds=10, each=0.3, at_once=20)
    assert adaptive.limit == 20
    busy(world, pipeline, takes(0.5), rounds=4, each=2, at_once=20)
    assert adaptive.limit < 17


@pytest.mark.parametrize("law", ["gradient2", "aimd"])
def test_calls_that_nobody_answers_shrink_it(world: World, law: str) -> None:
    adaptive = AdaptiveConcurrency(law=law)
    busy(world, world.pipeline(adaptive), takes(0.01, ConnectionError), rounds=4, each=1, at_once=20)
    assert adaptive.limit <= 15


@pytest.mark.parametrize("law", ["gradient2", "aimd"])
def test_answers_that_are_failures_do_not(world: World, law: str) -> None:
    adaptive = AdaptiveConcurrency(law=law, max_concurrent=20)
    busy(world, world.pipeline(adaptive), takes(0.01, ValueError), rounds=10, each=1, at_once=20)
    assert adaptive.limit == 20


@pytest.mark.parametrize("outcome", [Outcome.IGNORED, Outcome.THROTTLED])
def test_what_says_nothing_of_the_dependency_does_not(world: World, outcome: Outcome) -> None:
    adaptive = AdaptiveConcurrency(max_concurrent=20)
    pipeline = world.pipeline(adaptive, classify=lambda result, error: outcome if error else None)
    busy(world, pipeline, takes(0.05), rounds=10, each=0.3, at_once=20)
    busy(world, pipeline, takes(5, ConnectionError), rounds=3, each=6, at_once=20)
    assert adaptive.limit == 20


def test_the_breakers_rejections_do_not(world: World) -> None:
    adaptive, circuit = AdaptiveConcurrency(max_concurrent=20), CircuitBreaker()
    circuit.open()
    busy(world, world.pipeline(adaptive, circuit), "ok", rounds=10, each=1, at_once=20)
    assert adaptive.limit == 20


def test_aimd_takes_no_notice_of_latency_below_its_timeout(world: World) -> None:
    adaptive = AdaptiveConcurrency(law="aimd", timeout=1)
    pipeline = world.pipeline(adaptive)
    busy(world, pipeline, takes(0.9), rounds=4, each=2, at_once=20)
    assert adaptive.limit > 20
    busy(world, pipeline, takes(1.1), rounds=4, each=3, at_once=20)
    assert adaptive.limit < 20


@pytest.mark.slow
def test_only_the_attempt_is_measured_not_the_waits_before_it(world: World) -> None:
    """Neither a slot's nor a retry's pause is the dependency's."""
    adaptive = AdaptiveConcurrency(max_concurrent=20, standing_after=60)
    queued = world.pipeline(adaptive)
    busy(world, queued, takes(0.05), rounds=10, each=0.3, at_once=20)
    busy(world, queued, takes(0.05), rounds=10, each=1, at_once=100)
    retried = world.pipeline(Retry(on=ValueError, backoff=Constant(3, jitter="none")), adaptive)
    busy(world, retried, takes(0.05, ValueError), takes(0.05), rounds=5, each=4, at_once=20)
    assert adaptive.limit == 20


@pytest.mark.slow
def test_nor_a_wait_for_the_pool_of_a_timed_call(world: World) -> None:
    adaptive = AdaptiveConcurrency(max_concurrent=20)

    class Pool:
        """Stands where the wait for a connection does: the attempt begins only after it."""

        async def run(self, call: Call, inner: Inner) -> object:
            await call.runtime.sleep(3)
            return await inner(call)

    pipeline = world.pipeline(Timeout(), adaptive, Pool())
    busy(world, pipeline, takes(0.05), rounds=10, each=4, at_once=20)
    plain = world.pipeline(Timeout(), adaptive)
    busy(world, plain, takes(0.05), rounds=10, each=4, at_once=20)
    busy(world, pipeline, takes(0.05), rounds=10, each=4, at_once=20)
    assert adaptive.limit == 20


def test_reset_begins_anew(world: World) -> None:
    adaptive = AdaptiveConcurrency()
    pipeline = world.pipeline(adaptive)
    busy(world, pipeline, takes(0.01, ConnectionError), rounds=4, each=1, at_once=20)
    assert adaptive.limit < 20
    pipeline.reset()
    assert adaptive.limit == 20


# -- a bulkhead all the same -------------------------------------------------------------------------------------


def test_the_queue_and_its_errors(world: World) -> None:
    adaptive = AdaptiveConcurrency(max_concurrent=1, queue=1, max_wait=0.5)
    pipeline = world.pipeline(adaptive, name="shop")
    ends = world.together(pipeline, (0, takes(1)), (0.1, "waits"), (0.2, "too many"))
    for end, reason in ((ends[1], "waited"), (ends[2], "full")):
        assert isinstance(end.error, BulkheadFull)
        assert (end.error.dependency, end.error.policy, end.error.reason) == ("shop", "adaptive", reason)
    assert rejections(world) == {("adaptive", "waited", True), ("adaptive", "full", True)}
    assert (adaptive.in_use, adaptive.queued) == (0, 0)


@pytest.mark.slow
def test_a_gather_of_500_works_with_the_preset_as_without(world: World) -> None:
    ends = world.together(world.pipeline(*standard()), *[(0.0, takes(0.5))] * 500)
    assert all(end.value == "ok" for end in ends)
    assert max(end.at for end in ends) == pytest.approx(2.5)


def test_slots_that_come_with_a_higher_limit_go_to_who_waits(world: World) -> None:
    adaptive = AdaptiveConcurrency(standing_after=60)
    seen: list[tuple[int, int]] = []
    ends = world.together(
        world.pipeline(adaptive),
        *[(0.0, takes(0.3))] * 200,
        *[at(moment, lambda: seen.append((adaptive.in_use, adaptive.limit))) for moment in (0.1, 0.5, 0.8, 1.1, 1.4)],
    )
    assert all(end.value == "ok" for end in ends)
    assert all(in_use <= limit for in_use, limit in seen)
    assert max(in_use for in_use, _ in seen) >= 40
    assert (adaptive.in_use, adaptive.queued) == (0, 0)


def test_nobody_waits_for_a_slot_that_would_come_too_late_to_be_of_use(world: World) -> None:
    """Sent with less time left than calls take, a call is work that nobody will want."""
    adaptive = AdaptiveConcurrency(max_concurrent=1)
    pipeline, script = world.pipeline(Timeout(total=1), adaptive), Script(takes(0.4))
    world.times(4, world.pipeline(adaptive), takes(0.4), every=1)
    ends = world.scene([Arrival(0, script=Script(takes(0.9)), pipeline=pipeline), Arrival(0.1, script=script, pipeline=pipeline)])
    assert isinstance(ends[1].error, TimeoutError) and ends[1].at == pytest.approx(1.1 - 1.5 * 0.4)
    assert script.asked == []


def test_shadow_mode_lets_all_through_and_its_limit_moves(world: World) -> None:
    adaptive = AdaptiveConcurrency(initial=2, max_concurrent=20, queue=1, enforce=False)
    pipeline = world.pipeline(adaptive)
    ends = world.together(pipeline, *[(0.0, takes(0.05))] * 5)
    assert all(end.at == pytest.approx(0.05) for end in ends)
    assert rejections(world) == {("adaptive", "full", False)}
    busy(world, pipeline, takes(0.05), rounds=20, each=0.5, at_once=5)
    assert adaptive.limit > 2
    assert (adaptive.in_use, adaptive.queued) == (0, 0)


def test_its_gauges_are_the_bulkheads(world: World) -> None:
    dependency = Dependency("shop", *standard(), clock=world.clock)
    assert isinstance(dependency.bulkhead, AdaptiveConcurrency) and isinstance(dependency.bulkhead, Bulkhead)
    values = {family.name: series for family, series in gauges([("shop", dependency)], []).items()}
    assert values["resilient_bulkhead_limit"] == {("shop",): 100}
    busy(world, dependency, takes(0.01, ConnectionError), rounds=3, each=0.2, at_once=100)
    values = {family.name: series for family, series in gauges([("shop", dependency)], []).items()}
    assert values["resilient_bulkhead_limit"][("shop",)] < 100


# -- threads, loops, cancellation --------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("law", ["gradient2", "aimd"])
def test_eight_threads_and_a_loop_share_one(backend: str, law: str) -> None:
    adaptive, tally = AdaptiveConcurrency(initial=3, max_concurrent=6, law=law, queue=50, max_wait=10, standing_after=60), Tally()
    pipeline = Pipeline(adaptive)
    in_threads(*callers(pipeline, tally, backend))
    assert (adaptive.in_use, adaptive.queued, tally.running) == (0, 0, 0)
    assert tally.most <= 6 and 1 <= adaptive.limit <= 6
    assert sum(tally.ends.values()) == THREADS * CALLS + 16 * (CALLS // 4)
    assert tally.ends["BulkheadFull"] == 0


@pytest.mark.anyio
async def test_a_burst_of_cancellations_shrinks_nothing(anyio_backend: object, clock: FakeClock) -> None:
    adaptive = AdaptiveConcurrency(initial=3, max_concurrent=3)
    pipeline = Pipeline(adaptive, clock=clock)

    async def impatient(patience: float) -> None:
        with anyio.move_on_after(patience):
            await pipeline.call(anyio.sleep, 0.01)

    async with anyio.create_task_group() as group:
        for number in range(300):
            group.start_soon(impatient, 0.001 * (number % 40))
    assert (adaptive.in_use, adaptive.queued, adaptive.limit) == (0, 0, 3)


@pytest.mark.anyio
async def test_what_counts_of_a_generator_is_its_first_item(anyio_backend: object, clock: FakeClock) -> None:
    """How long its reader takes over the others is not the dependency's affair."""
    adaptive = AdaptiveConcurrency(max_concurrent=20)
    pipeline = Pipeline(adaptive, clock=clock)

    @pipeline
    async def items(pause: float):  # type: ignore[no-untyped-def]
        await anyio.sleep(0.05)
        yield 1
        await anyio.sleep(pause)
        yield 2

    async def read(pause: float) -> None:
        async for _ in items(pause):
            pass

    for pause in (0.0, 0.0, 0.0, 5.0, 5.0, 5.0, 5.0):
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(read, pause)
    assert (adaptive.limit, adaptive.in_use) == (20, 0)
    assert adaptive.needed == pytest.approx(1.5 * 0.05)


# -- settings ----------------------------------------------------------------------------------------------------


def test_settings_that_contradict_each_other() -> None:
    with pytest.raises(ValueError, match=r"^initial must be at most max_concurrent, 5"):
        AdaptiveConcurrency(initial=6, max_concurrent=5)
    with pytest.raises(ValueError, match=r"^initial must be at least 5"):
        AdaptiveConcurrency(initial=4, min_concurrent=5)
    with pytest.raises(ValueError, match=r"^max_concurrent must be at least 5"):
        AdaptiveConcurrency(min_concurrent=5, max_concurrent=4)
    assert AdaptiveConcurrency(max_concurrent=5).limit == 5
    assert AdaptiveConcurrency(min_concurrent=50).limit == 50


@pytest.mark.slow
def test_the_preset_stays_between_4_and_100(world: World) -> None:
    dependency = Dependency("shop", *standard(timeout=Timeout(total=1)), clock=world.clock)
    adaptive = dependency.bulkhead
    assert isinstance(adaptive, AdaptiveConcurrency) and (adaptive.limit, adaptive.largest) == (100, 100)
    busy(world, world.pipeline(adaptive), takes(0.01, ConnectionError), rounds=20, each=0.2, at_once=100)
    assert adaptive.limit == 4
