"""The inbound side, pure ASGI: deadlines, drain, admission, error mapping, degradation, stale answers, metrics and health."""

from __future__ import annotations

from .admission import Admission as Admission
from .admission import AdmissionMiddleware as AdmissionMiddleware
from .deadline import DeadlineMiddleware as DeadlineMiddleware
from .degradation import DegradationMiddleware as DegradationMiddleware
from .disconnect import DisconnectMiddleware as DisconnectMiddleware
from .disconnect import Disconnects as Disconnects
from .drain import Drain as Drain
from .drain import DrainMiddleware as DrainMiddleware
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
    "Drain",
    "DrainMiddleware",
    "ErrorMiddleware",
    "MetricsMiddleware",
    "ResilienceMiddleware",
    "StaleResponseMiddleware",
    "StaleResponses",
    "install",
    "routes",
]
