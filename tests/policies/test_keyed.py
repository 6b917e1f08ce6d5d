"""A circuit for each route, origin or tenant: none takes another along, and there are never more than so many."""

from __future__ import annotations

import contextlib
import logging
import threading
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient import CircuitBreaker, CircuitOpen, Dependency, Pipeline, Resilience
from resilient.events import CircuitChanged
from resilient.policies.keyed import LONGEST
from resilient.testing import FakeClock, RecordingListener

from ..thorough import often
from .driver import World, at, takes


def keyed(clock: FakeClock, **given: Any) -> tuple[Pipeline, CircuitBreaker]:
    breaker = CircuitBreaker(2, 1.0, 1, key=lambda tenant, *rest: tenant, **given)
    return Pipeline(breaker, clock=clock), breaker


def ask(tenant: str, fails: bool = False) -> str:
    if fails:
        raise ConnectionError(tenant)
    return tenant


def fail(pipeline: Pipeline, tenant: str, times: int = 2) -> None:
    for _ in range(times):
        with pytest.raises(ConnectionError):
            pipeline.call_sync(ask, tenant, True)


def test_a_key_that_fails_takes_no_other_along(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    fail(pipeline, "a")
    with pytest.raises(CircuitOpen) as rejected:
        pipeline.call_sync(ask, "a")
    assert (rejected.value.reason, rejected.value.retry_after) == ("consecutive", 1.0)
    assert pipeline.call_sync(ask, "b") == "b"
    assert {key: circuit.current_state for key, circuit in breaker.circuits.items()} == {"a": "open", "b": "closed"}
    clock.advance(1)
    assert pipeline.call_sync(ask, "a") == "a"
    assert breaker.current_state == "closed"


def test_the_breaker_shows_the_worst_of_its_circuits(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    assert (breaker.current_state, breaker.reason, breaker.circuits) == ("closed", "", {})
    pipeline.call_sync(ask, "a")
    breaker.circuit("b").half_open()
    assert (breaker.current_state, breaker.reason) == ("half-open", "forced")
    fail(pipeline, "c")
    assert (breaker.current_state, breaker.reason, breaker.state.name) == ("open", "consecutive", "open")


def test_events_and_logs_tell_the_key_and_metrics_do_not(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "resilient")
    listener = RecordingListener()
    resilience = Resilience(clock=clock, listeners=[listener])
    dependency = resilience.dependency("shop", CircuitBreaker(2, 1.0, 1, key=lambda tenant, *rest: tenant))
    for number in range(40):
        fail(dependency, f"tenant-{number}")
    assert [event.key for event in listener.of(CircuitChanged)] == [f"tenant-{number}" for number in range(40)]
    assert {event.dependency for event in listener.of(CircuitChanged)} == {"shop"}
    page = resilience.metrics.render()[0].decode()
    assert 'resilient_breaker_state{dependency="shop",state="open"} 1.0' in page
    assert 'resilient_breaker_transitions_total{dependency="shop",from="closed",reason="consecutive",to="open"} 40.0' in page
    assert "tenant-" not in page
    assert [record.__dict__["key"] for record in caplog.records] == [f"tenant-{number}" for number in range(40)]
    assert "circuit of shop for 'tenant-7': closed -> open" in caplog.text


def test_a_key_that_is_told_is_not_endless(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    pipeline.call_sync(ask, "x" * 10_000)
    (circuit,) = breaker.circuits.values()
    assert len(circuit.key) == LONGEST


# -- by hand ----------------------------------------------------------------------------------------------------------


def test_by_hand_it_is_opened_and_closed_for_all_keys_those_to_come_included(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    fail(pipeline, "a")
    breaker.open()
    for name in ("a", "new"):
        with pytest.raises(CircuitOpen) as rejected:
            pipeline.call_sync(ask, name)
        assert (rejected.value.reason, rejected.value.retry_after) == ("forced", None)
    assert (breaker.current_state, breaker.reason) == ("open", "forced")
    breaker.close()
    assert [pipeline.call_sync(ask, name) for name in ("a", "new")] == ["a", "new"]
    assert breaker.current_state == "closed"


def test_one_circuit_by_hand(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    breaker.circuit("a").open()
    with pytest.raises(CircuitOpen):
        pipeline.call_sync(ask, "a")
    assert pipeline.call_sync(ask, "b") == "b"
    with pytest.raises(TypeError, match="^key"):
        CircuitBreaker().circuit("a")


def test_trials_of_the_breaker_itself_go_through_to_the_keys(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    breaker.half_open()
    fail(pipeline, "a", 1)
    assert breaker.current_state == "open"
    with pytest.raises(CircuitOpen):
        pipeline.call_sync(ask, "b")
    clock.advance(1)
    assert pipeline.call_sync(ask, "b") == "b"
    assert breaker.current_state == "closed"
    assert breaker.circuit("a").fail_counter == 1


# -- settings ---------------------------------------------------------------------------------------------------------


def test_settings_are_those_of_the_breaker(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    fail(pipeline, "a", 1)
    breaker.fail_max = 1
    breaker.reset_timeout = 5
    fail(pipeline, "a", 1)
    fail(pipeline, "b", 1)
    for name in ("a", "b"):
        assert breaker.circuit(name).current_state == "open"
        with pytest.raises(CircuitOpen) as rejected:
            pipeline.call_sync(ask, name)
        assert rejected.value.retry_after == 5
    breaker.enforce = False
    assert [pipeline.call_sync(ask, name) for name in ("a", "b", "c")] == ["a", "b", "c"]
    breaker.enforce, breaker.disabled = True, True
    assert pipeline.call_sync(ask, "a") == "a"
    breaker.disabled = False
    with pytest.raises(CircuitOpen):
        pipeline.call_sync(ask, "a")


def test_listeners_hear_of_every_circuit(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock, name="shop")
    pipeline.call_sync(ask, "a")
    heard: list[tuple[str, str]] = []

    class Ear:
        def before_call(self, *args: Any, **kwargs: Any) -> None: ...

        success = failure = before_call

        def state_change(self, breaker: Any, old: Any, new: Any) -> None:
            heard.append((breaker.name, new.name))

    ear = Ear()
    breaker.add_listener(ear)
    fail(pipeline, "a")
    fail(pipeline, "b")
    breaker.remove_listener(ear)
    fail(pipeline, "c")
    assert heard == [("shop[a]", "open"), ("shop[b]", "open")]


def test_what_is_excluded_is_so_for_every_key(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock)
    pipeline.call_sync(ask, "a")
    breaker.add_excluded_exception(ConnectionError)
    fail(pipeline, "a", 5)
    fail(pipeline, "b", 5)
    assert breaker.current_state == "closed"


def test_stalls_are_seen_by_key(world: World) -> None:
    breaker = CircuitBreaker(key=lambda script: "quick" if script._items == ("ok",) else "slow", random=lambda: 0.5)
    pipeline = world.pipeline(breaker)
    world.times(20, pipeline)
    hanging = [(number * 0.1, takes(5)) for number in range(17)]
    quick = [(number * 0.1 + 0.01, "ok") for number in range(30)]
    reasons: list[dict[Any, str]] = []

    def look() -> None:
        reasons.append({key: circuit.reason for key, circuit in breaker.circuits.items()})

    ends = world.together(pipeline, *hanging, *quick, at(1.9, look))
    assert reasons == [{"slow": "stall", "quick": ""}]
    assert [end.value for end in ends[17:]] == ["ok"] * 30


# -- keys -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("broken", "logged"), [(lambda *args: 1 / 0, 1), (lambda *args: [], 1), (lambda *args: None, 0)])
def test_calls_without_a_key_share_a_circuit(clock: FakeClock, broken: Any, logged: int, caplog: pytest.LogCaptureFixture) -> None:
    breaker = CircuitBreaker(2, 1.0, 1, key=broken)
    pipeline = Pipeline(breaker, clock=clock)
    with caplog.at_level(logging.ERROR, "resilient"):
        fail(pipeline, "a", 1)
        fail(pipeline, "b", 1)
        with pytest.raises(CircuitOpen):
            pipeline.call_sync(ask, "c")
    assert list(breaker.circuits) == [""]
    assert len(caplog.records) == logged


@pytest.mark.parametrize("key", ["route", "origin"])
def test_functions_have_neither_route_nor_origin(clock: FakeClock, key: str) -> None:
    breaker = CircuitBreaker(key=key)
    assert Pipeline(breaker, clock=clock).call_sync(ask, "a") == "a"
    assert list(breaker.circuits) == [""]


def test_a_block_of_code_and_a_decorated_function_have_keys_too(clock: FakeClock) -> None:
    breaker = CircuitBreaker(2, 1.0, 1, key=lambda *args: args[0] if args else "block")
    decorated = breaker(ask)
    assert decorated("a") == "a"
    with breaker.calling():
        pass
    assert set(breaker.circuits) == {"a", "block"}


# -- the bound --------------------------------------------------------------------------------------------------------


def test_one_more_drops_the_one_that_was_used_longest_ago(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock, max_keys=3)
    for name in ("a", "b", "c", "a", "d"):
        pipeline.call_sync(ask, name)
    assert list(breaker.circuits) == ["c", "a", "d"]


def test_idle_closed_ones_are_dropped_first(clock: FakeClock) -> None:
    """Though one that is open, and one that is busy, were used longer ago."""
    pipeline, breaker = keyed(clock, max_keys=3)
    fail(pipeline, "open")

    def busy(tenant: str) -> list[Any]:
        pipeline.call_sync(ask, "idle")
        pipeline.call_sync(ask, "new")
        return list(breaker.circuits)

    assert pipeline.call_sync(busy, "busy") == ["open", "busy", "new"]


def test_then_closed_ones_that_are_busy(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock, max_keys=2)
    fail(pipeline, "open")

    def busy(tenant: str) -> list[Any]:
        pipeline.call_sync(ask, "new")
        return list(breaker.circuits)

    assert pipeline.call_sync(busy, "busy") == ["open", "new"]


def test_and_where_all_are_open_the_one_that_was_used_longest_ago(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock, max_keys=2)
    for name in ("a", "b", "c"):
        fail(pipeline, name)
    assert list(breaker.circuits) == ["b", "c"]
    assert pipeline.call_sync(ask, "a") == "a"  # it has begun anew


def test_a_call_whose_circuit_was_dropped_ends_well(clock: FakeClock) -> None:
    pipeline, breaker = keyed(clock, max_keys=1)

    def slow(tenant: str) -> str:
        pipeline.call_sync(ask, "other")
        return tenant

    assert pipeline.call_sync(slow, "a") == "a"
    assert list(breaker.circuits) == ["other"]
    assert pipeline.settle_errors == 0


@settings(max_examples=often(60), deadline=None)
@given(st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=80), st.integers(1, 5))
def test_there_are_never_more_than_so_many(calls: list[tuple[int, bool]], most: int) -> None:
    clock = FakeClock()
    pipeline, breaker = keyed(clock, max_keys=most)
    for key, fails in calls:
        before = breaker.circuits
        try:
            pipeline.call_sync(ask, f"{key}", fails)
        except (ConnectionError, CircuitOpen):
            clock.advance(0.1)
        after = breaker.circuits
        assert len(after) <= most and next(reversed(after)) == f"{key}"
        dropped = set(before) - set(after)
        if dropped and before[next(iter(dropped))].current_state != "closed":
            assert all(circuit.current_state != "closed" for circuit in before.values())


def test_threads_share_the_circuits_of_their_keys() -> None:
    breaker = CircuitBreaker(10**9, key=lambda tenant, *rest: tenant, max_keys=4)
    pipeline = Pipeline(breaker)
    failed = threading.Barrier(8)

    def run(thread: int) -> None:
        failed.wait(10)
        for number in range(300):
            with contextlib.suppress(ConnectionError):
                pipeline.call_sync(ask, f"{(thread + number) % 4}", number % 3 == 0)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    counts = pipeline.stats.snapshot().counts
    assert (counts["success"], counts["failure"]) == (1600, 800)
    totals = [circuit._core.totals(pipeline.clock.now()) for circuit in breaker.circuits.values()]
    assert [sum(column) for column in zip(*totals, strict=True)][:2] == [2400, 800]
    assert not any(circuit.busy for circuit in breaker.circuits.values())


def test_a_dependency_shows_the_worst_of_its_circuits(clock: FakeClock) -> None:
    breaker = CircuitBreaker(1, 60, key=lambda tenant, *rest: tenant)
    dependency = Dependency("shop", breaker, clock=clock)
    fail(dependency, "a", 1)
    assert (dependency.state, dependency.breaker) == ("open", breaker)
