"""What a log record is told of the work that it belongs to: dependency, deadline, criticality, degraded features, trace."""

from __future__ import annotations

import logging
from collections.abc import MutableMapping
from typing import Any

from ..context import current_criticality, current_deadline, current_dependency, current_record
from ..context.trace import current_ids

__all__ = ["ContextFilter", "add_context", "context_fields"]


def context_fields() -> dict[str, Any]:
    """What is known of the work being done where this is called. Every field is always there, so that formats can name them.

    ==================== ======================================================================================
    `dependency`         whose attempt it is part of; empty outside one
    `deadline_remaining` seconds left, to the millisecond, negative once it is over; None without a deadline
    `criticality`        critical_plus, critical, sheddable_plus, sheddable
    `degraded`           names of the features that this request was served below their full level, in a list
    `trace_id`,          of OpenTelemetry's current span, else of the trace that `load` was given; in hexadecimal, empty
    `span_id`            outside one
    ==================== ======================================================================================
    """
    deadline, record = current_deadline(), current_record()
    remaining = None if deadline is None or deadline.at == float("inf") else round(deadline.remaining, 3)
    trace_id, span_id = current_ids()
    return {
        "dependency": current_dependency(),
        "deadline_remaining": remaining,
        "criticality": current_criticality().name.lower(),
        "degraded": [] if record is None else [entry.feature for entry in record.entries],
        "trace_id": trace_id,
        "span_id": span_id,
    }


class ContextFilter(logging.Filter):
    """Adds `context_fields` to each record that passes. What a record has already is left as it is.

    It belongs on a handler, where it sees the records of all loggers; with a `QueueHandler` on that one, since what
    comes out of the queue is handled on another thread.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Let the record pass, with more on it."""
        for name, value in context_fields().items():
            if name not in record.__dict__:
                setattr(record, name, value)
        return True


def add_context(logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    """A processor of structlog that adds `context_fields`. What the event has already is left as it is."""
    for name, value in context_fields().items():
        event_dict.setdefault(name, value)
    return event_dict
