"""Settings that are right each by itself and wrong together: told once, where they are put together."""

from __future__ import annotations

import math
import sys
import warnings
from collections.abc import Iterable
from typing import Any

from ..errors import ConfigurationWarning
from .adaptive import MOST
from .breaker import CircuitBreaker
from .bulkhead import DEFAULT_LIMIT, Bulkhead
from .cached import CachedFallback
from .fallback import Fallback
from .hedge import Hedge
from .timeout import Timeout

__all__ = ["warn", "warn_of_mistakes", "warn_of_pool"]


def warn_of_mistakes(policies: tuple[Any, ...], name: str) -> None:
    """Warn of what is known to go wrong in such a pipeline; called when it is made."""
    attempts = [policy.attempt or math.inf for policy in policies if isinstance(policy, Timeout)]
    attempt = max((seconds for seconds in attempts if seconds != math.inf), default=None)
    for index, policy in enumerate(policies):
        if isinstance(policy, CachedFallback) and any(isinstance(other, Fallback) for other in policies[index:]):
            warn(name, "a Fallback inside of a Fallback.cached stands in for failures before the last good value can; give it first")
        if isinstance(policy, CircuitBreaker):
            for mistake in _of_breaker(policy, attempt):
                warn(name, mistake)
        if isinstance(policy, Hedge) and policy.delay is not None:
            last = policy.max_hedges * policy.delay
            if any(isinstance(other, Timeout) and last > other.total for other in policies):
                warn(
                    name,
                    f"max_hedges={policy.max_hedges} of the Hedge, {policy.delay} s apart, are more than fit into the total "
                    "of the Timeout: the last ones are never sent",
                )


def warn_of_pool(policies: Iterable[Any], connections: int, name: str) -> None:
    """Warn of a bulkhead that admits more calls than the connection pool below it has connections."""
    for policy in policies:
        # The limit that nobody chose says nothing of what its user thinks.
        if isinstance(policy, Bulkhead) and policy.largest > connections and policy.largest not in (DEFAULT_LIMIT, MOST):
            warn(
                name,
                f"max_concurrent={policy.largest} of the {type(policy).__name__} is more than the {connections} connections of the pool "
                "below it: calls will queue for a connection while they hold a slot",
            )


def _of_breaker(breaker: CircuitBreaker, attempt: float | None) -> list[str]:
    rules, mistakes = breaker.rules, []
    if rules.count_window is not None and rules.count_window < rules.minimum_calls:
        mistakes.append(
            f"count_window={rules.count_window} of the CircuitBreaker is smaller than minimum_calls={rules.minimum_calls}: "
            "no rate will ever trip it"
        )
    # The window that nobody chose (10 s, as long as an attempt) is fine: the outage rule sees hangs without any window.
    chosen = breaker.chose("window") and rules.count_window is None
    if chosen and attempt is not None and rules.window < 2 * attempt:
        mistakes.append(
            f"window={rules.window} of the CircuitBreaker is shorter than two attempts of {attempt} s: "
            "calls that time out will be forgotten before they are enough to trip it"
        )
    # Its default is made to fit.
    if breaker.chose("lease") and attempt is not None and rules.lease <= attempt:
        mistakes.append(
            f"lease={rules.lease} of the CircuitBreaker is no longer than an attempt of {attempt} s: "
            "the verdict of a trial that times out will come too late to count"
        )
    return mistakes


def warn(name: str, mistake: str) -> None:
    """Tell of a mistake, with the line of the program that made it."""
    # To be shown with the line of the program that put it together, whichever of our classes that was done with.
    level, frame = 1, sys._getframe()
    while frame.f_back is not None and str(frame.f_globals.get("__name__", "")).startswith("resilient."):
        level, frame = level + 1, frame.f_back
    warnings.warn(f"{name}: {mistake}" if name else mistake, ConfigurationWarning, stacklevel=level)
