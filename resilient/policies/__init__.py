"""The policies, one file each, and the pipeline that runs them."""

from __future__ import annotations

from .breaker import CircuitBreaker as CircuitBreaker
from .bulkhead import Bulkhead as Bulkhead
from .failover import Failover as Failover
from .fallback import Fallback as Fallback
from .hedge import Hedge as Hedge
from .pipeline import Pipeline as Pipeline
from .retry import Retry as Retry
from .retry import RetryBudget as RetryBudget
from .standard import standard as standard
from .target import Target as Target
from .timeout import Timeout as Timeout

__all__ = [
    "Bulkhead",
    "CircuitBreaker",
    "Failover",
    "Fallback",
    "Hedge",
    "Pipeline",
    "Retry",
    "RetryBudget",
    "Target",
    "Timeout",
    "standard",
]
