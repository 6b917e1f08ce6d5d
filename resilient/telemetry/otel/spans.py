"""A span for each logical call, around its attempts."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING, Any

from opentelemetry import context, trace
from opentelemetry.trace import Span, SpanKind, Status, StatusCode, Tracer

from ...errors import cause_of

if TYPE_CHECKING:
    from ...call import Call
    from ...core.outcome import Outcome
    from ...protocols import Inner

__all__ = ["CallSpan"]


class CallSpan:
    """A policy that only watches: the span begins with the call, and ends when what the call holds is given back.

    So it covers retries, waits and the body. It is the current span while the answer is waited for, so that the spans
    that a client's instrumentation makes of the attempts are its children, and retries are told on it.

    Args:
        tracer: makes the spans.
    """

    def __init__(self, tracer: Tracer) -> None:
        self._tracer = tracer
        self.closed = False

    async def run(self, call: Call, inner: Inner) -> Any:
        """Make the call within a span."""
        if self.closed:
            return await inner(call)
        name = call.owner.name or "pipeline"
        span = self._tracer.start_span(f"call {name}", kind=SpanKind.INTERNAL, attributes={"resilient.dependency": name})
        call.held.append((self, (span, call)))
        token = context.attach(trace.set_span_in_context(span))
        elsewhere = False
        try:
            return await inner(call)
        except GeneratorExit:
            # A coroutine that nobody ends is closed by the garbage collector, in a context that may never have seen the span.
            elsewhere = trace.get_current_span() is not span
            raise
        finally:
            if not elsewhere:
                context.detach(token)

    def settle(self, token: tuple[Span, Call], outcome: Outcome, now: float, error: BaseException | None) -> None:
        """Say how it ended, and end the span once what happened on the call's way has been told on it."""
        span, call = token
        span.set_attribute("resilient.outcome", outcome.label)
        span.set_attribute("resilient.attempts", call.attempts)
        if call.degraded is not None:
            span.set_attribute("resilient.degraded.cause", call.degraded)
        if error is not None and isinstance(error, Exception):
            span.set_attribute("error.type", cause_of(error))
        if outcome.failed or isinstance(error, Exception):
            span.set_status(Status(StatusCode.ERROR))
        call.owner.outbox.defer(partial(span.end, time.time_ns()))
