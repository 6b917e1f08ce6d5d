"""grit-toolkit: small decorators; its breaker counts failures in a row under a lock."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import grit

from overhead.bare import noop, pause, refused
from overhead.entry import Entry
from overhead.memory import Specimen

DISTRIBUTION = "grit-toolkit"


def breaker() -> grit.breaker:
    """Its one breaker: failures in a row."""
    return grit.breaker(reset_after=3600.0)


def _stack(*inner: Any) -> grit.policy:
    return grit.policy(grit.fallback(), grit.retry(tries=3), breaker(), grit.bulkhead(100), *inner)


IDLE = Specimen(breaker, lambda breaker: breaker(noop)())


def entries() -> Iterator[Entry]:
    """What grit has for each case."""
    yield Entry("breaker", breaker()(noop), lacks="no window")
    yield Entry("breaker_open", breaker()(refused), rejects=grit.exceptions.BreakerOpen, lacks="no window; counts no rejection")
    yield Entry("bulkhead", grit.bulkhead(100)(noop), lacks="one event loop, no bound on waiting")
    yield Entry("retry", grit.retry(tries=3)(noop), lacks="no budget")
    yield Entry("deadline", grit.timeout(30.0)(noop))
    yield Entry("deadline_wait", grit.timeout(30.0)(pause))
    lacks = "no budget, no window, no metrics"
    yield Entry("stack", _stack()(noop), lacks=lacks)
    yield Entry("stack_deadline", _stack(grit.timeout(10.0))(noop), lacks=f"{lacks}, no total")
    yield Entry("stack_deadline_wait", _stack(grit.timeout(10.0))(pause), lacks=f"{lacks}, no total")
