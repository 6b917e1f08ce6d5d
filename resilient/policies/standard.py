"""The production preset: every policy that protects, in the order that works, with defaults that hold in an outage."""

from __future__ import annotations

from typing import Any

from .breaker import CircuitBreaker
from .bulkhead import Bulkhead
from .fallback import Fallback
from .retry import Retry
from .timeout import Timeout

__all__ = ["standard"]


def standard(
    *,
    timeout: float | Timeout | None = None,
    retry: Retry | None = None,
    bulkhead: Bulkhead | None = None,
    breaker: Any = None,
    fallback: Fallback | None = None,
) -> tuple[Any, ...]:
    """The policies of a dependency, outermost first: Fallback (if given), Timeout, Retry, Bulkhead, CircuitBreaker.

    Args:
        timeout: seconds in all, or a `Timeout`; 30 in all and 10 an attempt by default.
        retry: 3 attempts under a budget of 20 % by default.
        bulkhead: 100 calls at a time, 1000 waiting, by default.
        breaker: a `CircuitBreaker`, or a plain `pybreaker.CircuitBreaker`.
        fallback: what to answer when all of that has failed.

    Returns:
        New policies, to be given to a `Dependency` or a `Pipeline`: `Pipeline(*standard(timeout=2))`.
    """
    if timeout is None:
        timeout = Timeout()
    elif not isinstance(timeout, Timeout):
        timeout = Timeout(total=timeout)
    if breaker is None:
        # A trial's lease has to outlast its own timeout, or the verdict of a trial that hangs comes too late to count.
        lease = 30.0 if timeout.attempt is None else min(max(timeout.attempt * 1.5, timeout.attempt + 1.0), 3600.0)
        breaker = CircuitBreaker(lease=lease)
    rest = (timeout, retry or Retry(), bulkhead or Bulkhead(), breaker)
    return rest if fallback is None else (fallback, *rest)
