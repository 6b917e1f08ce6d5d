"""Retry: what is repeated, when, and what the caller gets in the end."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Bulkhead, BulkheadFull, CircuitBreaker, CircuitOpen, DeadlineExceeded, Outcome, Retry, Timeout
from resilient.call import Call
from resilient.core.backoff import Constant, Exponential, Linear
from resilient.events import RetryDecided

from .driver import Script, World, at, only_awaited, only_in_threads, takes

AT_ONCE = Constant(0, jitter="none")


def decisions(world: World) -> list[tuple[str, int, str]]:
    return [(event.result, event.attempt, event.cause) for event in world.listener.of(RetryDecided)]


def test_three_attempts_in_all(world: World) -> None:
    script = Script(ValueError("1"), ValueError("2"), ValueError("3"), "never asked")
    error = world.fails(world.pipeline(Retry(on=ValueError), name="shop"), script)
    assert str(error) == "3" and error.__cause__ is None  # the last real error, unwrapped
    assert len(script.asked) == 3
    assert decisions(world) == [("retried", 1, "ValueError"), ("retried", 2, "ValueError"), ("exhausted", 3, "ValueError")]
    assert {event.dependency for event in world.listener.events} == {"shop"}


def test_it_stops_at_the_first_success(world: World) -> None:
    script = Script(ValueError, "second", "third")
    assert world.call(world.pipeline(Retry(on=ValueError)), script) == "second"
    assert len(script.asked) == 2


@pytest.mark.parametrize(
    ("on", "error", "attempts"),
    [
        (None, ConnectionError, 1),  # a plain function's effects are unknown
        (ConnectionError, ConnectionError, 3),
        (ConnectionError, ConnectionResetError, 3),
        (ConnectionError, ValueError, 1),
        ((KeyError, ValueError), ValueError, 3),
        (lambda error: "again" in str(error), ValueError("again"), 3),
        (lambda error: "again" in str(error), ValueError("never"), 1),
        ((), ValueError, 1),
    ],
)
def test_a_plain_function_is_repeated_for_the_errors_named(world: World, on: Any, error: Any, attempts: int) -> None:
    script = Script(error)
    world.fails(world.pipeline(Retry(on=on)), script)
    assert len(script.asked) == attempts


class Repeatable:
    """Stands in for a kind of call whose failed answers may be asked for again."""

    def run(self, call: Call, inner: Any) -> Any:
        call.repeatable = True
        call.retryable = lambda outcome, error: True  # type: ignore[method-assign]
        return inner(call)


def test_a_failed_answer_is_repeated_and_the_last_one_given(world: World) -> None:
    def classify(result: Any, error: BaseException | None) -> Outcome | None:
        return {"sorry": Outcome.OUTAGE, "busy": Outcome.THROTTLED}.get(result)

    pipeline = world.pipeline(Repeatable(), Retry(backoff=AT_ONCE), classify=classify)
    assert world.call(pipeline, "sorry", "busy", "fine") == "fine"
    assert world.call(pipeline, "busy", "sorry") == "sorry"
    assert [result for result, *_ in decisions(world)] == ["retried", "retried"] * 2 + ["exhausted"]
    assert {cause for *_, cause in decisions(world)} == {"result"}


class Large(Repeatable):
    """The same, with answers that are too large to be kept while another attempt is made."""

    def run(self, call: Call, inner: Any) -> Any:
        async def keep(result: Any) -> bool:
            return False

        call.keep = keep  # type: ignore[method-assign]
        call.failure_of = LookupError  # type: ignore[method-assign, assignment]
        return super().run(call, inner)


def test_an_answer_that_could_not_be_kept(world: World) -> None:
    def classify(result: Any, error: BaseException | None) -> Outcome | None:
        return Outcome.OUTAGE if result == "sorry" else None

    retry = Retry(attempts=2, backoff=Constant(5, jitter="none"))
    assert world.call(world.pipeline(Large(), retry, classify=classify), "sorry", "fine") == "fine"
    assert world.call(world.pipeline(Large(), retry, classify=classify), "sorry") == "sorry"
    begun = world.now
    error = world.fails(world.pipeline(Large(), retry, CircuitBreaker(1, 60), classify=classify), "sorry")
    assert isinstance(error, CircuitOpen) and isinstance(error.__cause__, LookupError)
    assert world.now == begun  # there was nothing to wait for


def test_one_attempt_is_no_retry(world: World) -> None:
    script = Script(ValueError)
    world.fails(world.pipeline(Retry(attempts=1, on=ValueError)), script)
    assert len(script.asked) == 1
    assert [result for result, *_ in decisions(world)] == ["exhausted"]


def test_what_is_no_failure_makes_no_event(world: World) -> None:
    pipeline = world.pipeline(Retry(), classify=lambda result, error: Outcome.SUCCESS if error else None)
    world.fails(pipeline, KeyError)
    assert world.call(pipeline) == "ok"
    assert decisions(world) == []


# -- delays ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("backoff", "asked"),
    [
        (Constant(2, jitter="none"), [0, 2, 4, 6]),
        (Linear(initial=1, step=1, jitter="none"), [0, 1, 3, 6]),
        (Exponential(initial=1, jitter="none"), [0, 1, 3, 7]),
        (Exponential(initial=1), [0, 0.25, 0.75, 1.75]),  # full jitter: a random part of it
        (Exponential(initial=1, maximum=1.5, jitter="none"), [0, 1, 2.5, 4]),
    ],
)
def test_delays(world: World, backoff: Any, asked: list[float]) -> None:
    script = Script(ValueError)
    world.fails(world.pipeline(Retry(attempts=4, on=ValueError, backoff=backoff, random=lambda: 0.25)), script)
    assert script.asked == pytest.approx(asked)


def test_the_default_delay_is_full_jitter_from_a_fifth_of_a_second(world: World) -> None:
    script = Script(ValueError)
    world.fails(world.pipeline(Retry(on=ValueError, random=lambda: 0.999999)), script)
    assert script.asked == pytest.approx([0, 0.2, 0.6], rel=1e-3)
    assert [event.delay for event in world.listener.of(RetryDecided)] == pytest.approx([0.2, 0.4, 0.0], rel=1e-3, abs=1e-3)


def test_pitfall_08_no_storm_within_a_millisecond(world: World) -> None:
    """By default, 100 calls that fail together do not come back together, and none comes three times."""
    pipeline = world.pipeline(Retry(on=ValueError))
    world.together(pipeline, *[(0.0, ValueError)] * 100)
    again = [event.delay for event in world.listener.of(RetryDecided) if event.result == "retried"]
    assert len(again) <= 100 * 0.2 + 30  # the budget
    assert len({round(delay, 3) for delay in again}) > len(again) / 2


class Pushback:
    """Stands in for a kind of call whose answers say after how many seconds they may be asked for again."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def run(self, call: Call, inner: Any) -> Any:
        call.retry_after = lambda result, error: self._seconds  # type: ignore[method-assign]
        return inner(call)


def pushback(world: World, seconds: float, script: Script, *policies: Any) -> Exception:
    return world.fails(world.pipeline(Pushback(seconds), *policies), script)


def test_retry_after_is_honoured(world: World) -> None:
    script = Script(ValueError)
    pushback(world, 7, script, Retry(attempts=2, on=ValueError, random=lambda: 0.5))
    assert script.asked == pytest.approx([0, 7.1])  # and the jitter on top, or all clients would come back at once


def test_retry_after_is_capped(world: World) -> None:
    script = Script(ValueError)
    pushback(world, 3600, script, Retry(attempts=2, on=ValueError, random=lambda: 0.0))
    assert script.asked == pytest.approx([0, 60])


def test_an_on_that_fails_names_nothing(world: World) -> None:
    script = Script(ValueError("mine"))
    with pytest.raises(ValueError, match="mine"):
        world.call(world.pipeline(Retry(on=lambda error: bool(1 / 0))), script)
    assert script.asked == [0]


def test_retry_after_beyond_the_deadline_ends_it_at_once(world: World) -> None:
    script = Script(ValueError)
    assert isinstance(pushback(world, 7, script, Timeout(total=5), Retry(on=ValueError)), ValueError)
    assert script.asked == [0] and world.now == 0
    assert [result for result, *_ in decisions(world)] == ["pushback"]


def test_a_delay_beyond_the_deadline_ends_it_at_once(world: World) -> None:
    script = Script(ValueError)
    world.fails(world.pipeline(Timeout(total=5), Retry(on=ValueError, backoff=Constant(6, jitter="none"))), script)
    assert script.asked == [0] and world.now == 0
    assert [result for result, *_ in decisions(world)] == ["deadline"]


# -- our own refusals --------------------------------------------------------------------------------------------


def test_pitfall_08_no_sleep_in_front_of_our_own_open_circuit(world: World) -> None:
    pipeline = world.pipeline(Retry(attempts=5, on=ValueError, backoff=Constant(0.5, jitter="none")), CircuitBreaker(fail_max=2))
    script = Script(ValueError("1"), ValueError("2"), "never asked")
    error = world.fails(pipeline, script)
    assert str(error) == "2"  # not CircuitOpen: the last real error, at once
    assert script.asked == pytest.approx([0, 0.5]) and world.now == pytest.approx(0.5)
    assert [result for result, *_ in decisions(world)] == ["retried", "rejected"]


def test_a_circuit_that_is_forced_open_is_not_waited_for(world: World) -> None:
    circuit = CircuitBreaker()
    pipeline = world.pipeline(Retry(attempts=3, on=ValueError, backoff=Constant(0.5, jitter="none")), circuit)
    (ended,) = world.together(pipeline, (0, takes(2, ValueError)), at(1, circuit.open))
    assert isinstance(ended.error, ValueError) and ended.at == pytest.approx(2)


def test_a_retry_that_is_rejected_gives_the_last_real_error(world: World) -> None:
    bulkhead = Bulkhead(max_concurrent=1, queue=0)
    pipeline = world.pipeline(Retry(attempts=2, on=ValueError, backoff=Constant(1, jitter="none")), bulkhead)
    first, second = world.together(pipeline, (0, ValueError("real")), (0.5, takes(5)))
    assert str(first.error) == "real" and first.at == pytest.approx(1)
    assert second.value == "ok"
    assert ("rejected", 2, "bulkhead_full") in decisions(world)


def test_a_retry_that_finds_no_slot_before_the_deadline_gives_the_last_real_error(world: World) -> None:
    retry = Retry(attempts=2, on=ValueError, backoff=Constant(1, jitter="none"))
    pipeline = world.pipeline(Timeout(total=3), retry, Bulkhead(max_concurrent=1))
    first, _ = world.together(pipeline, (0, ValueError("real")), (0.5, takes(2.9)))
    assert str(first.error) == "real" and first.at == pytest.approx(3)


@pytest.mark.parametrize("on", [Exception, (CircuitOpen, BulkheadFull), lambda error: True])
def test_a_refusal_of_our_own_is_never_repeated(world: World, on: Any) -> None:
    circuit = CircuitBreaker()
    circuit.open()
    script = Script()
    error = world.fails(world.pipeline(Retry(on=on), circuit), script)
    assert isinstance(error, CircuitOpen) and error.reason == "forced"
    assert world.now == 0 and decisions(world) == []


@only_awaited
def test_an_attempt_cut_by_its_own_limit_is_repeated_where_timeouts_are_named(world: World) -> None:
    script = Script(takes(5), "second")
    pipeline = world.pipeline(Timeout(total=10, attempt=1), Retry(on=TimeoutError, backoff=AT_ONCE))
    assert world.call(pipeline, script) == "second"
    assert decisions(world) == [("retried", 1, "deadline")]


@only_awaited
def test_the_total_is_final(world: World) -> None:
    script = Script(takes(5))
    assert isinstance(world.fails(world.pipeline(Timeout(total=1, attempt=1), Retry(on=Exception, attempts=1)), script), DeadlineExceeded)
    assert isinstance(
        world.fails(world.pipeline(Timeout(total=1), Retry(on=Exception, backoff=AT_ONCE)), Script(takes(5))), DeadlineExceeded
    )
    assert [result for result, *_ in decisions(world)][-1] == "deadline"


@only_in_threads
def test_a_late_value_is_not_asked_for_again(world: World) -> None:
    script = Script(takes(3, "late"), "second")
    assert world.call(world.pipeline(Timeout(total=10, attempt=1), Retry(on=Exception)), script) == "late"
    assert len(script.asked) == 1
