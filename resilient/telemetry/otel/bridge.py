"""OpenTelemetry's side of a `Resilience`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from opentelemetry import metrics, trace

from ...context import current_record
from ...core.bounds import flag
from ...core.degradation import Level, worse
from ...events import Event, FallbackServed, FeatureDegraded
from .facts import attributes_of, bounded, told
from .instruments import Instruments
from .spans import CallSpan

if TYPE_CHECKING:
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Span, TracerProvider

    from ...resilience import Resilience

__all__ = ["OpenTelemetry"]

SCOPE = "resilient"


class OpenTelemetry:
    """Tells OpenTelemetry what happens in a `Resilience`: events on the current span, and the metrics of /metrics.

    What happens to a call is told on the span that its caller was in, whichever task or thread tells of it, as long as that
    span has not ended: a retry, a rejection, a hedge, a failover, a fallback, a stale answer, a time limit, a change of
    its circuit. A use of a feature below its full level also leaves two attributes on the span:
    `resilient.degraded.features`, all that this request has been served less of, and `resilient.degraded.level`, the
    worst of their levels.

    Only the API is used: what becomes of it is up to the SDK that the program has set up, and without one it costs next to
    nothing.

    Args:
        resilience: whose events and numbers.
        tracer_provider: for `spans`; by default the global one.
        meter_provider: by default the global one.
        events: whether to tell events on spans.
        spans: whether each call of a dependency has a span of its own, `call <dependency>`, around those of its attempts,
            which the instrumentation of the client makes.
        metrics: whether to give the numbers of /metrics to OpenTelemetry too.
        attributes: put on every point of the metrics, such as `{"service.part": "search"}`, where a process has several
            `Resilience`.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong; also where this `Resilience` has one already, for
            everything would be told twice.
    """

    in_context = True
    """Called in the context that an event comes from, where the caller's span is the current one."""

    def __init__(
        self,
        resilience: Resilience,
        *,
        tracer_provider: TracerProvider | None = None,
        meter_provider: MeterProvider | None = None,
        events: bool = True,
        spans: bool = False,
        metrics: bool = True,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        for name, value in (("events", events), ("spans", spans), ("metrics", metrics)):
            flag(name, value)
        _check(resilience, attributes)
        self._resilience = resilience
        self._clock = resilience.clock
        self._events = events
        self._instruments = _instruments(resilience, meter_provider, attributes or {}) if metrics else None
        self._spans: CallSpan | None = None
        resilience.add_listener(self)
        if spans:
            self._spans = CallSpan(trace.get_tracer(SCOPE, tracer_provider=tracer_provider))
            resilience.surround(self._spans)

    def on_event(self, event: Event) -> None:
        """Tell an event on the current span. Part of being a `Listener`."""
        name = told(event) if self._events else None
        if name is None:
            return
        span = trace.get_current_span()
        if not span.is_recording():
            return
        ago = max(self._clock.now() - event.at, 0.0)  # it may have waited for another listener
        span.add_event(name, attributes_of(event), time.time_ns() - int(ago * 1e9))
        if isinstance(event, FeatureDegraded):
            _mark(span, event.feature, event.level)
        elif isinstance(event, FallbackServed):
            _mark(span, event.dependency, event.level)

    def close(self) -> None:
        """Tell nothing more. Spans that have begun end with their calls."""
        self._resilience.outbox.remove(self)
        if self._instruments is not None:
            self._instruments.closed = True
        if self._spans is not None:
            self._spans.closed = True


def _check(resilience: Any, attributes: Any) -> None:
    if not hasattr(resilience, "outbox") or not hasattr(resilience, "surround"):
        raise TypeError(f"resilience: expected a Resilience, got {resilience!r}")
    if any(isinstance(listener, OpenTelemetry) for listener in resilience.outbox.listeners):
        raise ValueError("resilience: it is told to OpenTelemetry already; close the other one first")
    if attributes is not None and not isinstance(attributes, Mapping):
        raise TypeError(f"attributes: expected a dict of names and values, got {attributes!r}")


def _instruments(resilience: Resilience, provider: MeterProvider | None, attributes: Mapping[str, str]) -> Instruments:
    return Instruments(metrics.get_meter(SCOPE, meter_provider=provider), resilience.metrics, attributes)


def _mark(span: Span, name: str, level: str) -> None:
    """Say on the span what its request was served less of: all of it, where a record is kept."""
    record = current_record()
    worst = {entry.feature: entry.level for entry in (() if record is None else record.entries)}
    worst.setdefault(name, Level(level))
    level = Level.FULL
    for one in worst.values():
        level = worse(level, one)
    span.set_attribute("resilient.degraded.features", [str(bounded(known)) for known in worst])
    span.set_attribute("resilient.degraded.level", str(level))
