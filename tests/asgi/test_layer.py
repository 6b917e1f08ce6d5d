"""Middleware in middleware, of the same `Resilience` and of two: nothing is told, counted or added twice."""

from __future__ import annotations

import gc
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from resilient import CircuitOpen, Resilience, current_deadline
from resilient.asgi import DeadlineMiddleware, DegradationMiddleware, ErrorMiddleware, MetricsMiddleware, ResilienceMiddleware
from resilient.asgi.layer import LAYER_KEY, Layer
from resilient.events import DeadlinePassed, FeatureDegraded
from resilient.testing import FakeClock, RecordingListener

from .test_metrics import requests_of

pytestmark = pytest.mark.anyio


@pytest.fixture(params=["same", "two"])
def pair(request: pytest.FixtureRequest, clock: FakeClock) -> Any:
    """The `Resilience` of the outer app, that of the inner one, and a listener of each."""
    heard = RecordingListener(), RecordingListener()
    outer = Resilience(clock=clock, listeners=[heard[0]])
    if request.param == "same":
        return outer, outer, heard[0], heard[0]
    return outer, Resilience(clock=clock, listeners=[heard[1]]), *heard


def mounted(pair: Any, endpoint: Any, *, inner_options: Any = {}, outer_options: Any = {}) -> Starlette:  # noqa: B006
    inner = Starlette(routes=[Route("/orders/{id}", endpoint)])
    pair[1].install(inner, **inner_options)
    outer = Starlette(routes=[Mount("/tenants/{tenant}", app=inner)])
    pair[0].install(outer, **outer_options)
    return outer


async def ok(request: Request) -> Response:
    return PlainTextResponse("ok")


async def test_a_request_is_counted_once_for_each(pair: Any, clock: FakeClock, ask: Any) -> None:
    app = mounted(pair, ok)
    for number in range(3):
        await ask(app, f"/tenants/{number}/orders/{number}")
    for resilience in pair[:2]:
        counted, timed = requests_of(resilience)
        assert counted == {("/tenants/{tenant}/orders/{id}", "GET", "2xx"): 3}
        assert timed == {"/tenants/{tenant}/orders/{id}": 3}


async def test_middleware_around_each_other_counts_once(clock: FakeClock, ask: Any) -> None:
    resilience = Resilience(clock=clock)
    app: Any = Starlette(routes=[Route("/x", ok)])
    for _ in range(3):
        app = MetricsMiddleware(DeadlineMiddleware(ResilienceMiddleware(app, resilience), resilience), resilience)
    await ask(app, "/x")
    assert requests_of(resilience)[0] == {("/x", "GET", "2xx"): 1}


async def test_an_inner_one_counts_where_the_outer_one_does_not(clock: FakeClock, ask: Any) -> None:
    resilience = Resilience(clock=clock)
    app = mounted((resilience, resilience), ok, outer_options={"count_requests": False})
    await ask(app, "/tenants/1/orders/1")
    assert requests_of(resilience)[0] == {("/tenants/{tenant}/orders/{id}", "GET", "2xx"): 1}


async def test_a_degradation_is_told_once(pair: Any, clock: FakeClock, ask: Any) -> None:
    feature = pair[1].feature("reviews", fallback=[])

    @feature
    async def reviews() -> list[str]:
        raise CircuitOpen("reviews: open", dependency="reviews")

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(str(await reviews()))

    answer = await ask(mounted(pair, endpoint, inner_options={"degraded_header": "X-Inner"}), "/tenants/1/orders/1")
    assert answer.header("degraded") == ["reviews;level=static"]
    assert answer.header("x-inner") == []
    assert len(pair[3].of(FeatureDegraded)) == 1
    assert (
        pair[1]
        .metrics.render("")[0]
        .count(b'resilient_degraded_responses_total{cause="circuit_open",feature="reviews",level="static"} 1.0')
        == 1
    )


async def test_a_refusal_is_answered_once(pair: Any, clock: FakeClock, ask: Any) -> None:
    async def refused(request: Request) -> Response:
        raise CircuitOpen("catalog: open", dependency="catalog")

    answer = await ask(mounted(pair, refused), "/tenants/1/orders/1")
    assert answer.status == 503 and answer.problem["error"] == CircuitOpen.error_token
    for resilience in pair[:2]:
        assert requests_of(resilience)[0] == {("/tenants/{tenant}/orders/{id}", "GET", "5xx"): 1}


@pytest.mark.parametrize("deaf", [False, True], ids=["cancelled", "deaf"])
@pytest.mark.parametrize(("outer", "inner"), [(1, 1), (1, 5), (5, 1), (1, 1.001)])
async def test_a_late_request_is_late_once(pair: Any, outer: float, inner: float, deaf: bool, clock: FakeClock, ask: Any) -> None:
    async def slow(request: Request) -> Response:
        with anyio.CancelScope(shield=deaf):
            await anyio.sleep(10)
        return PlainTextResponse("late")

    began = clock.now()
    app = mounted(pair, slow, inner_options={"timeout": inner}, outer_options={"timeout": outer})
    answer = await ask(app, "/tenants/1/orders/1", now=clock.now)
    heard = pair[2].of(DeadlinePassed), pair[3].of(DeadlinePassed)
    assert len(answer.starts) == 1
    assert max(map(len, heard)) == 1 and all(len(events) <= 1 for events in heard)
    if not deaf:
        assert answer.status == 504
        assert answer.times[0] - began == pytest.approx(min(outer, inner), abs=0.1)
    for resilience in pair[:2]:
        counted, _ = requests_of(resilience)
        assert list(counted.values()) == [1]


async def test_the_shorter_limit_holds_and_ends_with_the_response(pair: Any, clock: FakeClock, ask: Any) -> None:
    remaining = []

    async def later() -> None:
        await anyio.sleep(60)
        deadline = current_deadline()
        assert deadline is not None
        remaining.append(deadline.remaining)

    async def endpoint(request: Request) -> Response:
        deadline = current_deadline()
        assert deadline is not None
        remaining.append(round(deadline.remaining, 3))
        return PlainTextResponse("ok", background=BackgroundTask(later))

    app = mounted(pair, endpoint, inner_options={"timeout": 2}, outer_options={"timeout": 30})
    assert (await ask(app, "/tenants/1/orders/1")).status == 200
    assert remaining == [2, float("inf")]


@pytest.mark.parametrize(("outer_body", "inner_body", "left"), [(False, True, 18), (True, False, 28), (True, True, 18)])
async def test_while_one_of_them_covers_the_body_it_is_what_holds(
    pair: Any, outer_body: bool, inner_body: bool, left: float, clock: FakeClock, ask: Any
) -> None:
    remaining = []

    async def chunks() -> Any:
        for _ in range(2):
            await anyio.sleep(1)
            deadline = current_deadline()
            assert deadline is not None
            remaining.append(round(deadline.remaining, 3))
            yield "x"

    async def later() -> None:
        deadline = current_deadline()
        assert deadline is not None
        remaining.append(deadline.remaining)

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(chunks(), background=BackgroundTask(later))

    inner_options, outer_options = {"timeout": 20, "body": inner_body}, {"timeout": 30, "body": outer_body}
    app = mounted(pair, endpoint, inner_options=inner_options, outer_options=outer_options)
    assert (await ask(app, "/tenants/1/orders/1")).body == b"xx"
    assert remaining == [left + 1, left, float("inf")]


@pytest.mark.parametrize("kind", [DeadlineMiddleware, DegradationMiddleware, ErrorMiddleware, MetricsMiddleware, ResilienceMiddleware])
async def test_nothing_stays_behind_in_the_scope(kind: Any, clock: FakeClock, ask: Any) -> None:
    resilience = Resilience(clock=clock)
    scopes = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        scopes.append(scope)
        assert LAYER_KEY in scope
        await PlainTextResponse("ok")(scope, receive, send)

    await ask(kind(kind(app, resilience), resilience))
    assert LAYER_KEY not in scopes[0]


@pytest.mark.slow
async def test_no_cycle_is_left_for_the_collector(clock: FakeClock, ask: Any) -> None:
    resilience = Resilience(clock=clock)
    app = ResilienceMiddleware(ResilienceMiddleware(PlainTextResponse("ok"), resilience), resilience)
    gc.collect()
    gc.disable()
    try:
        before = layers_alive()
        for _ in range(20):
            await ask(app)
        assert layers_alive() == before
    finally:
        gc.enable()


def layers_alive() -> int:
    return sum(isinstance(thing, Layer) for thing in gc.get_objects())
