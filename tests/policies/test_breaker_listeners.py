"""A breaker's vanilla pybreaker listeners and its storage: told outside every lock, never on the way of a call."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pybreaker
import pytest

from resilient import CircuitBreaker, Outcome, Pipeline
from resilient.events import CircuitChanged
from resilient.policies.guests import Mirror
from resilient.testing import FakeClock, RecordingListener

from .driver import Script, World
from .storages import BlockingStorage, Ear


def test_ground_34_a_vanilla_listener_hears_everything(world: World) -> None:
    ear = Ear()
    circuit = CircuitBreaker(2, 20, 1, listeners=[ear])
    pipeline = world.pipeline(circuit)
    world.times(4, pipeline, Script("ok", ValueError, KeyError))
    world.sleep(20)
    world.call(pipeline)
    calls = [heard for heard in ear.heard if heard[0] != "before"]
    assert calls == [
        "success",
        ("failure", "ValueError"),
        ("failure", "KeyError"),
        ("closed", "open"),
        ("open", "half-open"),
        ("half-open", "closed"),
        "success",
    ]
    assert sum(heard[0] == "before" for heard in ear.heard) == 4  # not for the call that was rejected
    assert set(ear.by) == {circuit}


def test_listeners_come_and_go() -> None:
    ear, late = Ear(), Ear()
    circuit = CircuitBreaker(listeners=[ear])
    circuit.add_listeners(late)
    circuit.remove_listener(ear)
    circuit.call(int, "5")
    assert ear.heard == [] and late.heard == [("before", ("5",)), "success"]


def test_an_answer_that_is_a_failure_is_told_as_an_error(world: World) -> None:
    ear = Ear()
    pipeline = world.pipeline(CircuitBreaker(listeners=[ear]), classify=lambda result, error: Outcome.OUTAGE)
    assert world.call(pipeline, "503") == "503"
    assert ear.heard[1:] == [("failure", "ResilienceError")]


def test_neutral_ends_are_told_to_nobody(world: World) -> None:
    ear = Ear()
    pipeline = world.pipeline(CircuitBreaker(listeners=[ear], exclude=[KeyError]))
    world.fails(pipeline, KeyError)
    assert [heard[0] for heard in ear.heard] == ["before"]


def test_a_listener_may_use_the_breaker_it_hears_of() -> None:
    """It is called outside every lock: this would hang otherwise."""

    class Meddler(Ear):
        def failure(self, cb: Any, exc: BaseException) -> None:
            super().failure(cb, exc)
            cb.fail_max = 7
            cb.call(int)
            cb.open()

    ear = Meddler()
    circuit = CircuitBreaker(3, listeners=[ear])
    with pytest.raises(ValueError, match="x"):
        circuit.call(int, "x")
    assert circuit.fail_max == 7 and circuit.current_state == "open"
    assert "success" in ear.heard and ("closed", "open") in ear.heard


def test_a_listener_that_raises_harms_nobody(world: World, caplog: pytest.LogCaptureFixture) -> None:
    class Broken(Ear):
        def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
            raise RuntimeError("before")

        def success(self, cb: Any) -> None:
            raise RuntimeError("success")

        def failure(self, cb: Any, exc: BaseException) -> None:
            raise RuntimeError("failure")

        def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
            raise RuntimeError("state")

    ear = Ear()
    circuit = CircuitBreaker(1, 20, listeners=[Broken(), ear])
    pipeline = world.pipeline(circuit)
    with caplog.at_level(logging.ERROR, "resilient"):
        assert world.times(3, pipeline, Script("ok", "ok", ValueError)) == ["ok", "ok", "ValueError"]
    assert circuit.current_state == "open"
    assert pipeline.outbox.listener_errors == 7
    assert len(caplog.records) == 1  # once a class, not once a call
    assert ear.changes == [("closed", "open")]


def test_a_manual_transition_is_told_without_any_pipeline() -> None:
    ear = Ear()
    circuit = CircuitBreaker(listeners=[ear])
    circuit.open()
    circuit.half_open()
    circuit.close()
    assert ear.changes == [("closed", "open"), ("open", "half-open"), ("half-open", "closed")]


def test_every_pipeline_that_shares_a_breaker_hears_of_a_transition_at_once(clock: FakeClock) -> None:
    """Also the one whose own next call may be long in coming."""
    circuit = CircuitBreaker(1, 20, 1)
    ears = RecordingListener(), RecordingListener()
    first, second = (Pipeline(circuit, name=name, clock=clock) for name in ("first", "second"))
    first.outbox.add(ears[0])
    second.outbox.add(ears[1])
    with pytest.raises(ValueError, match="x"):
        second.call_sync(int, "x")
    for ear, name in zip(ears, ("first", "second"), strict=True):
        assert [(event.dependency, event.new) for event in ear.of(CircuitChanged)] == [(name, "open")]
    clock.advance(20)
    first.call_sync(int)
    assert [event.new for event in ears[1].of(CircuitChanged)] == ["open", "half-open", "closed"]


def test_a_pipeline_that_is_gone_is_forgotten(clock: FakeClock) -> None:
    circuit = CircuitBreaker()
    for _ in range(100):
        Pipeline(circuit, clock=clock)
    kept = Pipeline(circuit, clock=clock)
    assert len(circuit._owners) == 1 and kept.policies == (circuit,)


# -- storages ----------------------------------------------------------------------------------------------------


def test_a_memory_storage_is_mirrored_at_once() -> None:
    storage = pybreaker.CircuitMemoryStorage("closed")
    circuit = CircuitBreaker(1, state_storage=storage)
    with pytest.raises(ValueError, match="x"):
        circuit.call(int, "x")
    assert storage.state == "open"
    assert storage.opened_at is not None and datetime.now(UTC) - storage.opened_at < timedelta(seconds=5)
    circuit.close()
    assert storage.state == "closed"


def test_the_state_is_never_read_from_a_storage() -> None:
    circuit = CircuitBreaker(state_storage=pybreaker.CircuitMemoryStorage("open"))
    assert circuit.current_state == "closed"
    assert circuit.call(int) == 0


@pytest.mark.parametrize("storage", [BlockingStorage, type("Derived", (pybreaker.CircuitMemoryStorage,), {})])
def test_any_other_storage_is_never_touched_on_a_callers_thread(storage: Any) -> None:
    touched_by: list[threading.Thread] = []

    class Watched(storage):  # type: ignore[misc]
        def __setattr__(self, name: str, value: Any) -> None:
            if name == "state":
                touched_by.append(threading.current_thread())
            super().__setattr__(name, value)

    mirror = Watched("closed")
    touched_by.clear()
    circuit = CircuitBreaker(1, state_storage=mirror)
    with pytest.raises(ValueError, match="x"):
        circuit.call(int, "x")
    circuit.close()
    circuit.call(int)
    deadline = time.monotonic() + 5
    while mirror.state != "closed" or not touched_by:
        assert time.monotonic() < deadline
    assert threading.current_thread() not in touched_by


def test_the_latest_state_wins_in_a_slow_storage() -> None:
    storage = BlockingStorage(seconds=0.1)
    circuit = CircuitBreaker(state_storage=storage)
    started = time.monotonic()
    for _ in range(50):
        circuit.open()
        circuit.close()
    circuit.open()
    assert time.monotonic() - started < 4  # nobody waited for it: that is 10 s
    storage.wait_for("open")
    assert len(storage.states) < 50
    assert storage.threads.isdisjoint({threading.current_thread()})


def test_a_storage_that_fails_is_logged_and_written_to_again(caplog: pytest.LogCaptureFixture) -> None:
    storage = BlockingStorage(seconds=0)
    storage.broken = True
    circuit = CircuitBreaker(state_storage=storage)
    circuit.open()
    deadline = time.monotonic() + 5
    while not caplog.records:
        assert time.monotonic() < deadline
    storage.broken = False
    circuit.close()
    storage.wait_for("closed")


def test_two_transitions_told_the_wrong_way_round_end_in_the_present_state() -> None:
    """As two threads may tell them."""
    storage, written = pybreaker.CircuitMemoryStorage("closed"), []
    mirror = Mirror(lambda: "closed", written.append, storage)
    mirror.write("open")
    assert written == ["open", "closed"]
    mirror.write("closed")
    assert written[-1] == "closed"


def test_where_no_thread_can_be_had_the_next_transition_tries_again(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    storage = BlockingStorage(seconds=0)
    circuit = CircuitBreaker(state_storage=storage)
    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        circuit.open()
    assert len(caplog.records) == 1 and storage.states == []
    circuit.half_open()
    storage.wait_for("half-open")
