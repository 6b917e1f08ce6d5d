"""What `resilient` has for each case, through its public names and with its defaults."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import httpx

from overhead.bare import app, crowded, getter, noop, pause, refused, request, wire
from overhead.entry import Entry
from overhead.memory import Specimen
from resilient import (
    AdaptiveConcurrency,
    AdaptiveThrottle,
    Bulkhead,
    Chaos,
    CircuitBreaker,
    CircuitOpen,
    Dependency,
    Failover,
    Fallback,
    Hedge,
    Pipeline,
    RateLimit,
    Resilience,
    Retry,
    RetryBudget,
    Target,
    Timeout,
)
from resilient.asgi import Admission, ResilienceMiddleware
from resilient.httpx import AsyncResilientTransport

DISTRIBUTION = "resilient-asgi"


def breaker() -> CircuitBreaker:
    """The default breaker: a 10 s window, consecutive and stall rules, generations, one lock."""
    return CircuitBreaker()


def bulkhead() -> AdaptiveConcurrency:
    """The bulkhead of `standard()`."""
    return AdaptiveConcurrency(initial=100, min_concurrent=4, max_concurrent=100)


def _piped(case: str, *policies: Any) -> Entry:
    return Entry(case, Pipeline(*policies).call, (noop,))


IDLE = Specimen(breaker, lambda breaker: Pipeline(breaker).call(noop))


def entries() -> Iterator[Entry]:
    """What `resilient` has for each case."""
    yield _piped("empty")
    yield _piped("breaker", breaker())
    tenants = itertools.cycle(range(10))
    yield _piped("breaker_keyed", CircuitBreaker(key=lambda: next(tenants)))
    yield Entry("breaker_open", Pipeline(CircuitBreaker(reset_timeout=3600.0)).call, (refused,), rejects=CircuitOpen)
    yield _piped("bulkhead", Bulkhead())
    yield _piped("adaptive", AdaptiveConcurrency())
    yield _piped("throttle", AdaptiveThrottle())
    yield _piped("ratelimit", RateLimit(1e6))
    yield _piped("retry", Retry(budget=RetryBudget()))
    yield _piped("hedge", Hedge(delay=30.0))
    yield _piped("failover", Failover(Target("first"), Target("second")))
    yield _piped("fallback", Fallback(None))
    yield Entry("chaos", Pipeline(Chaos(rate=0, fault=ConnectionError), chaos=True).call, (noop,))
    yield _piped("deadline", Timeout(total=30.0))
    yield Entry("deadline_wait", Pipeline(Timeout(total=30.0)).call, (pause,))
    yield _stack("stack")
    yield _stack("stack_deadline", Timeout(total=30.0))
    yield _stack("stack_deadline_wait", Timeout(total=30.0), fn=pause)
    yield from _transports()
    yield Entry("middleware", request(ResilienceMiddleware(app, Resilience())))
    full = Admission(limit=1, min_concurrent=1, max_concurrent=1, queue=0)
    yield Entry("shed", crowded(lambda app: ResilienceMiddleware(app, Resilience(), admission=full)))


def _stack(case: str, *timeout: Timeout, fn: Any = noop) -> Entry:
    policies = (Fallback(None), *timeout, Retry(budget=RetryBudget()), Bulkhead(), breaker())
    return Entry(case, Dependency("bench", *policies).call, (fn,))


def _transports() -> Iterator[Entry]:
    standard = "standard()"
    yield Entry("transport_httpx", getter(httpx, AsyncResilientTransport(Dependency("bench"), wire(httpx))), variant=standard)
    pooled = AsyncResilientTransport(Dependency("bench"), wire(httpx, "AsyncHTTPTransport"), max_connections=100)
    yield Entry("transport_httpx", getter(httpx, pooled), variant="standard(), tasks for httpx's pool")
    try:
        import httpx2

        from resilient.httpx2 import AsyncResilientTransport as OverHttpx2
    except ModuleNotFoundError:
        return
    yield Entry("transport_httpx2", getter(httpx2, OverHttpx2(Dependency("bench"), wire(httpx2))), variant=standard)
