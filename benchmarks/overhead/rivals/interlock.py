"""interlock-cb: a pipeline of strategies round a resilience4j-like breaker."""

from __future__ import annotations

from collections.abc import Iterator

import interlock

from overhead.bare import getter, noop, pause, refused, wire
from overhead.entry import Entry
from overhead.memory import Specimen

DISTRIBUTION = "interlock-cb"
CONFIG = interlock.Config(
    failure_rate_threshold=0.7,
    minimum_number_of_calls=20,
    wait_duration_in_open=3600.0,
    window_type=interlock.WindowType.TIME_BASED,
    window_size=10,
)
PER_LOOP = "slots counted per event loop"


def breaker() -> interlock.CircuitBreaker:
    """A breaker of interlock's own kind, with the case's window and rate."""
    return interlock.CircuitBreaker(name="bench", config=CONFIG)


IDLE = Specimen(breaker, lambda breaker: breaker.call_async(noop))


def entries() -> Iterator[Entry]:
    """What interlock has for each case."""
    yield Entry("empty", interlock.Pipeline()(noop), lacks="counts and times nothing")
    yield Entry("breaker", breaker()(noop))
    yield Entry("breaker_open", breaker()(refused), rejects=interlock.CircuitOpenError)
    yield Entry("bulkhead", interlock.Pipeline(interlock.BulkheadStrategy(100))(noop), lacks=PER_LOOP)
    yield Entry("deadline", interlock.Pipeline(interlock.TimeoutStrategy(30.0))(noop))
    yield Entry("deadline_wait", interlock.Pipeline(interlock.TimeoutStrategy(30.0))(pause))
    yield from _with_tenacity()
    yield from _transports()


def _with_tenacity() -> Iterator[Entry]:
    try:
        from interlock.integrations.tenacity import RetryStrategy
    except ImportError:
        return
    lacks = f"no budget; no metrics; {PER_LOOP}"

    def layers() -> list[interlock.Strategy]:
        fallback = interlock.FallbackStrategy(lambda error: None)
        return [fallback, RetryStrategy(attempts=3), interlock.CircuitBreakerStrategy(breaker()), interlock.BulkheadStrategy(100)]

    yield Entry("retry", interlock.Pipeline(RetryStrategy(attempts=3))(noop), lacks="no budget")
    yield Entry("stack", interlock.Pipeline(*layers())(noop), lacks=lacks)
    yield Entry("stack_deadline", interlock.Pipeline(*layers(), interlock.TimeoutStrategy(10.0))(noop), lacks=f"{lacks}; no total")
    yield Entry("stack_deadline_wait", interlock.Pipeline(*layers(), interlock.TimeoutStrategy(10.0))(pause), lacks=f"{lacks}; no total")


def _transports() -> Iterator[Entry]:
    lacks = "breaker only; judged at the headers"
    try:
        import httpx
        from interlock.integrations.httpx import AsyncCircuitBreakerTransport as OverHttpx
    except ImportError:
        return
    yield Entry("transport_httpx", getter(httpx, OverHttpx(wire(httpx), config=CONFIG)), lacks=lacks)
    try:
        import httpx2
        from interlock.integrations.httpx2 import AsyncCircuitBreakerTransport as OverHttpx2
    except ImportError:
        return
    yield Entry("transport_httpx2", getter(httpx2, OverHttpx2(wire(httpx2), config=CONFIG)), lacks=lacks)
