"""Requests by route template, and the page that is scraped."""

from __future__ import annotations

import threading
from functools import partial
from types import SimpleNamespace
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fastapi import APIRouter, FastAPI
from prometheus_client.openmetrics.parser import text_string_to_metric_families
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route, Router

from resilient import CircuitOpen, Resilience
from resilient.asgi import MetricsMiddleware, ResilienceMiddleware, routes
from resilient.clock import SYSTEM_CLOCK
from resilient.outbox import Outbox
from resilient.testing import FakeClock


async def ok(request: Request) -> Response:
    return PlainTextResponse("ok")


async def slow_and_deaf(request: Request) -> Response:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(2)
    return PlainTextResponse("late")


class Counting:
    """A `Resilience` whose metrics count requests."""

    enabled = True

    def __init__(self, clock: Any = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.outbox = Outbox()
        self.admissions: set[Any] = set()
        self.counted: list[tuple[str, str, str, float]] = []
        self.metrics = SimpleNamespace(count_request=lambda *labels: self.counted.append(labels))


def requests_of(resilience: Resilience) -> tuple[dict[tuple[str, ...], float], dict[str, float]]:
    """What the page says: requests by route, method and status, and how many were timed by route."""
    page = resilience.metrics.render("application/openmetrics-text; version=1.0.0")[0].decode()
    found = [sample for family in text_string_to_metric_families(page) for sample in family.samples]
    counted = {
        (sample.labels["route"], sample.labels["method"], sample.labels["status"]): sample.value
        for sample in found
        if sample.name == "resilient_requests_total"
    }
    timed = {sample.labels["route"]: sample.value for sample in found if sample.name == "resilient_request_duration_seconds_count"}
    return counted, timed


# -- ground 42 ------------------------------------------------------------------------------------------------------


def starlette() -> Any:
    tenant = Starlette(routes=[Route("/orders/{order_id:int}", ok), Mount("/deep", routes=[Route("/{leaf}", ok)])])
    return Starlette(
        routes=[
            Route("/", ok),
            Route("/items/{item}", ok),
            Mount("/shop", app=Router(routes=[Route("/{b}", ok)])),
            Mount("/tenants/{tenant}", app=tenant),
            Mount("/plain", app=PlainTextResponse("ok")),
        ]
    )


def fastapi() -> Any:
    app = FastAPI()
    router = APIRouter(prefix="/orders")
    outer = APIRouter(prefix="/v1")
    router.add_api_route("/{order_id}", lambda order_id: order_id)
    outer.include_router(router)
    app.include_router(outer, prefix="/api")
    app.add_api_route("/items/{item}", lambda item: item)
    app.mount("/shop", starlette())
    return app


@pytest.mark.anyio
@pytest.mark.parametrize("middleware", [MetricsMiddleware, ResilienceMiddleware])
@pytest.mark.parametrize(
    ("make", "path", "template"),
    [
        (starlette, "/", "/"),
        (starlette, "/items/7", "/items/{item}"),
        (starlette, "/nowhere/8", "unmatched"),
        (starlette, "/shop/7", "/shop/{b}"),
        (starlette, "/shop/no/thing", "unmatched"),
        (starlette, "/tenants/42/orders/81", "/tenants/{tenant}/orders/{order_id:int}"),
        (starlette, "/tenants/42/deep/42", "/tenants/{tenant}/deep/{leaf}"),
        (starlette, "/plain/anything", "unmatched"),
        (fastapi, "/items/7", "/items/{item}"),
        (fastapi, "/api/v1/orders/7", "/api/v1/orders/{order_id}"),
        (fastapi, "/shop/items/7", "/shop/items/{item}"),
        (fastapi, "/nowhere/8", "unmatched"),
    ],
)
async def test_ground_42_the_label_is_the_routes_template(middleware: Any, make: Any, path: str, template: str, ask: Any) -> None:
    counting = Counting()
    await ask(middleware(make(), counting), path)
    assert [labels[0] for labels in counting.counted] == [template]


@pytest.mark.anyio
async def test_ground_42_what_the_server_serves_the_app_under_is_no_part_of_it(ask: Any) -> None:
    counting = Counting()
    middleware = MetricsMiddleware(starlette(), counting)
    await ask(middleware, "/behind/shop/7", root_path="/behind")
    await ask(middleware, "/behind/items/7", root_path="/behind")
    assert [labels[0] for labels in counting.counted] == ["/shop/{b}", "/items/{item}"]


@pytest.mark.anyio
@pytest.mark.parametrize("make", [starlette, fastapi])
@pytest.mark.parametrize("installed", [True, False])
async def test_ground_42_the_series_on_the_page_are_of_templates(make: Any, installed: bool, ask: Any) -> None:
    resilience = Resilience()
    app = make()
    if installed:
        resilience.install(app)
    served = app if installed else ResilienceMiddleware(app, resilience)
    for number in range(3):
        await ask(served, f"/items/{number}")
        await ask(served, f"/shop/items/{number}" if make is fastapi else f"/shop/{number}")
        await ask(served, f"/nowhere/{number}")
        await ask(served, f"/shop/no/thing/{number}", method="POST")
    mounted = "/shop/items/{item}" if make is fastapi else "/shop/{b}"
    counted, timed = requests_of(resilience)
    assert counted == {
        ("/items/{item}", "GET", "2xx"): 3,
        (mounted, "GET", "2xx"): 3,
        ("unmatched", "GET", "4xx"): 3,
        ("unmatched", "POST", "4xx"): 3,
    }
    assert timed == {"/items/{item}": 3, mounted: 3, "unmatched": 6}


@pytest.mark.anyio
async def test_a_plain_asgi_app_has_no_templates(ask: Any) -> None:
    counting = Counting()
    await ask(MetricsMiddleware(PlainTextResponse("ok"), counting), "/x")
    assert [labels[0] for labels in counting.counted] == ["unmatched"]


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("method", "status", "labels"),
    [
        ("GET", 200, ("GET", "2xx")),
        ("QUERY", 304, ("QUERY", "3xx")),
        ("BREW", 418, ("other", "4xx")),
        ("POST", 503, ("POST", "5xx")),
        ("POST", 99999, ("POST", "none")),
    ],
)
async def test_other_labels_are_few_whatever_is_sent(method: str, status: int, labels: tuple[str, str], ask: Any) -> None:
    counting = Counting()
    await ask(MetricsMiddleware(PlainTextResponse("ok", status_code=status), counting), method=method)
    assert [told[1:3] for told in counting.counted] == [labels]


@pytest.mark.anyio
async def test_each_request_is_counted_once_with_its_whole_time(clock: FakeClock, ask: Any) -> None:
    counting = Counting(clock)

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(1)
        await PlainTextResponse("ok")(scope, receive, send)
        await anyio.sleep(2)

    await ask(MetricsMiddleware(app, counting))
    ((_, _, status, seconds),) = counting.counted
    assert (status, seconds) == ("2xx", pytest.approx(3))


@pytest.mark.anyio
async def test_requests_without_an_answer_of_the_app_are_counted_too(clock: FakeClock, ask: Any) -> None:
    counting = Counting(clock)

    async def refused(scope: Any, receive: Any, send: Any) -> None:
        raise CircuitOpen("x")

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("bug")

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(100)

    await ask(ResilienceMiddleware(refused, counting))
    await ask(ResilienceMiddleware(slow, counting, timeout=1))
    with pytest.raises(KeyError):
        await ask(ResilienceMiddleware(failing, counting))
    with anyio.move_on_after(1):
        await ask(ResilienceMiddleware(slow, counting))
    assert [labels[2] for labels in counting.counted] == ["5xx", "5xx", "5xx", "none"]


@pytest.mark.anyio
async def test_ground_55_a_request_that_was_answered_late_is_on_the_page_once(clock: FakeClock, ask: Any) -> None:
    resilience = Resilience(clock=clock)
    app = Starlette(routes=[Route("/slow", slow_and_deaf)])
    resilience.install(app, timeout=1)
    answer = await ask(app, "/slow")  # 504 on asyncio, sent while the endpoint still runs
    counted, timed = requests_of(resilience)
    assert counted == {("/slow", "GET", f"{answer.status // 100}xx"): 1}
    assert timed == {"/slow": 1}


@pytest.mark.anyio
async def test_counting_may_be_switched_off(ask: Any) -> None:
    resilience = Resilience()
    app = starlette()
    resilience.install(app, count_requests=False)
    assert (await ask(app, "/items/7")).status == 200
    assert requests_of(resilience) == ({}, {})
    assert (await ask(app, "/metrics")).status == 200


def test_the_switch_is_a_switch() -> None:
    with pytest.raises(TypeError, match="count_requests"):
        ResilienceMiddleware(PlainTextResponse("ok"), Resilience(), count_requests=0)  # type: ignore[arg-type]


# -- the page -------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("make", [Starlette, FastAPI])
async def test_ground_48_the_page_is_there_without_a_redirect(make: Any, ask: Any) -> None:
    resilience = Resilience()
    resilience.dependency("catalog", origin="http://catalog:80")
    app = make()
    resilience.install(app)
    answer = await ask(app, "/metrics", headers={"Accept": "text/plain"})
    assert answer.status == 200
    assert answer.header("content-type")[0].startswith("text/plain; version=")
    assert b'resilient_breaker_state{dependency="catalog",state="closed"} 1.0' in answer.body
    answer = await ask(app, "/metrics", headers={"Accept": "application/openmetrics-text; version=1.0.0"})
    assert answer.header("content-type")[0].startswith("application/openmetrics-text")
    assert answer.body.endswith(b"# EOF\n")


class Page:
    """Metrics whose rendering is watched."""

    def __init__(self) -> None:
        self.accepted: list[str] = []
        self.threads: list[int] = []
        self.running = 0
        self.most = 0
        self.entered = threading.Semaphore(0)
        self.go = threading.Event()
        self.go.set()
        self._lock = threading.Lock()

    def render(self, accept: str) -> tuple[bytes, str]:
        with self._lock:
            self.running += 1
            self.most = max(self.most, self.running)
            self.accepted.append(accept)
            self.threads.append(threading.get_ident())
        self.entered.release()
        assert self.go.wait(10)
        with self._lock:
            self.running -= 1
        return b"page", "text/plain; version=1"


def page_app(page: Page) -> Starlette:
    return Starlette(routes=routes(SimpleNamespace(metrics=page), health=False))  # type: ignore[arg-type]


@pytest.mark.anyio
async def test_ground_54_no_request_waits_for_a_scrape(ask: Any) -> None:
    page = Page()
    page.go.clear()
    app = page_app(page)
    answers = []

    async def scrape() -> None:
        answers.append(await ask(app, "/metrics"))

    async with anyio.create_task_group() as tasks:
        for _ in range(5):
            tasks.start_soon(scrape)
        for _ in range(2):
            assert await anyio.to_thread.run_sync(partial(page.entered.acquire, timeout=5))
        # The loop got here while the page is being rendered; others wait without a thread.
        assert threading.get_ident() not in page.threads
        page.go.set()
    assert [answer.body for answer in answers] == [b"page"] * 5
    assert page.most == 2


@pytest.mark.anyio
async def test_a_scrape_needs_none_of_the_threads_that_requests_have(ask: Any) -> None:
    page = Page()
    release = threading.Event()
    limiter = anyio.to_thread.current_default_thread_limiter()
    limiter.total_tokens = 2
    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(anyio.to_thread.run_sync, release.wait)
        await anyio.wait_all_tasks_blocked()
        assert limiter.available_tokens == 0
        with anyio.fail_after(5):
            assert (await ask(page_app(page), "/metrics")).body == b"page"
        release.set()


@pytest.mark.anyio
async def test_all_that_the_scraper_accepts_is_told(ask: Any) -> None:
    page = Page()
    await ask(page_app(page), "/metrics", headers={"Accept": "a/b;q=0.5, c/d"})
    await ask(page_app(page), "/metrics")
    assert page.accepted == ["a/b;q=0.5, c/d", ""]
