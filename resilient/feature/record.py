"""The degradation record of work that no middleware of ours is around: a WSGI request, a job."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from ..context.scopes import RECORD, in_force
from ..core.degradation import DegradationRecord

__all__ = ["degradation_scope"]


@contextmanager
def degradation_scope() -> Iterator[DegradationRecord]:
    """Note what is served below its full level by the work done inside; `entries` of what is given tells it.

    Within another scope, or a request that a middleware keeps a record of, it is that one's record that is given.
    """
    outer = RECORD.get()
    if outer is not None:
        yield outer
        return
    record = DegradationRecord()
    with in_force(RECORD, record):
        yield record
