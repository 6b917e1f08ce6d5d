"""The production preset: every policy that protects, in the order that works, with defaults that hold in an outage."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import pybreaker

from ..core.bounds import positive
from .adaptive import AdaptiveConcurrency
from .breaker import CircuitBreaker
from .bulkhead import DEFAULT_LIMIT, Bulkhead
from .cache import Cache
from .cached import CachedFallback
from .chaos import Chaos
from .failover import Failover
from .fallback import Fallback
from .hedge import Hedge
from .ratelimit import RateLimit
from .retry import Retry
from .timeout import Timeout

__all__ = ["standard"]

LEAST = 4  # calls at a time that a dependency is asked for, however it fares


def standard(
    *,
    timeout: float | Timeout | None = None,
    rate_limit: RateLimit | Sequence[RateLimit] | None = None,
    retry: Retry | None = None,
    hedge: Hedge | None = None,
    bulkhead: Bulkhead | None = None,
    breaker: Any = None,
    failover: Failover | None = None,
    fallback: Fallback | CachedFallback | None = None,
    cache: Cache | CachedFallback | None = None,
    chaos: Chaos | None = None,
) -> tuple[Any, ...]:
    """The policies of a dependency, outermost first.

    Fallback and Cache (if given), Timeout, RateLimit (if given), Retry, Hedge and Failover (if given), AdaptiveConcurrency,
    CircuitBreaker, Chaos (if given).

    Args:
        timeout: seconds in all, or a `Timeout`; 30 in all and 10 an attempt by default.
        rate_limit: how many calls, whatever their attempts, may go; several (tokens a minute, money a day) in a list.
        retry: 3 attempts under a budget of 20 % by default.
        hedge: a `Hedge`, which then shares the budget of the retry.
        bulkhead: a `Bulkhead`, adaptive or not; by default 100 calls at a time, down to 4 where the dependency is
            overloaded, and 1000 waiting.
        breaker: a `CircuitBreaker`, or a plain `pybreaker.CircuitBreaker`.
        failover: a `Failover`, each of whose targets has a breaker of its own; there is none for all of them then, unless
            one is given.
        fallback: what to answer when all of that has failed.
        cache: a `Cache`, which answers what was answered before; for functions, a `Fallback.cached`.
        chaos: faults on purpose, where they are allowed.

    Returns:
        New policies, to be given to a `Dependency` or a `Pipeline`: `Pipeline(*standard(timeout=2))`.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """
    if timeout is None:
        timeout = Timeout()
    elif not isinstance(timeout, Timeout):
        if timeout != math.inf:  # which stands for: no limit
            positive("timeout", timeout)
        timeout = Timeout(total=timeout)
    for name, given, kind in (
        ("retry", retry, Retry),
        ("hedge", hedge, Hedge),
        ("bulkhead", bulkhead, Bulkhead),
        ("breaker", breaker, pybreaker.CircuitBreaker),
        ("failover", failover, Failover),
        ("fallback", fallback, (Fallback, CachedFallback)),
        ("cache", cache, (Cache, CachedFallback)),
        ("chaos", chaos, Chaos),
    ):
        if given is not None and not isinstance(given, kind):
            raise TypeError(f"{name}: expected a {(kind[0] if isinstance(kind, tuple) else kind).__name__}, got {given!r}")
    limits = () if rate_limit is None else (rate_limit,) if isinstance(rate_limit, RateLimit) else rate_limit
    if not (isinstance(limits, Sequence) and all(isinstance(limit, RateLimit) for limit in limits)):
        raise TypeError(f"rate_limit: expected a RateLimit, or several in a list, got {rate_limit!r}")
    chosen = (
        fallback,
        cache,
        timeout,
        *limits,
        Retry() if retry is None else retry,
        hedge,
        failover,
        _bulkhead() if bulkhead is None else bulkhead,
        CircuitBreaker() if breaker is None and failover is None else breaker,
        chaos,
    )
    return tuple(policy for policy in chosen if policy is not None)


def _bulkhead() -> Bulkhead:
    """A bulkhead that begins with all of its slots, so that a burst into a fresh client fares as with a fixed one."""
    return AdaptiveConcurrency(initial=DEFAULT_LIMIT, min_concurrent=LEAST, max_concurrent=DEFAULT_LIMIT)
