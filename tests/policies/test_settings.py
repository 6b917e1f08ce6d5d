"""Every setting is checked at construction, by an error that names it; and nothing but the documented is accepted."""

from __future__ import annotations

import dataclasses
import inspect
import math
import re
from typing import Any

import pybreaker
import pytest

from resilient import (
    AdaptiveConcurrency,
    AdaptiveThrottle,
    Bulkhead,
    CircuitBreaker,
    Dependency,
    Fallback,
    RateLimit,
    Retry,
    RetryBudget,
    Timeout,
    standard,
)
from resilient.core.backoff import Constant, Exponential, Linear

NOT_A_NUMBER = ("1", None, True, math.nan)
AMOUNTS = ("total", "attempt", "first_byte", "idle")


def limit(**given: Any) -> RateLimit:
    return RateLimit(**{"rate": 10, **given})


def hard(**given: Any) -> RateLimit:
    return limit(hard=True, **given)


@pytest.mark.parametrize(
    ("make", "name", "values"),
    [
        (Timeout, "total", ("30", None, True, math.nan, 0, -1, -math.inf)),
        *[(Timeout, name, ("30", True, math.nan, 0, -1)) for name in AMOUNTS[1:]],
        (Timeout, "min_useful", ("1", True, math.nan, -1, math.inf, 30, 31)),
        (Timeout, "body", ("", "none", None, 5)),
        (Retry, "attempts", (0, -1, 1.5, "3", None, True)),
        (Retry, "max_retry_after", ("1", True, math.nan, math.inf, -1, None)),
        (Retry, "backoff", (5, "fast", Exponential)),
        (Retry, "budget", (0.2, "none", RetryBudget)),
        (Retry, "on", ("ValueError", 5, [ValueError, "x"], BaseException, (ValueError, 5))),
        (Retry, "random", (5, None)),
        (RetryBudget, "ratio", (-0.1, 1.1, "1", True, math.nan)),
        (RetryBudget, "reserve", (0, -1, "1", math.nan, math.inf, 0.01)),
        (RetryBudget, "window", (0, -1, "1", math.nan, math.inf)),
        (RetryBudget, "saved", (0, -1, "1", math.nan)),
        (Bulkhead, "max_concurrent", (0, -1, 1.5, "1", None, True)),
        (Bulkhead, "queue", (-1, 1.5, "1", None, True)),
        (Bulkhead, "max_wait", (-1, "1", math.nan, math.inf, True)),
        (Bulkhead, "standing_after", (-1, "1", math.nan, None)),
        (Bulkhead, "standing_wait", (-1, "1", math.nan, None)),
        *[(limit, name, (0, -1, "1", None, True, math.nan, math.inf)) for name in ("rate", "per", "max_pushback")],
        (limit, "burst", (0, -1, 0.5, "1", True, math.nan, math.inf)),
        (limit, "max_wait", (-1, "1", None, True, math.nan, math.inf)),
        (limit, "cost", (-1, "1", True, math.nan, math.inf)),
        *[(limit, name, (5, "len")) for name in ("settle", "key")],
        (limit, "max_keys", (0, -1, 1.5, "1", None, True)),
        (limit, "learn", ("", "some", None, True)),
        *[(limit, name, (0, 1, None, "no")) for name in ("hard", "enforce")],
        (hard, "burst", (1, 10)),
        (hard, "max_wait", (1, 0.5)),
        (hard, "rate", (0.5,)),
        *[(AdaptiveConcurrency, name, (0, -1, 1.5, "1", True)) for name in ("initial", "min_concurrent", "max_concurrent")],
        (AdaptiveConcurrency, "law", ("vegas", None, 5)),
        (AdaptiveConcurrency, "tolerance", (0.9, 0, "1", None, True, math.nan, math.inf)),
        (AdaptiveConcurrency, "timeout", (0, -1, "1", None, True, math.nan, math.inf)),
        (AdaptiveConcurrency, "queue", (-1, 1.5, "1", None, True)),
        (AdaptiveConcurrency, "max_wait", (-1, "1", math.nan, math.inf, True)),
        (AdaptiveConcurrency, "enforce", (0, None, "no")),
        (AdaptiveThrottle, "k", (0.9, 0, -1, "2", None, True, math.nan, math.inf)),
        (AdaptiveThrottle, "window", (0, -1, "1", None, True, math.nan, math.inf)),
        (AdaptiveThrottle, "min_requests", (0, -1, 1.5, "1", None, True)),
        (AdaptiveThrottle, "max_rejection", (0, -1, 1.1, "1", None, True, math.nan)),
        (AdaptiveThrottle, "enforce", (0, None, "no")),
        (AdaptiveThrottle, "random", (5, None)),
        (CircuitBreaker, "fail_max", (0, -1, 1.5, "1", True)),
        (CircuitBreaker, "reset_timeout", (0, -1, "1", math.nan, True)),
        (CircuitBreaker, "success_threshold", (0, -1, 1.5, "1")),
        (CircuitBreaker, "exclude", (ValueError, [5], ["ValueError"], 5, [int])),
        (CircuitBreaker, "listeners", ([object()], 5, [5])),
        (CircuitBreaker, "state_storage", (object(), "closed", dict)),
        (CircuitBreaker, "name", (5, b"db")),
        (CircuitBreaker, "throw_new_error_on_trip", (1, None, "no")),
        (CircuitBreaker, "disabled", (1, None)),
        (CircuitBreaker, "key", ("path", "", 5, ["route"])),
        (CircuitBreaker, "max_keys", (0, -1, 1.5, "1", None)),
        (CircuitBreaker, "break_for", (5, "1")),
        (CircuitBreaker, "initial_state", ("", "forced", None, 5)),
        (CircuitBreaker, "stall_calls", (0, -1, 1.5, "1")),
        *[(CircuitBreaker, name, (-1, "1", math.nan, math.inf, None)) for name in ("stall_factor", "stall_after")],
        (lambda **given: CircuitBreaker(break_for=lambda number, reason: 1.0, **given), "reset_timeout", (5,)),
        (lambda **given: CircuitBreaker(key="route", **given), "state_storage", (pybreaker.CircuitMemoryStorage("closed"),)),
        (lambda **given: CircuitBreaker(stall_calls=5, **given), "fail_max", (5,)),
        (CircuitBreaker, "random", (5, None)),
        *[(CircuitBreaker, name, (0, -1, 1.5, "1", None)) for name in ("outage_failures", "minimum_calls", "buckets", "trials")],
        *[(CircuitBreaker, name, (0, -1, "1", math.nan, math.inf, None)) for name in ("window", "break_time", "lease")],
        *[(CircuitBreaker, name, (0, -0.1, 1.1, "1", math.nan)) for name in ("failure_rate", "trial_failure_rate")],
        (CircuitBreaker, "count_window", (0, -1, 1.5, "1")),
        (CircuitBreaker, "outage_quiet", (-1, "1", math.nan)),
        (CircuitBreaker, "slow_call", (0, -1, "1")),
        (CircuitBreaker, "slow_rate", (0.5,)),
        (CircuitBreaker, "max_break", (0.5, 0, -1, "1")),
        (CircuitBreaker, "jitter", (-0.1, 1.1, "1")),
        (Exponential, "initial", (0, -1, "1", math.inf)),
        (Exponential, "maximum", (0, -1, "1")),
        (Exponential, "factor", (0.5, 0, "1")),
        (Exponential, "jitter", ("some", None, 0.5)),
        (Linear, "step", (-1, "1")),
        (standard, "timeout", ("2", True, 0, -1, math.nan)),
        (standard, "retry", (3, Retry, "no")),
        (standard, "rate_limit", (3, RateLimit, "no", [3], [RateLimit(1), None])),
        (standard, "bulkhead", (3, Bulkhead)),
        (standard, "breaker", (3, CircuitBreaker)),
        (standard, "fallback", ([], "x")),
        (lambda **given: Dependency("d", **given), "timeout", ("2", True, 0, -1, math.nan)),
    ],
)
def test_a_bad_setting_is_named(make: Any, name: str, values: tuple[Any, ...]) -> None:
    for value in values:
        with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
            make(**{name: value})


@pytest.mark.parametrize("policy", [Timeout, Retry, RetryBudget, AdaptiveConcurrency, AdaptiveThrottle, Bulkhead])
def test_settings_are_given_by_name(policy: Any) -> None:
    with pytest.raises(TypeError, match="positional"):
        policy(5)


@pytest.mark.parametrize(
    "policy", [Timeout, Retry, RetryBudget, AdaptiveConcurrency, AdaptiveThrottle, RateLimit, Bulkhead, CircuitBreaker, standard, Fallback]
)
def test_a_misspelt_setting_is_an_error(policy: Any) -> None:
    arguments = {Fallback: ("x",), RateLimit: (5,)}.get(policy, ())
    with pytest.raises(TypeError, match="atempts"):
        policy(*arguments, atempts=3)


def test_what_contradicts_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"^attempt: 3 s is longer than total, 2 s"):
        Timeout(total=2, attempt=3)
    for settings in ({"fail_max": 3, "failure_rate": 0.5}, {"reset_timeout": 20, "break_time": 3}, {"success_threshold": 2, "trials": 2}):
        pybreakers, ours = settings
        with pytest.raises(TypeError, match=f"^{pybreakers}: cannot be given together with {ours}"):
            CircuitBreaker(**settings)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^max_break must be at least break_time"):
        CircuitBreaker(break_time=5)
    with pytest.raises(TypeError, match=r"^timeout: the policies given hold a Timeout already"):
        Dependency("d", Timeout(), timeout=3)


def test_settings_that_are_right() -> None:
    timeout = Timeout()
    assert (timeout.total, timeout.attempt, timeout.first_byte, timeout.idle, timeout.body) == (30, 10, None, None, "idle")
    assert (timeout.min_useful, timeout.enforce) == (0.01, True)
    assert timeout.chunk_limit(first=True, silent=False) == 10 and timeout.chunk_limit(first=False, silent=True) == math.inf
    assert (Timeout(total=2).attempt, Timeout(total=60).attempt, Timeout(total=0.005).min_useful) == (2, 10, 0.0005)
    assert Timeout(first_byte=3).chunk_limit(first=True, silent=True) == 3
    retry = Retry()
    assert (retry.attempts, retry.backoff, retry.max_retry_after, retry.on) == (3, Exponential(), 60, None)
    assert Retry(backoff=Constant(1)).backoff == Constant(1)
    adaptive, throttle = AdaptiveConcurrency(), AdaptiveThrottle()
    assert (adaptive.limit, adaptive.largest, adaptive.max_wait, adaptive.enforce) == (20, 1000, None, True)
    assert (throttle.requests, throttle.accepts, throttle.enforce) == (0, 0, True)
    bulkhead = Bulkhead()
    assert (bulkhead.limit, bulkhead.max_wait, bulkhead.enforce) == (100, None, True)
    bucket = RateLimit(5)
    assert (bucket.rate, bucket.per, bucket.burst, bucket.max_wait, bucket.hard, bucket.enforce) == (5, 1, 5, 0, False, True)
    assert (RateLimit(60, 60).burst, RateLimit(0.5).burst, RateLimit(0.5, cost=0.1).burst, RateLimit(9, burst=2).burst) == (60, 1, 0.5, 2)
    rules = CircuitBreaker().rules
    assert (rules.outage_failures, rules.outage_quiet, rules.failure_rate, rules.minimum_calls, rules.window) == (5, 1, 0.7, 20, 10)
    assert (rules.break_time, rules.max_break, rules.jitter, rules.trials, rules.trial_failure_rate) == (1, 3, 0.2, 3, 0.5)
    assert (rules.slow_call, rules.slow_rate, rules.consecutive, rules.count_window) == (None,) * 4


def test_a_timeout_is_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Timeout().total = 5  # type: ignore[misc]


@pytest.mark.parametrize(
    "policy", [Timeout, Retry, RetryBudget, AdaptiveConcurrency, AdaptiveThrottle, RateLimit, Bulkhead, CircuitBreaker, standard, Fallback]
)
def test_every_parameter_is_documented(policy: Any) -> None:
    text = inspect.getdoc(policy) or ""
    parameters = [name for name, one in inspect.signature(policy).parameters.items() if one.kind is not one.VAR_KEYWORD]
    assert parameters
    for name in parameters:
        assert any(name in line.partition(":")[0] for line in text.splitlines()), f"{name} of {policy.__name__}"


def test_every_rule_of_a_breaker_is_documented_and_accepted() -> None:
    text = inspect.getdoc(CircuitBreaker) or ""
    rules = {name: value for name, value in dataclasses.asdict(CircuitBreaker().rules).items() if name not in ("consecutive", "growth")}
    for name, value in rules.items():
        assert re.search(rf"\b{name}\b", text), name
        if value is not None:
            assert getattr(CircuitBreaker(**{name: value}).rules, name) == value
    for hidden in ("consecutive", "growth"):
        with pytest.raises(TypeError, match=f"unknown parameter {hidden}"):
            CircuitBreaker(**{hidden: 2})
