"""The policies, one file each, and the pipeline that runs them."""

from __future__ import annotations

from .adaptive import AdaptiveConcurrency as AdaptiveConcurrency
from .breaker import CircuitBreaker as CircuitBreaker
from .bulkhead import Bulkhead as Bulkhead
from .cache import Cache as Cache
from .cached import CachedFallback as CachedFallback
from .chaos import Chaos as Chaos
from .failover import Failover as Failover
from .fallback import Fallback as Fallback
from .hedge import Hedge as Hedge
from .pipeline import Pipeline as Pipeline
from .ratelimit import RateLimit as RateLimit
from .retry import Retry as Retry
from .retry import RetryBudget as RetryBudget
from .standard import standard as standard
from .target import Target as Target
from .throttle import AdaptiveThrottle as AdaptiveThrottle
from .timeout import Timeout as Timeout

__all__ = [
    "AdaptiveConcurrency",
    "AdaptiveThrottle",
    "Bulkhead",
    "Cache",
    "CachedFallback",
    "Chaos",
    "CircuitBreaker",
    "Failover",
    "Fallback",
    "Hedge",
    "Pipeline",
    "RateLimit",
    "Retry",
    "RetryBudget",
    "Target",
    "Timeout",
    "standard",
]
