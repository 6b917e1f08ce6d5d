"""Keep Python web apps useful while the things they depend on fail.

Policies for outbound calls (httpx, httpx2, any function), pure ASGI middleware for inbound requests, and features that
degrade on their own. See https://pypi.org/project/resilient-asgi/.
"""

from __future__ import annotations

from .context import Criticality as Criticality
from .context import Deadline as Deadline
from .context import current_criticality as current_criticality
from .context import current_deadline as current_deadline
from .core.backoff import Constant as Constant
from .core.backoff import Exponential as Exponential
from .core.backoff import Linear as Linear
from .core.outcome import Outcome as Outcome
from .dependency import Dependency as Dependency
from .errors import AllTargetsFailed as AllTargetsFailed
from .errors import BulkheadFull as BulkheadFull
from .errors import CircuitOpen as CircuitOpen
from .errors import ConfigurationWarning as ConfigurationWarning
from .errors import DeadlineExceeded as DeadlineExceeded
from .errors import Overloaded as Overloaded
from .errors import RateLimited as RateLimited
from .errors import Rejected as Rejected
from .errors import ResilienceError as ResilienceError
from .errors import SpendExceeded as SpendExceeded
from .feature import Brownout as Brownout
from .feature import Feature as Feature
from .feature import Level as Level
from .feature import chain as chain
from .feature import degradation_scope as degradation_scope
from .http.options import RequestOptions as RequestOptions
from .policies import AdaptiveConcurrency as AdaptiveConcurrency
from .policies import AdaptiveThrottle as AdaptiveThrottle
from .policies import Bulkhead as Bulkhead
from .policies import Cache as Cache
from .policies import CachedFallback as CachedFallback
from .policies import Chaos as Chaos
from .policies import CircuitBreaker as CircuitBreaker
from .policies import Failover as Failover
from .policies import Fallback as Fallback
from .policies import Hedge as Hedge
from .policies import Pipeline as Pipeline
from .policies import RateLimit as RateLimit
from .policies import Retry as Retry
from .policies import RetryBudget as RetryBudget
from .policies import Target as Target
from .policies import Timeout as Timeout
from .policies import standard as standard
from .resilience import Resilience as Resilience
from .settings import Settings as Settings
from .settings import SettingsError as SettingsError

__all__ = [
    "AdaptiveConcurrency",
    "AdaptiveThrottle",
    "AllTargetsFailed",
    "Brownout",
    "Bulkhead",
    "BulkheadFull",
    "Cache",
    "CachedFallback",
    "Chaos",
    "CircuitBreaker",
    "CircuitOpen",
    "ConfigurationWarning",
    "Constant",
    "Criticality",
    "Deadline",
    "DeadlineExceeded",
    "Dependency",
    "Exponential",
    "Failover",
    "Fallback",
    "Feature",
    "Hedge",
    "Level",
    "Linear",
    "Outcome",
    "Overloaded",
    "Pipeline",
    "RateLimit",
    "RateLimited",
    "Rejected",
    "RequestOptions",
    "Resilience",
    "ResilienceError",
    "Retry",
    "RetryBudget",
    "Settings",
    "SettingsError",
    "SpendExceeded",
    "Target",
    "Timeout",
    "chain",
    "current_criticality",
    "current_deadline",
    "degradation_scope",
    "standard",
]
