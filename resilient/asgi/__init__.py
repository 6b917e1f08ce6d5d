"""The inbound side, pure ASGI: deadlines, error mapping, degradation, stale answers, metrics and health."""

from __future__ import annotations

from .deadline import DeadlineMiddleware as DeadlineMiddleware
from .degradation import DegradationMiddleware as DegradationMiddleware
from .errors import ErrorMiddleware as ErrorMiddleware
from .metrics import MetricsMiddleware as MetricsMiddleware
from .middleware import ResilienceMiddleware as ResilienceMiddleware
from .routes import install as install
from .routes import routes as routes
from .stale import StaleResponseMiddleware as StaleResponseMiddleware
from .stale import StaleResponses as StaleResponses

__all__ = [
    "DeadlineMiddleware",
    "DegradationMiddleware",
    "ErrorMiddleware",
    "MetricsMiddleware",
    "ResilienceMiddleware",
    "StaleResponseMiddleware",
    "StaleResponses",
    "install",
    "routes",
]
