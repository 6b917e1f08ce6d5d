"""Shadow mode (`enforce=False`): a policy decides, counts and reports, and lets every call through."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Bulkhead, CircuitBreaker, Deadline, DeadlineExceeded, Fallback, Retry, Timeout
from resilient.context import deadline_scope
from resilient.core.backoff import Constant
from resilient.events import CallRejected, CircuitChanged, DeadlinePassed, Event
from resilient.telemetry.families import COUNTED

from .driver import Script, World, at, only_awaited, takes
from .storages import Ear


def reported(world: World) -> list[tuple[str, str, bool]]:
    return [(event.policy, event.reason, event.enforced) for event in world.listener.of(CallRejected)]


# -- breaker -----------------------------------------------------------------------------------------------------


def test_a_watching_breaker_counts_and_changes_and_rejects_nobody(world: World) -> None:
    circuit = CircuitBreaker(2, 20, 1, enforce=False)
    pipeline = world.pipeline(circuit, name="shop")
    assert world.times(5, pipeline, ValueError) == ["ValueError"] * 5
    assert circuit.current_state == "open"
    assert reported(world) == [("breaker", "consecutive", False)] * 3
    world.sleep(20)
    assert world.call(pipeline) == "ok"
    assert circuit.current_state == "closed"
    assert [event.new for event in world.listener.of(CircuitChanged)] == ["open", "half-open", "closed"]


def test_a_call_that_a_watching_breaker_would_have_rejected_teaches_it_nothing(world: World) -> None:
    circuit = CircuitBreaker(1, 20, enforce=False)
    pipeline = world.pipeline(circuit)
    world.fails(pipeline, ValueError)
    assert world.times(10, pipeline) == ["ok"] * 10
    assert circuit.current_state == "open"


def test_a_watching_breaker_stops_no_retry(world: World) -> None:
    script = Script(ValueError)
    pipeline = world.pipeline(Retry(on=ValueError, backoff=Constant(0.1, jitter="none")), CircuitBreaker(1, 20, enforce=False))
    world.fails(pipeline, script)
    assert len(script.asked) == 3


def test_it_may_be_enforced_later(world: World) -> None:
    circuit = CircuitBreaker(1, 20, enforce=False)
    pipeline = world.pipeline(circuit)
    world.times(2, pipeline, ValueError)
    circuit.enforce = True
    assert world.times(1, pipeline) == ["CircuitOpen"]


def test_disabled_it_takes_no_notice_of_anything(world: World) -> None:
    ear = Ear()
    circuit = CircuitBreaker(1, 20, 1, listeners=[ear], disabled=True)
    pipeline = world.pipeline(circuit)
    assert world.times(5, pipeline, ValueError) == ["ValueError"] * 5
    assert (circuit.current_state, circuit.fail_counter, reported(world), ear.heard) == ("closed", 0, [], [])
    circuit.disabled = False
    world.fails(pipeline, ValueError)
    assert circuit.current_state == "open" and not circuit.disabled
    circuit.disabled = True
    script = Script(ValueError, "ok")
    assert world.times(2, pipeline, script) == ["ValueError", "ok"]
    assert circuit.current_state == "open"


def test_disabled_while_open_it_stops_no_retry(world: World) -> None:
    circuit = CircuitBreaker(1, 20)
    pipeline = world.pipeline(Retry(on=ValueError, backoff=Constant(1, jitter="none")), circuit)
    circuit.open()
    circuit.disabled = True
    script = Script(ValueError)
    world.fails(pipeline, script)
    assert len(script.asked) == 3


# -- bulkhead ----------------------------------------------------------------------------------------------------


def test_a_watching_bulkhead_reports_what_would_have_found_the_queue_full(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, queue=1, enforce=False)
    pipeline = world.pipeline(bulkhead, name="shop")
    seen: list[tuple[int, int]] = []
    ends = world.together(
        pipeline,
        *[(number / 10, takes(2)) for number in range(4)],
        at(1, lambda: seen.append((bulkhead.in_use, bulkhead.queued))),
    )
    assert [end.at for end in ends] == pytest.approx([2, 2.1, 2.2, 2.3])  # nobody waited
    assert seen == [(1, 1)]
    assert reported(world) == [("bulkhead", "full", False)] * 2
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


def test_a_watching_bulkhead_reports_nothing_where_a_slot_would_have_come_in_time(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=2, enforce=False)
    world.together(world.pipeline(bulkhead), *[(number / 10, takes(1)) for number in range(6)])
    assert reported(world) == []
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


def test_a_watching_bulkhead_reports_a_wait_that_would_have_been_too_long(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_wait=1, enforce=False)
    world.together(world.pipeline(bulkhead), (0, takes(3)), (0.5, takes(4)))
    assert reported(world) == [("bulkhead", "waited", False)]  # it came at 3, and the call ran on until 4.5
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


def test_a_watching_bulkhead_reports_a_call_that_ended_in_the_queue(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, max_wait=1, enforce=False)
    world.together(world.pipeline(bulkhead), (0, takes(9)), (0.5, takes(0.9)), (0.6, takes(1.1, ValueError)))
    assert reported(world) == [("bulkhead", "waited", False)]
    assert (bulkhead.in_use, bulkhead.queued) == (0, 0)


# -- timeout -----------------------------------------------------------------------------------------------------


def passed(world: World) -> list[tuple[str, bool]]:
    return [(event.limit, event.enforced) for event in world.listener.of(DeadlinePassed)]


def test_a_watching_timeout_cuts_nothing_and_reports(world: World) -> None:
    circuit = CircuitBreaker(1)
    pipeline = world.pipeline(Fallback("instead"), Timeout(total=1, enforce=False), circuit, name="shop")
    assert world.call(pipeline, takes(0.5)) == "ok"
    assert passed(world) == []
    assert world.call(pipeline, takes(3, "long")) == "long"
    assert passed(world) == [("total", False)]
    assert isinstance(world.listener.events[0], DeadlinePassed) and world.listener.events[0].dependency == "shop"
    assert circuit.fail_counter == 0
    assert pipeline.stats.snapshot().counts["success"] == 2


def test_a_watching_timeout_reports_attempts_that_another_could_have_followed(world: World) -> None:
    pipeline = world.pipeline(
        Timeout(total=30, attempt=1, enforce=False), Retry(attempts=2, on=ValueError, backoff=Constant(0, jitter="none"))
    )
    assert world.call(pipeline, takes(2, ValueError), takes(2)) == "ok"
    assert passed(world) == [("attempt", False)]
    world.call(world.pipeline(Timeout(total=30, attempt=1, enforce=False), Retry()), takes(2))
    assert passed(world) == [("attempt", False)]


def test_a_watching_timeout_reports_errors_too(world: World) -> None:
    assert isinstance(world.fails(world.pipeline(Timeout(total=1, enforce=False)), takes(2, KeyError)), KeyError)
    assert passed(world) == [("total", False)]


@only_awaited
def test_a_deadline_from_outside_holds_all_the_same(world: World) -> None:
    with deadline_scope(Deadline.after(2, world.clock)):
        error = world.fails(world.pipeline(Timeout(total=1, enforce=False)), takes(5))
    assert isinstance(error, DeadlineExceeded) and error.reason == "caller"
    assert passed(world) == [("caller", True), ("total", False)]


# -- what is counted ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("event", "label"),
    [
        (CallRejected(at=0, dependency="shop", policy="bulkhead", reason="full", enforced=False), "shadow_full"),
        (DeadlinePassed(at=0, dependency="shop", side="outbound", limit="total", enforced=False), "shadow_outbound"),
    ],
)
def test_what_was_only_watched_is_counted_apart(event: Event, label: str) -> None:
    _, key_of = COUNTED[type(event)]
    assert key_of(event)[-1] == label


@pytest.mark.parametrize("policy", [Timeout, Bulkhead, CircuitBreaker])
def test_enforce_is_true_or_false(policy: Any) -> None:
    with pytest.raises(TypeError, match="^enforce"):
        policy(enforce=0)
