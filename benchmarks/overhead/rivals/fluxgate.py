"""fluxgate: a breaker with a time window and composable trip rules; the asyncio one takes an asyncio lock."""

from __future__ import annotations

from collections.abc import Iterator

from fluxgate import AsyncCircuitBreaker, CallNotPermittedError
from fluxgate.retries import Cooldown
from fluxgate.trippers import FailureRate, MinRequests
from fluxgate.windows import TimeWindow

from overhead.bare import noop, refused
from overhead.entry import Entry
from overhead.memory import Specimen

DISTRIBUTION = "fluxgate"


def breaker() -> AsyncCircuitBreaker:
    """A breaker of fluxgate's own kind, with the case's window and rate."""
    return AsyncCircuitBreaker(window=TimeWindow(10), tripper=MinRequests(20) & FailureRate(0.7), retry=Cooldown(3600.0))


IDLE = Specimen(breaker, lambda breaker: breaker.call(noop))


def entries() -> Iterator[Entry]:
    """What fluxgate has for each case."""
    yield Entry("breaker", breaker()(noop), lacks="no threads")
    yield Entry("breaker_open", breaker()(refused), rejects=CallNotPermittedError, lacks="no threads, no retry-after")
