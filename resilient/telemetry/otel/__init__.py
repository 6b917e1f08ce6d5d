"""OpenTelemetry: what happens to a call as events of its span, and the metrics of /metrics. Needs the extra `otel`."""

from __future__ import annotations

from .bridge import OpenTelemetry as OpenTelemetry

__all__ = ["OpenTelemetry"]
