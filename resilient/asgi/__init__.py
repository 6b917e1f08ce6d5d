"""The inbound side, pure ASGI: deadlines, admission, error mapping, degradation, stale answers, metrics and health."""

from __future__ import annotations

from .admission import Admission as Admission
from .admission import AdmissionMiddleware as AdmissionMiddleware
from .deadline import DeadlineMiddleware as DeadlineMiddleware
from .degradation import DegradationMiddleware as DegradationMiddleware
from .disconnect import DisconnectMiddleware as DisconnectMiddleware
from .disconnect import Disconnects as Disconnects
from .errors import ErrorMiddleware as ErrorMiddleware
from .metrics import MetricsMiddleware as MetricsMiddleware
from .middleware import ResilienceMiddleware as ResilienceMiddleware
from .routes import install as install
from .routes import routes as routes
from .stale import StaleResponseMiddleware as StaleResponseMiddleware
from .stale import StaleResponses as StaleResponses

__all__ = [
    "Admission",
    "AdmissionMiddleware",
    "DeadlineMiddleware",
    "DegradationMiddleware",
    "DisconnectMiddleware",
    "Disconnects",
    "ErrorMiddleware",
    "MetricsMiddleware",
    "ResilienceMiddleware",
    "StaleResponseMiddleware",
    "StaleResponses",
    "install",
    "routes",
]
