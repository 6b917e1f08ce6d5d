"""Programs as users write them, for type checkers alone: nothing here is ever run.

mypy (strict) and basedpyright read this file; `assert_type` says what each expression must be to both of them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Any, assert_type

import httpx
import httpx2
import pybreaker
from fastapi import FastAPI
from starlette.applications import Starlette

import resilient.httpx
import resilient.httpx2
from resilient import (
    Bulkhead,
    BulkheadFull,
    CachedFallback,
    Chaos,
    CircuitBreaker,
    CircuitOpen,
    Criticality,
    Deadline,
    DeadlineExceeded,
    Dependency,
    Fallback,
    Feature,
    Level,
    Outcome,
    Pipeline,
    RateLimit,
    Rejected,
    RequestOptions,
    Resilience,
    ResilienceError,
    Retry,
    RetryBudget,
    Timeout,
    current_criticality,
    current_deadline,
    standard,
)
from resilient.asgi import ResilienceMiddleware, routes
from resilient.context import Loaded, Trace, carry, current_partition, dump, load, partition
from resilient.events import CircuitChanged, Event
from resilient.protocols import Inner, Policy
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

resilience = Resilience(enabled=True, max_origins=10)
catalog = resilience.dependency("catalog", origin="https://catalog.internal", required=True)
assert_type(catalog, Dependency)

# -- a dependency around functions ------------------------------------------------------------------------------------


@catalog
async def price(product: str, *, currency: str = "EUR") -> float:
    return 1.0


@catalog
def stock(product: str) -> int:
    return 1


@catalog
async def changes(product: str) -> AsyncIterator[str]:
    yield product


@catalog
def pages(product: str) -> Iterator[bytes]:
    yield b""


async def functions() -> None:
    assert_type(await price("7", currency="USD"), float)
    assert_type(stock("7"), int)
    assert_type(await catalog.call(price, "7"), float)
    assert_type(catalog.call_sync(stock, "7"), int)
    async for change in changes("7"):
        assert_type(change, str)
    for page in pages("7"):
        assert_type(page, bytes)
    await price(7)  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    stock()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]


# -- values that are kept ---------------------------------------------------------------------------------------------

kept = Fallback.cached(
    ttl=60, stale_if_error=3600.0, stale_while_revalidate=5, soft_timeout=0.2, key=lambda product: product, on=KeyError, max_size=10_000
)
assert_type(kept, CachedFallback)
rates = Dependency("rates", fallback={}, cache=kept)
assert_type(rates.cached, CachedFallback | None)
Dependency("rates", *standard(fallback=Fallback.cached(ttl=1, key="partition", partition=lambda user: f"{user}")))


@rates
async def rate(currency: str) -> float:
    return 1.0


async def values() -> None:
    with partition("tenant-7"):
        assert_type(await rate("EUR"), float)
    assert_type(current_partition(), str | None)
    await kept.forget(rate, "EUR")
    kept.forget_sync(rate, "EUR")
    Fallback.cached()  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
    Fallback.cached(ttl="1")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


# -- features ---------------------------------------------------------------------------------------------------------

recommendations = resilience.feature("recommendations", needs=[catalog], fallback=[], on=KeyError)
assert_type(recommendations, Feature)
assert_type(recommendations.level, Level)


@recommendations
async def recommended(product: str) -> list[str]:
    return [product]


@resilience.feature("reviews", fallback=lambda product: f"none for {product}", critical=True)
def reviews(product: str) -> str:
    return product


async def features() -> None:
    assert_type(await recommended("7"), list[str])
    assert_type(reviews("7"), str)


# -- policies ---------------------------------------------------------------------------------------------------------

budget = RetryBudget(ratio=0.1, reserve=1.0)
pipeline = Pipeline(
    Fallback({"items": []}),
    Timeout(total=2.0, attempt=0.5, body="total"),
    Retry(attempts=2, budget=budget, on=(ConnectionError, TimeoutError)),
    RateLimit(100, 60.0, burst=10, max_wait=2.0, key=lambda word: word),
    Bulkhead(max_concurrent=10, queue=100),
    CircuitBreaker(failure_rate=0.5, window=30.0),
    pybreaker.CircuitBreaker(fail_max=5),
    name="search",
)
assert_type(pipeline.call_sync(len, "word"), int)
Dependency("search", *standard(timeout=2.0), classify=lambda result, error: Outcome.SUCCESS if error is None else None)
tokens = RateLimit(100_000, per=60.0, cost=len, settle=lambda answer: 5.0)
tokens.charge().settle(7)
assert_type(tokens.charge(httpx.Response(200)).cost, float)
standard(rate_limit=[tokens, RateLimit(10.0, per=86_400.0, hard=True, cost=0.01)])
RateLimit(5, learn="fields")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
Timeout(2.0)  # type: ignore[call-arg]  # pyright: ignore[reportCallIssue]
Timeout(body="chunk")  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


class Logged:
    """A policy of one's own needs no base class."""

    def run(self, call: Any, inner: Inner) -> Awaitable[Any]:
        return inner(call)


own: Policy = Logged()
Pipeline(own)

# -- transports -------------------------------------------------------------------------------------------------------

client = httpx.AsyncClient(transport=resilient.httpx.AsyncResilientTransport(resilience, verify=False))
client2 = httpx2.AsyncClient(transport=resilient.httpx2.AsyncResilientTransport(catalog))
blocking = httpx.Client(transport=resilient.httpx.ResilientTransport(pipeline))
blocking2 = httpx2.Client(transport=resilient.httpx2.ResilientTransport(Timeout(total=1.0)))
resilient.httpx.AsyncResilientTransport(resilience, FaultyTransport([503, 200]))


async def errors() -> None:
    try:
        await client.get("https://catalog.internal/item/7")
    except resilient.httpx.CircuitOpen as error:
        assert_type(error.retry_after, float | None)
        transport_error: httpx.TransportError = error
        circuit_open: CircuitOpen = error
        also_pybreakers: pybreaker.CircuitBreakerError = error
        print(transport_error, circuit_open, also_pybreakers)
    except resilient.httpx2.DeadlineExceeded as error:
        timeout: httpx2.TimeoutException = error
        built_in: TimeoutError = error
        print(timeout, built_in)
    except (BulkheadFull, DeadlineExceeded, Rejected, ResilienceError) as error:
        assert_type(error.dependency, str | None)
        assert_type(error.reason, str | None)


# -- the inbound side -------------------------------------------------------------------------------------------------

app = FastAPI()
resilience.install(app, timeout=10.0, metrics=False, prefix="/internal")
Starlette(routes=routes(resilience, prefix="/internal"))
ResilienceMiddleware(app, resilience, timeout=None, trusted=["10.0.0.0/8"])


def context() -> None:
    assert_type(current_deadline(), Deadline | None)
    assert_type(current_criticality(), Criticality)
    assert_type(Deadline.after(1.0).remaining, float)


# -- listeners and testing --------------------------------------------------------------------------------------------


class Told:
    def on_event(self, event: Event) -> None:
        if isinstance(event, CircuitChanged):
            assert_type(event.reason, str)


resilience.add_listener(Told())
Resilience(listeners=[Told(), RecordingListener()], clock=FakeClock())
assert_type(RecordingListener().of(CircuitChanged), list[CircuitChanged])


# -- for some calls alone ---------------------------------------------------------------------------------------------

assert_type(catalog.route("POST /items/{id}", Retry(attempts=1), timeout=10), Dependency)
assert_type(catalog.variant("catalog-quick", timeout=0.2, fallback=None), Dependency)


async def one_request(client: httpx.AsyncClient) -> None:
    options: RequestOptions = {
        "timeout": 0.5,
        "retry": False,
        "criticality": Criticality.SHEDDABLE,
        "partition": "a",
        "route": "/items/{id}",
    }
    options["criticality"] = "sheddable_plus"
    await client.get("https://catalog.internal/items/7", extensions={"resilient": options})


harm = Chaos(
    rate=0.1, fault=httpx.ConnectError("refused"), latency=(0.1, 2), match="GET", when=lambda call: call.request is not None, seed=1
)
standard(chaos=harm)
Chaos(rate=0.1, fault=lambda call: KeyError(call.args[0]))
harm.enabled = False


# -- context that travels ---------------------------------------------------------------------------------------------


@carry
def in_a_thread(number: int, *, exact: bool = False) -> str:
    return str(number)


assert_type(in_a_thread(7, exact=True), str)


def job(payload: dict[str, Any]) -> None:
    with load(payload, queue_time="wall") as loaded:
        assert_type(loaded, Loaded)
        assert_type(loaded.deadline, Deadline | None)
        assert_type(loaded.trace, Trace | None)
        assert_type(dump(trace=loaded.trace), dict[str, Any])


# -- health -----------------------------------------------------------------------------------------------------------

healthy = Resilience(readiness="required", startup_timeout=30, start_anyway=False)


@healthy.check("disk", interval=5, required=True)
def disk() -> bool:
    return True


@healthy.check("catalog", dependency=catalog, startup=True, failures=2)
async def catalog_answers() -> None: ...


@healthy.on_startup
async def warm_caches() -> int:
    return 7


async def of_health() -> None:
    assert_type(disk(), bool)
    assert_type(await warm_caches(), int)
    assert_type(healthy.check("again", disk, timeout=3), Callable[[], bool])
    assert_type(healthy.checks["disk"].state, str)
    assert_type(healthy.startup_complete, bool)
    healthy.startup_complete = True
    async with healthy.health.running():
        await catalog_answers()
