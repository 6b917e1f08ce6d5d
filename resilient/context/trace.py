"""Traces as W3C Trace Context has them, with OpenTelemetry or without."""

from __future__ import annotations

import functools
import importlib
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any

from .scopes import in_force

__all__ = ["Trace", "current_ids", "current_trace", "is_parent", "is_state", "traced"]

# W3C Trace Context, section 3.2: version, trace, parent and flags; a later version may append to them.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(?P<more>-.{0,200})?")
_TRACESTATE = re.compile(r"[\x20-\x7e]{1,512}")


@dataclass(frozen=True, slots=True)
class Trace:
    """Where the work done here belongs to in a trace: the two fields of W3C Trace Context."""

    parent: str
    state: str = ""


TRACE: ContextVar[Trace | None] = ContextVar("resilient_trace", default=None)


def current_trace() -> Trace | None:
    """The trace of the job being run: OpenTelemetry's span where there is one, else what `load` was given, else None."""
    otel = None if _span() is None else _otel()
    if otel is None:
        return TRACE.get()
    said: dict[str, str] = {}
    otel[1].inject(said)
    return Trace(said["traceparent"], said.get("tracestate", ""))


def current_ids() -> tuple[str, str]:
    """The identifiers of the trace and of the span that the code which asks is a part of, in hexadecimal; empty outside one."""
    span = _span()
    if span is not None:
        return f"{span.trace_id:032x}", f"{span.span_id:016x}"
    trace = TRACE.get()
    return ("", "") if trace is None else (trace.parent[3:35], trace.parent[36:52])


def _span() -> Any:
    """The identity of OpenTelemetry's current span, or None."""
    otel = sys.modules.get("opentelemetry.trace")  # a span can only have been begun where it was imported
    span = None if otel is None else otel.get_current_span().get_span_context()
    return span if span is not None and span.is_valid else None


def is_parent(text: Any) -> bool:
    """Whether this is a `traceparent`."""
    read = _TRACEPARENT.fullmatch(text) if isinstance(text, str) else None
    return read is not None and not (read["more"] and text.startswith("00"))


def is_state(text: Any) -> bool:
    """Whether this is a `tracestate` of a size that everybody passes on."""
    return isinstance(text, str) and _TRACESTATE.fullmatch(text) is not None


@contextmanager
def traced(trace: Trace) -> Iterator[None]:
    """Let the work done inside belong to `trace`: for `current_trace`, and for OpenTelemetry where it is installed."""
    otel = _otel()
    with in_force(TRACE, trace):
        if otel is None:
            yield
            return
        context, propagator = otel
        token = context.attach(propagator.extract({"traceparent": trace.parent, "tracestate": trace.state}))
        try:
            yield
        finally:
            context.detach(token)


@functools.cache
def _otel() -> tuple[Any, Any] | None:
    try:
        context = importlib.import_module("opentelemetry.context")
        propagation = importlib.import_module("opentelemetry.trace.propagation.tracecontext")
    except ImportError:
        return None
    return context, propagation.TraceContextTextMapPropagator()
