"""Results that are no answers: repeated where the program says that they may be."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from resilient import CircuitBreaker, Constant, Outcome, Pipeline, Retry, Timeout
from resilient.events import RetryDecided
from resilient.testing import FakeClock

from .driver import Script, World

AT_ONCE = Constant(0, jitter="none")


def unready(result: Any, error: BaseException | None) -> Outcome | None:
    return Outcome.FAILURE if result == "unready" else None


def retry(**settings: Any) -> Retry:
    return Retry(backoff=AT_ONCE, **settings)


def test_a_failed_result_is_repeated_if_that_is_safe(world: World) -> None:
    script = Script("unready", "unready", "ready")
    assert world.call(world.pipeline(retry(on_result=True), classify=unready), script) == "ready"
    assert [(event.result, event.cause) for event in world.listener.of(RetryDecided)] == [("retried", "result")] * 2


def test_it_is_not_known_to_be_safe(world: World) -> None:
    script = Script("unready", "ready")
    assert world.call(world.pipeline(retry(on=ValueError), classify=unready), script) == "unready"
    assert len(script.asked) == 1


def test_the_last_one_is_given(world: World) -> None:
    script = Script("unready")
    assert world.call(world.pipeline(retry(on_result=True), classify=unready), script) == "unready"
    assert len(script.asked) == 3


def test_the_program_says_which(world: World) -> None:
    script = Script(1, 2, 3, 4)
    assert world.call(world.pipeline(retry(on_result=lambda result: result < 2)), script) == 2
    assert len(script.asked) == 2


def test_what_is_asked_for_again_need_not_be_a_failure(world: World) -> None:
    breaker = CircuitBreaker(fail_max=1)
    script = Script(1, 2)
    assert world.call(world.pipeline(retry(on_result=lambda result: result < 2), breaker), script) == 2
    assert breaker.current_state == "closed"


def test_a_function_that_fails_asks_for_nothing(world: World, caplog: pytest.LogCaptureFixture) -> None:
    script = Script("text")
    with caplog.at_level(logging.ERROR, "resilient"):
        assert world.call(world.pipeline(retry(on_result=lambda result: result < 2)), script) == "text"
    assert len(script.asked) == 1
    assert "on_result" in caplog.text


# -- values that came late, as only a synchronous call's do --------------------------------------------------------------


class Slow:
    """A function whose first value comes after its attempt should have ended."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        if self.calls == 1:
            self.clock.sleep(2)
        return self.calls


def slow(clock: FakeClock, **settings: Any) -> tuple[Slow, CircuitBreaker, Pipeline]:
    circuit = CircuitBreaker(fail_max=5)
    return Slow(clock), circuit, Pipeline(Timeout(total=10, attempt=1), retry(**settings), circuit, clock=clock)


def test_a_value_that_came_late_is_not_asked_for_again(clock: FakeClock) -> None:
    function, _, pipeline = slow(clock, on_result=True)
    assert pipeline.call_sync(function) == 1


def test_a_value_that_comes_in_time_after_one_that_did_not_is_a_success(clock: FakeClock) -> None:
    function, circuit, pipeline = slow(clock, on_result=lambda result: result < 2)
    assert pipeline.call_sync(function) == 2
    assert circuit.fail_counter == 0
    assert pipeline.stats.snapshot().counts == {"success": 1, "failure": 0, "ignored": 0}
