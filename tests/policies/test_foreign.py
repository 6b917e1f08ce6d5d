"""A plain pybreaker.CircuitBreaker in a pipeline: driven by our engine, kept in step, never called."""

from __future__ import annotations

import asyncio
import threading
import time
from typing import Any

import anyio
import pybreaker
import pytest

from resilient import CircuitOpen, Dependency, Pipeline, standard
from resilient.events import CircuitChanged
from resilient.policies.foreign import ForeignBreaker
from resilient.testing import FakeClock

from .driver import Script, World, takes
from .storages import BlockingStorage, Ear


def vanilla(*arguments: Any, **settings: Any) -> pybreaker.CircuitBreaker:
    return pybreaker.CircuitBreaker(*arguments, **settings)


def test_ground_34_its_settings_decide_and_it_is_told(world: World) -> None:
    ear = Ear()
    theirs = vanilla(2, 20, listeners=[ear], name="db")
    pipeline = world.pipeline(theirs, name="shop")
    script = Script("ok", ValueError, KeyError)
    assert world.times(4, pipeline, script) == ["ok", "ValueError", "KeyError", "CircuitOpen"]  # no error was replaced
    assert theirs.current_state == "open" and theirs.fail_counter == 2
    error = world.fails(pipeline)
    assert isinstance(error, CircuitOpen) and error.retry_after == pytest.approx(20)
    assert error.reason == pipeline.policies[0].reason == "consecutive"  # type: ignore[attr-defined]
    world.sleep(20)
    assert world.call(pipeline) == "ok"  # its success_threshold is 1
    assert theirs.current_state == "closed" and theirs.fail_counter == 0
    assert [heard for heard in ear.heard if heard[0] != "before"] == [
        "success",
        ("failure", "ValueError"),
        ("failure", "KeyError"),
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
        "success",
    ]
    assert set(ear.by) == {theirs}
    assert [event.new for event in world.listener.of(CircuitChanged)] == ["open", "half-open", "closed"]


def test_it_is_never_called(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = vanilla(1)
    for method in ("call", "calling", "call_async"):
        monkeypatch.setattr(theirs, method, None)
    pipeline = Pipeline(theirs)
    assert pipeline.call_sync(int) == 0
    with pytest.raises(ValueError, match="x"):
        pipeline.call_sync(int, "x")
    with pytest.raises(CircuitOpen):
        pipeline.call_sync(int)


def test_one_driver_however_many_pipelines_and_everybody_told_once() -> None:
    ear = Ear()
    theirs = vanilla(2, listeners=[ear])
    pipelines = [Pipeline(theirs), Pipeline(*standard(breaker=theirs)), Dependency("d", theirs)]
    drivers = {policy for pipeline in pipelines for policy in pipeline.policies if isinstance(policy, ForeignBreaker)}
    assert len(drivers) == 1 and len(theirs.listeners) == 2
    for pipeline in pipelines[:2]:
        with pytest.raises(ValueError, match="x"):
            pipeline.call_sync(int, "x")
    assert theirs.current_state == "open"
    assert [heard for heard in ear.heard if heard[0] != "before"] == [("failure", "ValueError")] * 2 + [("closed", "open")]


def test_one_driver_though_pipelines_are_made_at_once() -> None:
    theirs = vanilla()
    ready = threading.Barrier(8)

    def make() -> None:
        ready.wait()
        Pipeline(theirs)

    threads = [threading.Thread(target=make) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(theirs.listeners) == 1


def test_what_its_owner_does_by_hand_is_followed(world: World) -> None:
    ear = Ear()
    theirs = vanilla(5, 20, listeners=[ear])
    pipeline = world.pipeline(theirs, name="shop")
    theirs.open()
    assert isinstance(world.fails(pipeline), CircuitOpen)
    world.sleep(20)  # as with pybreaker itself, that is no isolation
    assert world.call(pipeline) == "ok"
    theirs.open()
    theirs.close()
    assert world.call(pipeline) == "ok"
    theirs.half_open()
    world.fails(pipeline, ValueError)
    assert theirs.current_state == "open"
    assert ear.changes == [
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
        ("closed", "open"),
        ("open", "closed"),
        ("closed", "half-open"),
        ("half-open", "open"),
    ]
    assert [event.new for event in world.listener.of(CircuitChanged)] == [new for _, new in ear.changes]


def test_it_may_be_open_already() -> None:
    theirs = vanilla()
    theirs.open()
    with pytest.raises(CircuitOpen):
        Pipeline(theirs).call_sync(int)


def test_settings_that_its_owner_changes_are_followed(world: World) -> None:
    theirs = vanilla(5, 20)
    pipeline = world.pipeline(theirs)
    theirs.fail_max = 2
    theirs.reset_timeout = 3
    theirs.success_threshold = 2
    theirs.add_excluded_exception(KeyError)
    world.times(5, pipeline, KeyError)
    world.times(2, pipeline, ValueError)
    error = world.fails(pipeline)
    assert isinstance(error, CircuitOpen) and error.retry_after == pytest.approx(3)
    world.sleep(3)
    world.call(pipeline)
    assert theirs.current_state == "half-open" and theirs.success_counter == 1
    world.call(pipeline)
    assert theirs.current_state == "closed"


def test_a_break_of_no_length(world: World) -> None:
    pipeline = world.pipeline(vanilla(1, 0))
    world.fails(pipeline, ValueError)
    world.sleep(0.01)
    assert world.call(pipeline) == "ok"


def test_reset_closes_it() -> None:
    theirs = vanilla()
    pipeline = Pipeline(theirs)
    theirs.open()
    pipeline.reset()
    assert theirs.current_state == "closed"
    assert pipeline.call_sync(int) == 0


# -- the seven faults --------------------------------------------------------------------------------------------


def test_fault_1_async_failures_trip_it() -> None:
    pipeline = Pipeline(vanilla(1))

    async def broken() -> None:
        raise KeyError

    with pytest.raises(KeyError):
        asyncio.run(pipeline.call(broken))
    with pytest.raises(CircuitOpen):
        asyncio.run(pipeline.call(broken))


def test_fault_2_its_lock_is_not_held() -> None:
    pipeline = Pipeline(vanilla())
    all_inside = threading.Barrier(10)
    threads = [threading.Thread(target=pipeline.call_sync, args=(all_inside.wait, 10)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not all_inside.broken


def test_fault_2_and_nobody_waits_for_it_while_somebody_else_holds_it() -> None:
    """Its owner may still call it directly, elsewhere, for as long as that takes."""
    theirs = vanilla(1)
    pipeline = Pipeline(theirs)
    entered, leave = threading.Event(), threading.Event()

    def slow() -> None:
        entered.set()
        leave.wait(5)

    owner = threading.Thread(target=theirs.call, args=(slow,))
    owner.start()
    entered.wait(5)
    started = time.monotonic()
    with pytest.raises(ValueError, match="x"):
        pipeline.call_sync(int, "x")
    with pytest.raises(CircuitOpen):
        pipeline.call_sync(int)
    assert time.monotonic() - started < 4
    leave.set()
    owner.join()
    deadline = time.monotonic() + 5
    while theirs.current_state != "open":
        assert time.monotonic() < deadline


@pytest.mark.anyio
async def test_fault_3_cancelled_callers_do_not_open_it(anyio_backend: Any) -> None:
    theirs = vanilla(3)
    pipeline = Pipeline(theirs)
    for _ in range(5):
        with anyio.move_on_after(0.001) as scope:
            await pipeline.call(anyio.sleep_forever)
        assert scope.cancelled_caught
    assert theirs.current_state == "closed" and theirs.fail_counter == 0


def test_fault_4_excluded_errors_are_no_successes(world: World) -> None:
    theirs = vanilla(3, exclude=[KeyError])
    pipeline = world.pipeline(theirs)
    world.times(2, pipeline, ValueError)
    world.times(5, pipeline, KeyError)
    assert theirs.fail_counter == 2
    theirs.half_open()
    world.fails(pipeline, KeyError)
    assert theirs.current_state == "half-open"


def test_fault_5_one_trial_at_a_time(world: World) -> None:
    theirs = vanilla(1)
    pipeline = world.pipeline(theirs)
    theirs.half_open()
    ends = world.together(pipeline, *[(0.0, takes(1))] * 50)
    assert sum(end.error is None for end in ends) == 1


def test_fault_6_stale_results_change_nothing(world: World) -> None:
    theirs = vanilla(1, 20)
    pipeline = world.pipeline(theirs)
    world.together(pipeline, (0, takes(5)), (0.1, takes(6, ValueError)), (1, ValueError))
    assert theirs.current_state == "open"
    world.sleep(15)  # 20 s after it opened, though a failure came 5 s after that
    assert world.call(pipeline) == "ok"


def test_fault_7_the_tripping_error_is_kept(world: World) -> None:
    """Though its own default is to replace it."""
    assert isinstance(world.fails(world.pipeline(vanilla(1, throw_new_error_on_trip=True)), KeyError), KeyError)


# -- storages and listeners of its own ---------------------------------------------------------------------------


def test_a_blocking_storage_is_only_touched_in_the_background(clock: FakeClock) -> None:
    storage = BlockingStorage("open")
    theirs = vanilla(1, 20, state_storage=storage)
    storage.threads.clear()
    pipeline = Pipeline(theirs, clock=clock)
    deadline = time.monotonic() + 5
    while pipeline.policies[0].current_state != "open":  # type: ignore[attr-defined]
        assert time.monotonic() < deadline  # what it says is found out in the background
    clock.advance(20)
    assert pipeline.call_sync(int) == 0
    storage.wait_for("closed")
    with pytest.raises(ValueError, match="x"):
        pipeline.call_sync(int, "x")
    storage.wait_for("open")
    assert threading.current_thread() not in storage.threads


def test_a_listener_of_its_that_raises_harms_nobody(world: World) -> None:
    class Broken(pybreaker.CircuitBreakerListener):
        def fail(self, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("a listener")

        before_call = success = failure = state_change = fail

    ear = Ear()
    theirs = vanilla(1, listeners=[Broken(), ear])
    pipeline = world.pipeline(theirs)
    assert world.times(3, pipeline, Script("ok", ValueError)) == ["ok", "ValueError", "CircuitOpen"]
    assert theirs.current_state == "open"
