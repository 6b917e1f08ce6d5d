"""hyx: one decorator a pattern; asyncio only, no locks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from hyx.bulkhead import bulkhead
from hyx.circuitbreaker import consecutive_breaker
from hyx.circuitbreaker.exceptions import BreakerFailing
from hyx.fallback import fallback
from hyx.ratelimit import tokenbucket
from hyx.retry import retry
from hyx.timeout import timeout

from overhead.bare import noop, pause, refused
from overhead.entry import Entry, Target
from overhead.memory import Specimen

DISTRIBUTION = "hyx"


def breaker() -> consecutive_breaker:
    """Its one breaker: failures in a row."""
    return consecutive_breaker(recovery_time_secs=3600.0)


async def _nothing(*_: Any) -> None:
    pass


def _stack(innermost: Target) -> Target:
    guarded = breaker()(bulkhead(max_concurrency=100, max_capacity=1100)(innermost))
    target: Target = fallback(_nothing, on=Exception)(retry(attempts=3)(guarded))
    return target


IDLE = Specimen(breaker, lambda breaker: breaker(noop)())


def entries() -> Iterator[Entry]:
    """What hyx has for each case; to be called on a running loop, because its timeout looks for one at once."""
    yield Entry("breaker", breaker()(noop), lacks="no window, no lock")
    yield Entry("breaker_open", breaker()(refused), rejects=BreakerFailing, lacks="no lock, no retry-after")
    yield Entry("bulkhead", bulkhead(max_concurrency=100, max_capacity=1100)(noop), lacks="one event loop, no lock")
    yield Entry("ratelimit", tokenbucket(1e6, 1.0)(noop), lacks="one event loop, no lock, no wait, no retry-after, hears no server")
    yield Entry("retry", retry(attempts=3)(noop), lacks="no budget")
    yield Entry("deadline", timeout(30.0)(noop))
    yield Entry("deadline_wait", timeout(30.0)(pause))
    lacks = "no budget, no window, no metrics, no locks"
    yield Entry("stack", _stack(noop), lacks=lacks)
    yield Entry("stack_deadline", _stack(timeout(10.0)(noop)), lacks=f"{lacks}, no total")
    yield Entry("stack_deadline_wait", _stack(timeout(10.0)(pause)), lacks=f"{lacks}, no total")
