"""pyresilience: one decorator with a config object for each pattern; its window counts calls, not seconds."""

from __future__ import annotations

from collections.abc import Iterator
from types import ModuleType
from typing import Any

import httpx
import pyresilience as pr
from pyresilience.contrib.fastapi import ResilientMiddleware

from overhead.bare import app, getter, noop, pause, refused, request, wire
from overhead.entry import Entry, Target
from overhead.memory import Specimen

DISTRIBUTION = "pyresilience"
PER_LOOP = "slots counted per event loop"
BY_HAND = "let go at the headers; no window; no metrics; knows no status, method or origin"


def breaker(**settings: Any) -> pr.CircuitBreakerConfig:
    """The nearest to the case's window that it has: the rate over the last 100 calls."""
    window = {"sliding_window_size": 100, "minimum_calls": 20, "failure_rate_threshold": 0.7}
    return pr.CircuitBreakerConfig(recovery_timeout=3600.0, **{**window, **settings})


def _stack(**more: Any) -> dict[str, Any]:
    return {
        "fallback": pr.FallbackConfig(handler=lambda error: None),
        "retry": pr.RetryConfig(max_attempts=3),
        "retry_budget": pr.RetryBudgetConfig(),
        "circuit_breaker": breaker(),
        "bulkhead": pr.BulkheadConfig(max_concurrent=100),
        **more,
    }


async def _touch(circuit: pr.CircuitBreaker) -> None:
    if circuit.allow_request():
        await noop()
        circuit.record_success_atomic()


IDLE = Specimen(lambda: pr.CircuitBreaker(breaker()), _touch)


def entries() -> Iterator[Entry]:
    """What pyresilience has for each case."""
    yield Entry("empty", pr.resilient()(noop), lacks="counts and times nothing")
    yield Entry("breaker", pr.resilient(circuit_breaker=breaker())(noop), lacks="window of calls, not of time")
    consecutive = pr.CircuitBreakerConfig()
    yield Entry("breaker", pr.resilient(circuit_breaker=consecutive)(noop), variant="consecutive", lacks="no window")
    yield Entry("breaker_open", pr.resilient(circuit_breaker=breaker())(refused), rejects=pr.CircuitOpenError, lacks="no retry-after")
    yield Entry("bulkhead", pr.resilient(bulkhead=pr.BulkheadConfig(max_concurrent=100))(noop), lacks=f"no queue; {PER_LOOP}")
    limit = pr.RateLimiterConfig(max_calls=1_000_000, period=1.0)
    yield Entry("ratelimit", pr.resilient(rate_limiter=limit)(noop), lacks="no retry-after, hears no server")
    retry = pr.resilient(retry=pr.RetryConfig(max_attempts=3), retry_budget=pr.RetryBudgetConfig())
    yield Entry("retry", retry(noop), lacks="budget not tied to the traffic")
    yield Entry("deadline", pr.resilient(timeout=pr.TimeoutConfig(seconds=30.0))(noop))
    yield Entry("deadline_wait", pr.resilient(timeout=pr.TimeoutConfig(seconds=30.0))(pause))
    plain = f"no metrics; window of calls; {PER_LOOP}"
    yield Entry("stack", pr.resilient(**_stack())(noop), lacks=plain)
    consecutively = _stack(circuit_breaker=consecutive, listeners=[pr.MetricsCollector()])
    yield Entry("stack", pr.resilient(**consecutively)(noop), variant="consecutive, metrics", lacks=f"no window; {PER_LOOP}")
    timeout = pr.TimeoutConfig(seconds=30.0)
    yield Entry("stack_deadline", pr.resilient(**_stack(timeout=timeout))(noop), lacks=plain)
    yield Entry("stack_deadline_wait", pr.resilient(**_stack(timeout=timeout))(pause), lacks=plain)
    counted = pr.resilient(**_stack(timeout=timeout, listeners=[pr.MetricsCollector()]))
    yield Entry("stack_deadline", counted(noop), variant="metrics", lacks=f"window of calls; {PER_LOOP}")
    yield from _transports()
    yield _middleware()


def _transports() -> Iterator[Entry]:
    yield _over(httpx, "transport_httpx")
    try:
        import httpx2
    except ModuleNotFoundError:
        return
    yield _over(httpx2, "transport_httpx2")


def _over(module: ModuleType, case: str) -> Entry:
    """Its policies round a transport by hand, for it ships none: retry, breaker, bulkhead, timeout."""
    settings = _stack(timeout=pr.TimeoutConfig(seconds=10.0), circuit_breaker=pr.CircuitBreakerConfig())
    del settings["fallback"]
    guarded: Target = pr.resilient(**settings)(wire(module).handle_async_request)

    class Guarded(module.AsyncBaseTransport):  # type: ignore[misc, name-defined]
        async def handle_async_request(self, request: object) -> object:
            return await guarded(request)

    return Entry(case, getter(module, Guarded()), variant="4 policies by hand", lacks=BY_HAND)


def _middleware() -> Entry:
    config = pr.ResilienceConfig(timeout=pr.TimeoutConfig(seconds=30.0), listeners=[pr.MetricsCollector()])
    lacks = "no answer of its own at the deadline; cancels background tasks; no degradation"
    return Entry("middleware", request(ResilientMiddleware(app, config)), lacks=lacks)
