"""What a user of pybreaker finds again: the parameters and their meaning, the setters, the error."""

from __future__ import annotations

import threading
from typing import Any

import pybreaker
import pytest

import resilient.errors
from resilient import CircuitBreaker, CircuitOpen, Pipeline
from resilient.testing import FakeClock

from .storages import Ear


def fail(times: int, breaker: pybreaker.CircuitBreaker, error: type[Exception] = ValueError) -> None:
    def broken() -> None:
        raise error("scripted")

    for _ in range(times):
        with pytest.raises(error):
            breaker.call(broken)


def on(clock: FakeClock, breaker: CircuitBreaker) -> CircuitBreaker:
    """The breaker, told the time by `clock`."""
    clock.pipeline = Pipeline(breaker, clock=clock)  # type: ignore[attr-defined]  # kept alive with the clock
    return breaker


# -- what it is --------------------------------------------------------------------------------------------------


def test_it_is_a_pybreaker_circuit_breaker() -> None:
    breaker = CircuitBreaker(name="db")
    assert isinstance(breaker, pybreaker.CircuitBreaker)
    assert breaker.name == "db"
    breaker.name = "database"
    assert breaker.name == "database"
    assert (breaker.current_state, breaker.state.name) == (pybreaker.STATE_CLOSED,) * 2


def test_ground_22_except_circuit_breaker_error_catches_the_rejection() -> None:
    breaker = CircuitBreaker()
    breaker.open()
    with pytest.raises(pybreaker.CircuitBreakerError):
        breaker.call(int)
    assert issubclass(CircuitOpen, pybreaker.CircuitBreakerError) and issubclass(CircuitOpen, resilient.errors.Rejected)


def test_the_first_eight_parameters_are_pybreakers_in_its_order() -> None:
    ear, storage = Ear(), pybreaker.CircuitMemoryStorage(pybreaker.STATE_CLOSED)
    arguments = (3, 20, 2, [KeyError], [ear], storage, "db", True)
    ours, theirs = CircuitBreaker(*arguments), pybreaker.CircuitBreaker(*arguments)
    for breaker in (ours, theirs):
        assert (breaker.fail_max, breaker.reset_timeout, breaker.success_threshold) == (3, 20, 2)
        assert (breaker.excluded_exceptions, breaker.listeners, breaker.name) == ((KeyError,), (ear,), "db")
        assert breaker.open() is True  # throw_new_error_on_trip


def test_fail_max_is_the_consecutive_rule_alone_for_any_failure(clock: FakeClock) -> None:
    breaker = on(clock, CircuitBreaker(fail_max=3))
    fail(2, breaker)
    breaker.call(int)
    fail(2, breaker)
    assert breaker.current_state == "closed" and breaker.fail_counter == 2
    fail(1, breaker)
    assert breaker.current_state == "open" and breaker.reason == "consecutive"


def test_reset_timeout_is_a_fixed_break_and_success_threshold_the_sample(clock: FakeClock) -> None:
    breaker = on(clock, CircuitBreaker(1, 20, 2))
    for _ in range(3):
        fail(1, breaker)
        with pytest.raises(CircuitOpen) as caught:
            breaker.call(int)
        assert caught.value.retry_after == pytest.approx(20)
        clock.advance(20)
    breaker.call(int)
    assert breaker.current_state == "half-open" and breaker.success_counter == 1
    breaker.call(int)
    assert breaker.current_state == "closed"


@pytest.mark.parametrize("exclude", [[KeyError], [LookupError], [lambda error: error.args == ("scripted",)]])
def test_ground_27_excluded_errors_are_neutral(clock: FakeClock, exclude: list[Any]) -> None:
    """pybreaker takes them for successes: they would reset the count, and close a half-open circuit."""
    breaker = on(clock, CircuitBreaker(2, 20, exclude=exclude))
    with pytest.raises(RuntimeError), breaker.calling():
        raise RuntimeError("another one")
    fail(5, breaker, KeyError)
    assert breaker.fail_counter == 1 and breaker.current_state == "closed"
    breaker.half_open()
    fail(1, breaker, KeyError)
    assert breaker.current_state == "half-open"


def test_an_exclude_that_fails_loses_no_trial(clock: FakeClock) -> None:
    def broken(error: Exception) -> bool:
        raise RuntimeError("in exclude")

    breaker = on(clock, CircuitBreaker(1, 20, 1, exclude=[broken]))
    fail(1, breaker)
    assert breaker.current_state == "open"  # not excluded, then
    clock.advance(20)
    fail(1, breaker)
    assert breaker.current_state == "open"


def test_excluding_later_works_too() -> None:
    breaker = CircuitBreaker(1)
    breaker.add_excluded_exceptions(KeyError, OSError)
    fail(3, breaker, KeyError)
    fail(3, breaker, FileNotFoundError)
    breaker.remove_excluded_exception(KeyError)
    fail(1, breaker, KeyError)
    assert breaker.current_state == "open"


# -- setters -----------------------------------------------------------------------------------------------------


def test_setters_keep_what_was_seen(clock: FakeClock) -> None:
    breaker = on(clock, CircuitBreaker(10))
    fail(4, breaker)
    breaker.fail_max = 5
    breaker.reset_timeout = 7
    breaker.success_threshold = 2
    assert (breaker.fail_counter, breaker.fail_max, breaker.reset_timeout, breaker.success_threshold) == (4, 5, 7, 2)
    fail(1, breaker)
    with pytest.raises(CircuitOpen) as caught:
        breaker.call(int)
    assert caught.value.retry_after == pytest.approx(7)


def test_configuring_keeps_the_window(clock: FakeClock) -> None:
    breaker = on(clock, CircuitBreaker(minimum_calls=20))
    fail(9, breaker)
    breaker.configure(minimum_calls=10)
    fail(1, breaker)
    assert breaker.reason == "failure_rate"


def test_setters_wait_for_the_lock() -> None:
    breaker = CircuitBreaker(10)
    done = threading.Event()

    def configure() -> None:
        breaker.fail_max = 5
        done.set()

    with breaker._lock:
        thread = threading.Thread(target=configure)
        thread.start()
        assert not done.wait(0.05)
        assert breaker.fail_max == 10
    thread.join()
    assert breaker.fail_max == 5


@pytest.mark.parametrize(
    ("name", "value"), [("fail_max", 0), ("reset_timeout", -1), ("success_threshold", 0), ("state", "ajar"), ("disabled", 1)]
)
def test_a_setter_that_is_given_nonsense_names_itself_and_changes_nothing(name: str, value: Any) -> None:
    breaker = CircuitBreaker(3, 20, 2)
    before = breaker.rules
    with pytest.raises((TypeError, ValueError), match=name):
        setattr(breaker, name, value)
    assert breaker.rules == before


def test_two_setters_at_once_lose_nothing() -> None:
    breaker = CircuitBreaker()

    def turn(setting: str, value: float) -> None:
        for _ in range(300):
            breaker.configure(**{setting: value})

    threads = [threading.Thread(target=turn, args=pair) for pair in (("outage_quiet", 2.0), ("lease", 5.0), ("slow_call", 1.0))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (breaker.rules.outage_quiet, breaker.rules.lease, breaker.rules.slow_call) == (2.0, 5.0, 1.0)


def test_the_state_can_be_set() -> None:
    breaker = CircuitBreaker()
    for state in ("open", "half-open", "closed"):
        breaker.state = state  # type: ignore[assignment]
        assert breaker.current_state == state
