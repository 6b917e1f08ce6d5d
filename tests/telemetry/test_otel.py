"""What happens to a call is told on its caller's span, whichever task or thread tells of it."""

from __future__ import annotations

import contextvars
import gc
import threading
from collections.abc import Callable, Iterator
from typing import Any

import anyio
import pytest

from resilient import (
    Bulkhead,
    Chaos,
    CircuitBreaker,
    CircuitOpen,
    DeadlineExceeded,
    Fallback,
    Hedge,
    Resilience,
    Retry,
    Timeout,
    chain,
    degradation_scope,
    standard,
)
from resilient.asgi import Admission, ResilienceMiddleware
from resilient.core.degradation import Level
from resilient.events import CacheUsed, CallRejected, CircuitChanged, Event, FeatureDegraded, ServiceChanged
from resilient.testing import HANG, FakeClock, FaultyTransport

pytest.importorskip("opentelemetry.sdk", reason="needs opentelemetry-sdk")
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from resilient.telemetry.otel import OpenTelemetry
from resilient.telemetry.otel.facts import LONGEST, TOLD


class Traces:
    """Spans of this test alone, without a global provider."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.provider = TracerProvider()
        self.provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.span = self.provider.get_tracer("test").start_as_current_span

    @property
    def ended(self) -> dict[str, ReadableSpan]:
        return {span.name: span for span in self.exporter.get_finished_spans()}

    def events(self, span: str) -> list[str]:
        return [event.name for event in self.ended[span].events]

    def told(self, span: str, event: str) -> dict[str, Any]:
        (found,) = (one for one in self.ended[span].events if one.name == event)
        return dict(found.attributes or {})


@pytest.fixture
def traces() -> Traces:
    return Traces()


@pytest.fixture
def resilience(clock: FakeClock) -> Resilience:
    made = Resilience(clock=clock)
    OpenTelemetry(made, metrics=False)
    return made


def fails() -> None:
    raise ConnectionError


async def fails_too() -> None:
    raise ConnectionError


# -- which span -------------------------------------------------------------------------------------------------------


def test_a_call_tells_its_callers_span(resilience: Resilience, traces: Traces) -> None:
    catalog = resilience.dependency("catalog", CircuitBreaker(fail_max=1))
    with traces.span("request"):
        with pytest.raises(ConnectionError):
            catalog.call_sync(fails)
        with pytest.raises(CircuitOpen):
            catalog.call_sync(fails)
    assert traces.events("request") == ["resilient.circuit_changed", "resilient.call_rejected"]
    changed = traces.told("request", "resilient.circuit_changed")
    assert {"resilient.dependency": "catalog", "resilient.from": "closed", "resilient.to": "open"}.items() <= changed.items()
    assert traces.told("request", "resilient.call_rejected")["resilient.policy"] == "breaker"


@pytest.mark.anyio
async def test_each_of_many_tasks_tells_its_own(resilience: Resilience, traces: Traces) -> None:
    catalog = resilience.dependency("catalog", Fallback([]))

    async def request(number: int) -> None:
        with traces.span(f"request {number}"):
            await anyio.sleep(0.01 * (number % 3))
            await catalog.call(fails_too)

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(request, number)
    assert [traces.events(f"request {number}") for number in range(20)] == [["resilient.fallback_served"]] * 20


def test_each_of_many_threads_tells_its_own_though_another_delivers(traces: Traces) -> None:
    entered, leave, told = threading.Event(), threading.Event(), threading.Semaphore(0)

    class Slow:
        def on_event(self, event: Event) -> None:
            if not entered.is_set():
                entered.set()
                assert leave.wait(30)

    resilience = Resilience(listeners=[Slow()])
    OpenTelemetry(resilience, metrics=False)
    catalog = resilience.dependency("catalog", Fallback([]))

    def request(number: int) -> None:
        with traces.span(f"request {number}"):
            catalog.call_sync(fails)
            told.release()
            assert leave.wait(30)
            finished.wait(30)  # a span must not have ended when its event is delivered, by the first of them

    finished = threading.Barrier(5)
    threads = [threading.Thread(target=request, args=(number,)) for number in range(5)]
    threads[0].start()
    assert entered.wait(30)
    for thread in threads[1:]:
        thread.start()
    for _ in threads[1:]:
        assert told.acquire(timeout=30)
    leave.set()
    for thread in threads:
        thread.join(30)
    assert [traces.events(f"request {number}") for number in range(5)] == [["resilient.fallback_served"]] * 5


@pytest.mark.anyio
async def test_a_stream_tells_its_callers_span_though_another_reads_it(
    traces: Traces, library: Any, clock: FakeClock, anyio_backend: Any
) -> None:
    resilience = Resilience(clock=clock)
    OpenTelemetry(resilience, metrics=False)
    shop = resilience.dependency("shop", *standard(timeout=Timeout(idle=1.0), breaker=CircuitBreaker(fail_max=1)))
    inner = FaultyTransport([lambda request: library.Response(200, content=Slowly())])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(shop, inner)) as client:

        async def read(response: Any) -> None:
            with traces.span("reader"), pytest.raises(DeadlineExceeded):
                await response.aread()

        with traces.span("caller"):
            response = await client.send(client.build_request("GET", "http://shop/"), stream=True)
            context = contextvars.Context()  # as of a task that was begun elsewhere
            async with anyio.create_task_group() as tasks:
                context.run(tasks.start_soon, read, response)
    assert traces.events("reader") == []
    assert traces.events("caller") == ["resilient.deadline_passed", "resilient.circuit_changed"]
    assert traces.told("caller", "resilient.deadline_passed")["resilient.limit"] == "idle"


class Slowly:
    """A body whose first chunk comes too late."""

    async def __aiter__(self) -> Any:
        await anyio.sleep(5)
        yield b"late"


@pytest.mark.usefixtures("by_hand_alone")
def test_a_response_that_is_dropped_is_told_to_whoever_asked_for_it(resilience: Resilience, traces: Traces, library: Any) -> None:
    shop = resilience.dependency("shop")
    inner = FaultyTransport([lambda request: library.Response(200, content=iter([b"x"])), 200])
    with library.Client(transport=library.ours.ResilientTransport(shop, inner)) as client:
        with traces.span("caller"):
            response = client.send(client.build_request("GET", "http://shop/"), stream=True)
            with traces.span("another"):
                del response
                gc.collect()
                client.get("http://shop/")
    assert traces.events("caller") == ["resilient.response_abandoned"]
    assert traces.events("another") == []


@pytest.mark.anyio
async def test_a_hedge_tells_its_callers_span(resilience: Resilience, traces: Traces, anyio_backend: Any) -> None:
    catalog = resilience.dependency("catalog", Hedge(delay=0.1))
    slow = iter([5.0, 0.0])

    async def answer() -> str:
        await anyio.sleep(next(slow))
        return "lamp"

    with traces.span("request"):
        assert await catalog.call(answer) == "lamp"
        await anyio.sleep(0.1)
    assert traces.told("request", "resilient.hedge_decided")["resilient.result"] == "won"


def test_a_generator_tells_its_callers_span(resilience: Resilience, traces: Traces) -> None:
    catalog = resilience.dependency("catalog", CircuitBreaker(fail_max=1))

    @catalog
    def items() -> Iterator[int]:
        yield 1
        raise ConnectionError

    with traces.span("caller"):
        generator = items()
        next(generator)
        with traces.span("reader"), pytest.raises(ConnectionError):
            next(generator)
    assert (traces.events("caller"), traces.events("reader")) == (["resilient.circuit_changed"], [])


class Never:
    def __await__(self) -> Iterator[None]:
        yield


async def never() -> None:
    await Never()


def test_what_is_left_to_the_next_call_is_told_where_it_happened(resilience: Resilience, traces: Traces) -> None:
    class Tells:
        async def run(self, call: Any, inner: Any) -> Any:
            call.held.append((self, call))
            return await inner(call)

        def settle(self, token: Any, outcome: Any, now: float, error: BaseException | None) -> None:
            token.owner.post(CallRejected(at=now, policy=outcome.label, reason="told"))

    catalog = resilience.dependency("catalog", Tells())
    with traces.span("caller"):
        waiting = catalog.call(never)
        waiting.send(None)
        resilience.outbox.guard(None, waiting.close)  # as in a collection that comes in the middle of our own code
        with traces.span("another"):
            catalog.call_sync(int)
    assert traces.told("caller", "resilient.call_rejected")["resilient.policy"] == "ignored"
    assert traces.told("another", "resilient.call_rejected")["resilient.policy"] == "success"


def test_an_ended_span_is_told_nothing(resilience: Resilience, traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    catalog = resilience.dependency("catalog", Fallback([]))
    with traces.span("request"):
        context = contextvars.copy_context()
    context.run(catalog.call_sync, fails)
    assert traces.events("request") == [] and not caplog.records


def test_the_time_is_that_of_the_event(traces: Traces, clock: FakeClock) -> None:
    class Slow:
        def on_event(self, event: Event) -> None:
            clock.advance(60)

    resilience = Resilience(clock=clock, listeners=[Slow()])
    OpenTelemetry(resilience, metrics=False)
    with traces.span("request") as span:
        resilience.dependency("catalog", Fallback([])).call_sync(fails)
    (event,) = traces.ended["request"].events
    assert span.is_recording() is False
    start = traces.ended["request"].start_time
    assert start is not None and -120e9 < event.timestamp - start < -30e9  # one minute before it was delivered


@pytest.mark.anyio
async def test_a_request_that_another_displaces_is_told_on_its_own_span(traces: Traces, anyio_backend: Any) -> None:
    resilience = Resilience()
    OpenTelemetry(resilience, metrics=False)
    release = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await release.wait()
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    admission = Admission(limit=1, min_concurrent=1, max_concurrent=1, queue=1, criticality=lambda scope: scope["path"][1:])
    served = ResilienceMiddleware(app, resilience, admission=admission)

    async def request(word: str) -> None:
        async def send(message: Any) -> None:
            statuses.append((word, message["status"])) if "status" in message else None

        with traces.span(word):
            await served({"type": "http", "method": "GET", "path": f"/{word}", "headers": []}, anyio.sleep_forever, send)

    statuses: list[Any] = []
    async with anyio.create_task_group() as tasks:
        for word in ("critical", "sheddable", "critical_plus"):
            tasks.start_soon(request, word)
            await anyio.wait_all_tasks_blocked()
        release.set()
    assert dict(statuses) == {"sheddable": 503, "critical": 200, "critical_plus": 200}
    assert traces.told("sheddable", "resilient.request_shed") == {
        "resilient.criticality": "sheddable",
        "resilient.reason": "displaced",
        "resilient.enforced": True,
    }
    assert traces.events("critical_plus") == traces.events("critical") == []


# -- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_retry(resilience: Resilience, traces: Traces, anyio_backend: Any, library: Any) -> None:
    shop = resilience.dependency("shop")
    inner = FaultyTransport([503, 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(shop, inner)) as client:
        with traces.span("request"):
            await client.get("http://shop/")
    retry = traces.told("request", "resilient.retry_decided")
    assert 0 <= retry.pop("resilient.delay") <= 20
    assert retry == {"resilient.dependency": "shop", "resilient.result": "retried", "resilient.attempt": 1, "error.type": "status_503"}


@pytest.mark.anyio
async def test_a_time_limit(resilience: Resilience, traces: Traces, anyio_backend: Any, library: Any) -> None:
    shop = resilience.dependency("shop", timeout=1.0)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(shop, FaultyTransport([HANG]))) as client:
        with traces.span("request"), pytest.raises(library.ours.DeadlineExceeded):
            await client.get("http://shop/")
    assert traces.told("request", "resilient.deadline_passed") == {
        "resilient.dependency": "shop",
        "resilient.side": "outbound",
        "resilient.limit": "total",
        "resilient.enforced": True,
    }


def test_what_a_request_was_served_less_of(resilience: Resilience, traces: Traces) -> None:
    def broken() -> list[str]:
        raise RuntimeError("no replica")

    @resilience.feature("recommendations", fallback=chain(broken, ["bestseller"]), on=ConnectionError)
    def recommended() -> list[str]:
        raise ConnectionError

    @resilience.feature("reviews", on=ConnectionError)
    def reviews() -> list[str]:
        raise ConnectionError

    with degradation_scope(), traces.span("request"):
        assert recommended() == ["bestseller"]
        with pytest.raises(ConnectionError):
            reviews()
    assert traces.events("request")[:2] == ["resilient.fallback_failed", "resilient.feature_degraded"]
    said = traces.ended["request"].attributes or {}
    assert said["resilient.degraded.features"] == ("recommendations", "reviews")
    assert said["resilient.degraded.level"] == "off"
    failed = traces.told("request", "resilient.fallback_failed")
    assert (failed["error.type"], failed["resilient.step"], failed["resilient.feature"]) == ("RuntimeError", 0, "recommendations")


def test_without_a_record_the_last_use_is_on_the_span(resilience: Resilience, traces: Traces) -> None:
    with traces.span("job"):
        resilience.outbox.emit(FeatureDegraded(at=0.0, feature="one", level=Level.OFF, cause="load"))
        resilience.outbox.emit(FeatureDegraded(at=0.0, feature="two", level=Level.STATIC, cause="load"))
    said = traces.ended["job"].attributes or {}
    assert (said["resilient.degraded.features"], said["resilient.degraded.level"]) == (("two",), "static")


def test_of_a_cache_only_what_was_not_fresh_is_told(resilience: Resilience, traces: Traces) -> None:
    with traces.span("request"):
        for result in ("hit", "miss", "stale", "stale_if_error", "fallback", "pass"):
            resilience.outbox.emit(CacheUsed(at=0.0, dependency="catalog", result=result))
    told = [dict(event.attributes or {})["resilient.result"] for event in traces.ended["request"].events]
    assert told == ["stale", "stale_if_error", "fallback"]


def test_what_is_no_callers_is_not_told(resilience: Resilience, traces: Traces) -> None:
    with traces.span("request"):
        resilience.outbox.emit(ServiceChanged(at=0.0, old="healthy", new="critical"))
    assert traces.events("request") == []


def test_chaos_is_told(traces: Traces, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock, chaos=True)
    OpenTelemetry(resilience, metrics=False)
    catalog = resilience.dependency("catalog", Chaos(fault=ConnectionError, rate=1.0))
    with traces.span("request"), pytest.raises(ConnectionError):
        catalog.call_sync(int)
    assert traces.told("request", "resilient.fault_injected")["resilient.kind"] == "fault"


def test_values_are_bounded(resilience: Resilience, traces: Traces) -> None:
    with traces.span("request"):
        resilience.outbox.emit(CircuitChanged(at=0.0, old="closed", new="open", reason="outage", key="k" * 10_000))
    told = traces.told("request", "resilient.circuit_changed")
    assert told["resilient.key"] == "k" * LONGEST
    assert "resilient.retry_after" not in told and "resilient.dependency" not in told  # nothing to say of them


def test_every_event_of_a_call_has_a_name() -> None:
    assert set(TOLD.values()) == {
        "resilient.cache_used",
        "resilient.call_rejected",
        "resilient.circuit_changed",
        "resilient.deadline_passed",
        "resilient.failed_over",
        "resilient.fallback_failed",
        "resilient.fallback_served",
        "resilient.fault_injected",
        "resilient.feature_changed",
        "resilient.feature_degraded",
        "resilient.hedge_decided",
        "resilient.request_shed",
        "resilient.response_abandoned",
        "resilient.retry_decided",
    }


# -- a span for each call ---------------------------------------------------------------------------------------------


@pytest.fixture
def spanned(clock: FakeClock, traces: Traces) -> Resilience:
    made = Resilience(clock=clock)
    OpenTelemetry(made, metrics=False, spans=True, tracer_provider=traces.provider)
    return made


@pytest.mark.anyio
async def test_a_call_has_a_span_around_its_attempts(spanned: Resilience, traces: Traces, anyio_backend: Any, library: Any) -> None:
    catalog = spanned.dependency("catalog")

    class Traced(FaultyTransport):
        """As the instrumentation of a client does it."""

        async def handle_async_request(self, request: Any) -> Any:
            with traces.span("GET"):
                return await super().handle_async_request(request)

    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(catalog, Traced([503, 200]))) as client:
        with traces.span("request"):
            await client.get("http://catalog/")
    call, request = traces.ended["call catalog"], traces.ended["request"]
    attempts = [span for span in traces.exporter.get_finished_spans() if span.name == "GET"]
    assert call.parent is not None and call.context is not None and request.context is not None
    assert call.parent.span_id == request.context.span_id
    assert [span.parent.span_id for span in attempts if span.parent] == [call.context.span_id] * 2
    assert traces.events("call catalog") == ["resilient.retry_decided"]  # told before the span ended
    assert dict(call.attributes or {}) == {"resilient.dependency": "catalog", "resilient.outcome": "success", "resilient.attempts": 2}
    assert call.status.status_code is trace.StatusCode.UNSET


def test_a_span_says_how_the_call_ended(spanned: Resilience, traces: Traces) -> None:
    catalog = spanned.dependency("catalog", CircuitBreaker(fail_max=1))
    for error in (ConnectionError, CircuitOpen):
        with pytest.raises(error):
            catalog.call_sync(fails)
    failed, rejected = traces.exporter.get_finished_spans()
    assert [dict(span.attributes or {})["error.type"] for span in (failed, rejected)] == ["ConnectionError", "circuit_open"]
    assert [dict(span.attributes or {})["resilient.outcome"] for span in (failed, rejected)] == ["failure", "ignored"]
    assert {span.status.status_code for span in (failed, rejected)} == {trace.StatusCode.ERROR}
    spanned.dependency("reviews", Fallback([])).call_sync(fails)
    assert dict(traces.ended["call reviews"].attributes or {})["resilient.degraded.cause"] == "ConnectionError"


def test_a_span_lasts_as_long_as_the_body(spanned: Resilience, traces: Traces) -> None:
    shop = spanned.dependency("shop")

    @shop
    def items() -> Iterator[int]:
        yield from (1, 2)

    generator = items()
    next(generator)
    assert trace.get_current_span() is trace.INVALID_SPAN  # it is nobody's current span meanwhile
    assert traces.ended == {}
    assert list(generator) == [2]
    assert "call shop" in traces.ended


def test_whatever_is_declared_later_has_spans_too(spanned: Resilience, traces: Traces, library: Any) -> None:
    orders = spanned.dependency("orders")
    orders.variant("orders-slow", timeout=5.0).call_sync(int)
    orders.swap(next(policy for policy in orders.policies if isinstance(policy, Retry)), Retry(attempts=2))
    orders.call_sync(int)
    with library.Client(transport=library.ours.ResilientTransport(spanned, FaultyTransport([200]))) as client:
        client.get("http://127.0.0.1:9/")
    assert set(traces.ended) == {"call orders-slow", "call orders", "call http://127.0.0.1:9"}


def test_what_was_declared_before_has_spans(clock: FakeClock, traces: Traces) -> None:
    resilience = Resilience(clock=clock)
    catalog = resilience.dependency("catalog")
    telemetry = OpenTelemetry(resilience, metrics=False, spans=True, tracer_provider=traces.provider)
    assert len(catalog.policies) == len(standard())
    catalog.call_sync(int)
    telemetry.close()
    catalog.call_sync(int)
    assert len(traces.exporter.get_finished_spans()) == 1


def test_a_call_that_is_collected_leaves_the_context_alone(spanned: Resilience, traces: Traces, caplog: pytest.LogCaptureFixture) -> None:
    catalog = spanned.dependency("catalog", Bulkhead(max_concurrent=1))

    waiting = catalog.call(never)
    contextvars.copy_context().run(waiting.send, None)
    waiting.close()  # in another context than it ran in
    assert not [record for record in caplog.records if record.name.startswith("opentelemetry")]
    catalog.call_sync(int)
    assert len(traces.exporter.get_finished_spans()) == 2


# -- settings ---------------------------------------------------------------------------------------------------------


def test_a_resilience_has_one(resilience: Resilience) -> None:
    with pytest.raises(ValueError, match="^resilience: "):
        OpenTelemetry(resilience)
    (listener,) = (one for one in resilience.outbox.listeners if isinstance(one, OpenTelemetry))
    assert resilience.outbox.in_context
    listener.close()
    assert not resilience.outbox.in_context
    OpenTelemetry(resilience, events=False, metrics=False)


def test_events_may_be_left_out(clock: FakeClock, traces: Traces) -> None:
    resilience = Resilience(clock=clock)
    OpenTelemetry(resilience, events=False, metrics=False)
    with traces.span("request"):
        resilience.dependency("catalog", Fallback([])).call_sync(fails)
    assert traces.events("request") == []


@pytest.mark.parametrize(
    ("settings", "named"),
    [({"events": 1}, "events"), ({"spans": "yes"}, "spans"), ({"metrics": None}, "metrics"), ({"attributes": "x"}, "attributes")],
)
def test_settings_are_checked(settings: dict[str, Any], named: str) -> None:
    with pytest.raises(TypeError, match=f"^{named}"):
        OpenTelemetry(Resilience(), **settings)


def test_it_is_for_a_resilience() -> None:
    with pytest.raises(TypeError, match="^resilience: "):
        OpenTelemetry(object())  # type: ignore[arg-type]


def test_without_it_no_context_is_kept(clock: FakeClock, listener: Any) -> None:
    resilience = Resilience(clock=clock, listeners=[listener])
    assert not resilience.outbox.in_context
    resilience.outbox.post(CallRejected(at=0.0, policy="x", reason="y"))
    assert [type(item) for item in resilience.outbox.pending] == [CallRejected]


def test_listeners_are_called_in_the_context_that_they_ask_for() -> None:
    variable: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="")
    heard: list[str] = []

    class Ear:
        in_context = True

        def on_event(self, event: Event) -> None:
            heard.append(variable.get())

    resilience = Resilience(listeners=[Ear()])
    event = CallRejected(at=0.0, policy="x", reason="y")
    post: Callable[[Event], None] = resilience.outbox.post
    for who in ("one", "two"):
        context = contextvars.copy_context()
        context.run(variable.set, who)
        context.run(post, event)
    resilience.outbox.post(event)
    resilience.outbox.flush()
    assert heard == ["one", "two", ""]
