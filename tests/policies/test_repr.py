"""What each policy says of itself: short, and of its settings those that are not the defaults."""

from __future__ import annotations

import inspect
import random
from typing import Any

import pybreaker
import pytest

import resilient
from resilient import (
    AdaptiveConcurrency,
    AdaptiveThrottle,
    Bulkhead,
    Cache,
    CachedFallback,
    Chaos,
    CircuitBreaker,
    Constant,
    Dependency,
    Failover,
    Fallback,
    Hedge,
    Pipeline,
    RateLimit,
    Retry,
    RetryBudget,
    Target,
    Timeout,
)
from resilient.core.rules import Rules
from resilient.protocols import Policy
from resilient.stores import MemoryStore


def ours(*given: Any) -> float:
    return 1.0


class Listener(pybreaker.CircuitBreakerListener):
    def __repr__(self) -> str:
        return "Listener()"


BUDGET = RetryBudget(ratio=0.1)
# What a policy cannot be made without, and a value of each setting that is not the default one.
NEEDED: dict[type, dict[str, Any]] = {
    CachedFallback: {"ttl": 5},
    RateLimit: {"rate": 5},
    Chaos: {"rate": 0.5, "status": 503},
    Fallback: {"fallback": []},
}
SETTINGS: dict[type, dict[str, Any]] = {
    CachedFallback: {
        "ttl": 60.0,
        "stale_if_error": 60.0,
        "stale_while_revalidate": 5.0,
        "soft_timeout": 0.2,
        "key": "partition",
        "partition": ours,
        "on": (KeyError,),
        "max_size": 1000,
        "refresh_early": 1.0,
        "store": MemoryStore(1000),
    },
    Cache: {
        "ttl": 5.0,
        "stale_if_error": 60.0,
        "stale_while_revalidate": 5.0,
        "soft_timeout": 0.2,
        "negative_ttl": {404: 5},
        "shared": False,
        "per_user": True,
        "partition": ours,
        "identity": ("x-user",),
        "share_anonymous": False,
        "max_body": 1000,
        "max_stale": 60.0,
        "heuristic": 0.0,
        "refresh_early": 1.0,
        "stale_statuses": (503,),
        "unkeyed": ("x-forwarded-for",),
        "ignore_origin_prohibition": True,
        "store": MemoryStore(1000),
    },
    AdaptiveConcurrency: {
        "initial": 5,
        "min_concurrent": 2,
        "max_concurrent": 50,
        "law": "aimd",
        "tolerance": 2.0,
        "timeout": 1.0,
        "queue": 7,
        "max_wait": 1.0,
        "standing_after": 2.0,
        "standing_wait": 0.1,
        "enforce": False,
    },
    AdaptiveThrottle: {"k": 1.5, "window": 60.0, "min_requests": 5, "max_rejection": 0.5, "enforce": False, "random": ours},
    Bulkhead: {"max_concurrent": 5, "queue": 7, "max_wait": 1.0, "standing_after": 2.0, "standing_wait": 0.1, "enforce": False},
    Chaos: {
        "fault": KeyError,
        "status": 500,
        "result": 7,
        "truncate": 5,
        "hang": True,
        "latency": 0.5,
        "match": "GET",
        "header": "x-chaos",
        "when": ours,
        "seed": 1,
        "enabled": False,
        "enforce": False,
        "rate": 0.25,
    },
    CircuitBreaker: {
        "fail_max": 5,
        "reset_timeout": 60.0,
        "success_threshold": 2,
        "exclude": [KeyError],
        "listeners": [Listener()],
        "state_storage": pybreaker.CircuitMemoryStorage("closed"),
        "name": "shop",
        "throw_new_error_on_trip": True,
        "break_for": ours,
        "key": "route",
        "max_keys": 5,
        "enforce": False,
        "disabled": True,
        "random": ours,
    },
    Failover: {"repeat": True},
    Fallback: {"fallback": "instead", "on": (KeyError,)},
    Hedge: {"delay": 0.5, "max_hedges": 2, "budget": BUDGET, "after_failure": True, "enforce": False},
    RateLimit: {
        "rate": 10,
        "per": 60.0,
        "burst": 7,
        "max_wait": 1.0,
        "cost": 2.0,
        "settle": ours,
        "key": "origin",
        "max_keys": 5,
        "hard": True,
        "learn": "nothing",
        "max_pushback": 5.0,
        "enforce": False,
    },
    Retry: {
        "attempts": 5,
        "backoff": Constant(1),
        "budget": BUDGET,
        "on": KeyError,
        "on_result": True,
        "idempotency": "auto",
        "attempt_header": True,
        "max_retry_after": 5.0,
        "random": ours,
    },
    RetryBudget: {"ratio": 0.1, "reserve": 1.0, "window": 20.0, "saved": 5, "key": "route", "max_keys": 5},
    Timeout: {
        "total": 5.0,
        "attempt": 1.0,
        "first_byte": 2.0,
        "idle": 3.0,
        "body": "total",
        "min_useful": 0.5,
        "enforce": False,
    },
}
RULES = {
    "outage_failures": 6,
    "outage_quiet": 2.0,
    "stall_calls": None,
    "stall_factor": 5.0,
    "stall_after": 2.0,
    "failure_rate": 0.5,
    "minimum_calls": 10,
    "window": 5.0,
    "buckets": 5,
    "count_window": 50,
    "slow_call": 1.0,
    "slow_rate": 0.5,
    "break_time": 2.0,
    "max_break": 9.0,
    "jitter": 0.1,
    "trials": 2,
    "trial_failure_rate": 0.4,
    "lease": 9.0,
}
ALONE = {RateLimit: {"hard": {"max_wait": 0.0}}, Timeout: {"min_useful": {}}}
CASES = [(kind, name, value) for kind, settings in SETTINGS.items() for name, value in settings.items()]


def make(kind: type, **settings: Any) -> Any:
    if kind is Failover:
        return Failover("https://eu.example", Target("us"), **settings)
    if kind is Chaos and settings.keys() & {"fault", "result", "truncate", "hang", "latency"}:
        return Chaos(rate=0.5, **settings)
    return kind(**{**NEEDED.get(kind, {}), **settings})


def test_every_policy_is_here_with_each_of_its_settings() -> None:
    public = [getattr(resilient, name) for name in resilient.__all__]
    policies = {one for one in public if isinstance(one, type) and hasattr(one, "run") and not issubclass(one, Pipeline)} - {Policy}
    assert policies | {RetryBudget} == SETTINGS.keys()
    for kind, settings in SETTINGS.items():
        parameters = set(inspect.signature(kind).parameters) - {"targets", "rules", "initial_state"}  # the last is no setting
        assert settings.keys() == parameters, kind
    assert RULES.keys() == set(Rules.__dataclass_fields__) - {"consecutive", "growth"}


@pytest.mark.parametrize(("kind", "name", "value"), [*CASES, *[(CircuitBreaker, name, value) for name, value in RULES.items()]])
def test_a_setting_that_is_not_the_default_is_told(kind: type, name: str, value: Any) -> None:
    settings = {name: value} | ({"slow_call": 1.0} if name == "slow_rate" else {}) | ({"key": "route"} if name == "max_keys" else {})
    policy = make(kind, **settings)
    told = "trials" if name == "success_threshold" else name  # which is the same
    assert f"{told}=" in repr(policy), repr(policy)
    assert len(repr(policy)) < 200


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (AdaptiveConcurrency(), "AdaptiveConcurrency()"),
        (AdaptiveThrottle(), "AdaptiveThrottle()"),
        (Bulkhead(), "Bulkhead()"),
        (Chaos(rate=0.05, latency=(0.1, 2)), "Chaos(rate=0.05, latency=(0.1, 2))"),
        (Chaos(rate=1, fault=ConnectionError, enabled=False), "Chaos(rate=1, fault=ConnectionError, enabled=False)"),
        (CircuitBreaker(), "CircuitBreaker()"),
        (CircuitBreaker(5, 60, name="catalog"), "CircuitBreaker(name='catalog', fail_max=5, reset_timeout=60)"),
        (CircuitBreaker(failure_rate=0.5, break_time=2), "CircuitBreaker(failure_rate=0.5, break_time=2)"),
        (CircuitBreaker(break_time=1, jitter=0.0, max_break=1), "CircuitBreaker(max_break=1, jitter=0.0)"),
        (CircuitBreaker(lease=30.0), "CircuitBreaker(lease=30.0)"),
        (CircuitBreaker(exclude=[KeyError, ours], random=random.random), "CircuitBreaker(exclude=[KeyError, ours])"),
        (Failover("https://eu.example", Target("us")), "Failover(targets=['eu.example', 'us'])"),
        (Fallback(None), "Fallback(fallback=None)"),
        (Fallback(list(range(1000)), on=KeyError), "Fallback(fallback=[0, 1, 2, 3, ...], on=(KeyError,))"),
        (Fallback("x" * 500), "Fallback(fallback='" + "x" * 56 + "...)"),
        (Hedge(), "Hedge()"),
        (Hedge(budget=BUDGET), "Hedge(budget=RetryBudget(ratio=0.1))"),
        (RateLimit(10), "RateLimit(rate=10)"),
        (RateLimit(10, 60, burst=10), "RateLimit(rate=10, per=60)"),
        (RateLimit(2.5, cost=ours, key=lambda request: 1), "RateLimit(rate=2.5, cost=ours, key=<lambda>)"),
        (Retry(), "Retry()"),
        (Retry(on=(KeyError, ValueError), attempts=5), "Retry(attempts=5, on=(KeyError, ValueError))"),
        (Retry(backoff=Constant(1)), "Retry(backoff=Constant(delay=1, jitter='equal'))"),
        (RetryBudget(), "RetryBudget()"),
        (Timeout(), "Timeout()"),
        (Timeout(total=5), "Timeout(total=5)"),
        (Timeout(total=5, attempt=2), "Timeout(total=5, attempt=2)"),
    ],
)
def test_what_they_say(policy: Any, told: str) -> None:
    assert repr(policy) == told


def test_what_is_set_later_is_told_too() -> None:
    breaker = CircuitBreaker(name="catalog")
    breaker.configure(failure_rate=0.5)
    breaker.enforce = False
    assert repr(breaker) == "CircuitBreaker(name='catalog', failure_rate=0.5, enforce=False)"
    limit = Bulkhead()
    limit.enforce = False
    assert repr(limit) == "Bulkhead(enforce=False)"


def test_standing_in_a_pipeline_says_nothing_new() -> None:
    policies = [Timeout(), Retry(), Hedge(delay=1), Bulkhead(), CircuitBreaker()]
    before = list(map(repr, policies))
    Dependency("shop", *policies)
    assert list(map(repr, policies)) == before


class Loud:
    def __repr__(self) -> str:
        raise ValueError("not today")


def test_a_setting_that_cannot_be_told() -> None:
    assert repr(Fallback(Loud())) == "Fallback(fallback=<Loud, whose repr raised ValueError>)"
