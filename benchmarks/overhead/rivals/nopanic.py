"""nopanic: decorators with a time-window breaker and a ratio budget."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType

import httpx
import nopanic

from overhead.bare import getter, noop, pause, refused, wire
from overhead.entry import Entry, Target
from overhead.memory import Specimen

DISTRIBUTION = "nopanic"
PER_LOOP = "slots counted per event loop"
BY_HAND = "let go at the headers; no metrics; knows no status, method or origin"


def breaker() -> nopanic.CircuitBreaker:
    """A breaker of nopanic's own kind, with the case's window and rate."""
    return nopanic.CircuitBreaker(failure_threshold=0.7, min_calls=20, window=10.0, reset_timeout=3600.0)


def _retry() -> nopanic.retry:
    return nopanic.retry(attempts=3, budget=nopanic.RetryBudget(0.2, min_retries_per_sec=3.0))


def _stack() -> nopanic.compose:
    return nopanic.compose(nopanic.fallback(None), _retry(), breaker(), nopanic.bulkhead(100))


def _timed_stack() -> nopanic.compose:
    total, attempt = nopanic.deadline(30.0), nopanic.timeout(10.0)
    return nopanic.compose(nopanic.fallback(None), total, _retry(), breaker(), nopanic.bulkhead(100), attempt)


IDLE = Specimen(breaker, lambda breaker: breaker.acall(noop))


def entries() -> Iterator[Entry]:
    """What nopanic has for each case."""
    yield Entry("breaker", breaker()(noop))
    yield Entry("breaker_open", breaker()(refused), rejects=nopanic.CircuitOpen)
    yield Entry("bulkhead", nopanic.bulkhead(100)(noop), lacks=PER_LOOP)
    yield Entry("ratelimit", nopanic.rate_limit(1_000_000, per=1.0, max_wait=0.0)(noop), lacks="hears no server")
    yield Entry("retry", _retry()(noop))
    for case, fn in (("deadline", noop), ("deadline_wait", pause)):
        yield Entry(case, nopanic.compose(nopanic.deadline(30.0), nopanic.timeout(30.0))(fn), variant="deadline and timeout")
        yield Entry(case, nopanic.timeout(30.0)(fn), variant="timeout", lacks="calls inside do not learn of it")
    yield Entry("stack", _stack()(noop), lacks=f"no metrics; {PER_LOOP}")
    yield Entry("stack_deadline", _timed_stack()(noop), lacks=f"no metrics; {PER_LOOP}")
    yield Entry("stack_deadline_wait", _timed_stack()(pause), lacks=f"no metrics; {PER_LOOP}")
    yield _over(httpx, "transport_httpx")
    try:
        import httpx2
    except ModuleNotFoundError:
        return
    yield _over(httpx2, "transport_httpx2")


def _over(module: ModuleType, case: str) -> Entry:
    """Its policies round a transport by hand, for it ships none: retry, breaker, bulkhead, timeout."""
    inner = wire(module)
    policies = nopanic.compose(_retry(), breaker(), nopanic.bulkhead(100), nopanic.timeout(10.0))
    guarded: Target = policies(inner.handle_async_request)

    class Guarded(module.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: object) -> object:
            return await guarded(request)

    return Entry(case, getter(module, Guarded()), variant="4 policies by hand", lacks=BY_HAND)
