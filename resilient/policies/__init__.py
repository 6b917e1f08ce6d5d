"""The policies, one file each, and the pipeline that runs them."""

from __future__ import annotations

from .adaptive import AdaptiveConcurrency as AdaptiveConcurrency
from .breaker import CircuitBreaker as CircuitBreaker
from .bulkhead import Bulkhead as Bulkhead
from .chaos import Chaos as Chaos
from .fallback import Fallback as Fallback
from .pipeline import Pipeline as Pipeline
from .ratelimit import RateLimit as RateLimit
from .retry import Retry as Retry
from .retry import RetryBudget as RetryBudget
from .standard import standard as standard
from .throttle import AdaptiveThrottle as AdaptiveThrottle
from .timeout import Timeout as Timeout

__all__ = [
    "AdaptiveConcurrency",
    "AdaptiveThrottle",
    "Bulkhead",
    "Chaos",
    "CircuitBreaker",
    "Fallback",
    "Pipeline",
    "RateLimit",
    "Retry",
    "RetryBudget",
    "Timeout",
    "standard",
]
