"""The last good answer in the place of an error: when it is served, how it is marked, and that nothing is sent twice."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from fastapi import FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from resilient import Brownout, BulkheadFull, CircuitOpen, DeadlineExceeded, Resilience
from resilient.asgi import (
    DeadlineMiddleware,
    DegradationMiddleware,
    ErrorMiddleware,
    ResilienceMiddleware,
    StaleResponseMiddleware,
    StaleResponses,
)
from resilient.core.limiter import DROPPED, FAILED
from resilient.events import CacheUsed, FeatureDegraded
from resilient.testing import FakeClock, RecordingListener

pytestmark = pytest.mark.anyio

SECRET = "redis://:password=hunter2@10.0.0.1"


class Page:
    """An ASGI app that answers as it is told, and counts how often it was asked."""

    def __init__(self, body: bytes = b"the page", **headers: str) -> None:
        self.body = body
        self.status = 200
        self.headers = headers
        self.error: BaseException | None = None
        self.asked = 0

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        assert scope["type"] == "http"
        self.asked += 1
        if self.error is not None:
            raise self.error
        headers = [(name.replace("_", "-").encode(), value.encode()) for name, value in self.headers.items()]
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})

    def fails(self, how: Any) -> None:
        """From now on with an exception, or with a status."""
        if isinstance(how, int):
            self.status, self.body = how, b"out of order"
        else:
            self.error = how


def alone(app: Any, resilience: Resilience, **settings: Any) -> Any:
    return StaleResponseMiddleware(app, resilience, **{"stale_if_error": 300.0, **settings})


def composed(app: Any, resilience: Resilience, **settings: Any) -> Any:
    outer = {name: settings.pop(name) for name in ("expose_causes", "trusted", "degraded_header") if name in settings}
    return ResilienceMiddleware(app, resilience, stale=StaleResponses(**{"stale_if_error": 300.0, **settings}), **outer)


def errors_inside(app: Any, resilience: Resilience, **settings: Any) -> Any:
    return alone(ErrorMiddleware(app, resilience), resilience, **settings)


def errors_outside(app: Any, resilience: Resilience, **settings: Any) -> Any:
    return ErrorMiddleware(alone(app, resilience, **settings), resilience)


def degradation_inside(app: Any, resilience: Resilience, **settings: Any) -> Any:
    return alone(DegradationMiddleware(app, resilience), resilience, **settings)


def degradation_outside(app: Any, resilience: Resilience, **settings: Any) -> Any:
    return DegradationMiddleware(alone(app, resilience, **settings), resilience)


@pytest.fixture(params=[alone, composed, errors_inside, errors_outside, degradation_inside, degradation_outside])
def wrap(request: pytest.FixtureRequest) -> Callable[..., Any]:
    """The middleware by itself, in the one that does all, and inside and outside of others."""
    return request.param  # type: ignore[no-any-return]


# -- when it is served ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("how", "cause"),
    [
        (ValueError(SECRET), "ValueError"),
        (CircuitOpen(SECRET), "circuit_open"),
        (BulkheadFull(SECRET), "bulkhead_full"),
        (DeadlineExceeded(SECRET), "deadline"),
        (ExceptionGroup("both", [ValueError(SECRET)]), "ExceptionGroup"),
        (500, "status_500"),
        (502, "status_502"),
        (503, "status_503"),
        (504, "status_504"),
    ],
)
async def test_pitfall_1_an_error_is_answered_by_the_last_good_answer_once(
    wrap: Any, how: Any, cause: str, resilience: Resilience, listener: RecordingListener, clock: FakeClock, ask: Any
) -> None:
    page = Page(content_type="text/plain", x_version="7")
    app = wrap(page, resilience)
    await ask(app, "/a")
    clock.advance(12.5)
    page.fails(how)
    answer = await ask(app, "/a")
    assert [message["type"] for message in answer.messages] == ["http.response.start", "http.response.body"]
    assert (answer.status, answer.body) == (200, b"the page")
    assert answer.header("age") == ["12"]
    assert answer.header("content-type") == ["text/plain"] and answer.header("x-version") == ["7"]
    assert answer.header("content-length") == ["8"]
    assert answer.header("degraded") == ["response;level=reduced"]
    assert answer.header("cache-status") == []
    assert "hunter2" not in repr(answer.messages)
    (told,) = listener.of(FeatureDegraded)
    assert (told.feature, told.level) == ("response", "reduced")
    # Where ours are mapped further in, what comes out is a status.
    assert told.cause == cause or told.cause in ("status_503", "status_504")
    assert [event.result for event in listener.of(CacheUsed)] == ["fallback"]
    assert page.asked == 2


@pytest.mark.parametrize("how", [400, 404, 429, 501, 505])
async def test_what_is_no_outage_is_passed_on(wrap: Any, how: int, resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = wrap(page, resilience)
    await ask(app, "/a")
    page.fails(how)
    assert (await ask(app, "/a")).status == how


async def test_the_statuses_may_be_chosen(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = alone(page, resilience, stale_statuses=(429, 503))
    await ask(app, "/a")
    page.fails(500)
    assert (await ask(app, "/a")).status == 500
    page.fails(429)
    assert (await ask(app, "/a")).status == 200


async def test_where_nothing_was_kept_the_error_is_as_it_was(
    wrap: Any, resilience: Resilience, listener: RecordingListener, ask: Any
) -> None:
    page = Page()
    app = wrap(page, resilience)
    page.error = error = ValueError("broken")
    with pytest.raises(ValueError, match="broken") as raised:
        await ask(app, "/a")
    assert raised.value is error
    page.error = None
    page.fails(503)
    answer = await ask(app, "/a")
    assert (answer.status, answer.body) == (503, b"out of order")
    assert [event.result for event in listener.of(CacheUsed)] == ["error", "error"]
    assert listener.of(FeatureDegraded) == []


@pytest.mark.parametrize("said", ["", "stale-if-error=60"])
async def test_the_window_ends(said: str, wrap: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    page = Page(cache_control=said) if said else Page()
    app = wrap(page, resilience, stale_if_error=0.0 if said else 60.0)
    await ask(app, "/a")
    page.fails(503)
    clock.advance(59.9)
    assert (await ask(app, "/a")).status == 200
    clock.advance(0.2)
    assert (await ask(app, "/a")).status == 503


async def test_the_window_is_capped(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    page = Page(cache_control="stale-if-error=100000")
    app = alone(page, resilience, max_stale=50.0)
    await ask(app, "/a")
    page.fails(503)
    clock.advance(51)
    assert (await ask(app, "/a")).status == 503


async def test_what_is_fresh_by_its_own_word_is_served_and_marked_too(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    page = Page(cache_control="s-maxage=10")
    app = alone(page, resilience, stale_if_error=0.0)
    await ask(app, "/a")
    page.fails(503)
    clock.advance(9)
    answer = await ask(app, "/a")
    assert answer.status == 200 and answer.header("degraded") == ["response;level=reduced"]
    clock.advance(1.1)
    assert (await ask(app, "/a")).status == 503


@pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=0", "no-cache", "must-revalidate, stale-if-error=900"])
async def test_nothing_is_served_stale_against_its_own_word(
    said: str, wrap: Any, resilience: Resilience, clock: FakeClock, ask: Any
) -> None:
    page = Page(cache_control=said, etag='"1"')
    app = wrap(page, resilience)
    await ask(app, "/a")
    page.fails(503)
    clock.advance(1)
    assert (await ask(app, "/a")).status == 503


@pytest.mark.parametrize("said", ["no-cache", "max-age=0", "no-store"])
async def test_a_request_that_wants_nothing_stale_gets_the_error(said: str, resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = alone(page, resilience)
    await ask(app, "/a")
    page.fails(503)
    assert (await ask(app, "/a", headers={"cache-control": said})).status == 503


async def test_without_a_window_nothing_is_kept_that_says_nothing(resilience: Resilience, ask: Any) -> None:
    page = Page()
    stale = StaleResponses()
    app = ResilienceMiddleware(page, resilience, stale=stale)
    await ask(app, "/a")
    assert stale.store.count == 0
    page.fails(503)
    assert (await ask(app, "/a")).status == 503


async def test_a_response_that_has_begun_is_broken_off_as_before(wrap: Any, resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = wrap(page, resilience)
    await ask(app, "/a")
    started = wrap(_breaks_off, resilience)
    with pytest.raises(OSError, match="gone") as raised:
        await ask(started, "/a")
    assert len(raised.value.conversation.starts) == 1  # type: ignore[attr-defined]
    assert len(raised.value.conversation.messages) == 2  # type: ignore[attr-defined]


async def _breaks_off(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"the ", "more_body": True})
    raise OSError("gone")


async def test_a_streamed_error_is_dropped_whole(wrap: Any, resilience: Resilience, ask: Any) -> None:
    failing = False

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 503 if failing else 200, "headers": []})
        for piece in (b"a", b"b", b"c"):
            await send({"type": "http.response.body", "body": piece, "more_body": True})
        await send({"type": "http.response.body"})

    wrapped = wrap(app, resilience)
    await ask(wrapped, "/a")
    failing = True
    answer = await ask(wrapped, "/a")
    assert (answer.status, answer.body) == (200, b"abc")
    assert len(answer.messages) == 2


# -- how it is marked -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [alone, composed])
async def test_causes_are_told_to_those_who_may_know(wrap: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    page = Page(cache_control="max-age=5, stale-if-error=600")
    app = wrap(page, resilience, expose_causes=True)
    await ask(app, "/a")
    clock.advance(65)
    page.fails(502)
    answer = await ask(app, "/a")
    (told,) = answer.header("cache-status")
    # The app's own time, of a millisecond or so, counts as age: `ttl` is the next lower whole number.
    assert re.fullmatch("response; fwd=stale; fwd-status=502; ttl=-6[01]; detail=stale-if-error", told)
    assert answer.header("degraded") == ["response;level=reduced;cause=status_502;age=65"]
    page.error = DeadlineExceeded("x")
    assert "fwd-status=504" in (await ask(app, "/a")).header("cache-status")[0]


@pytest.mark.parametrize("wrap", [alone, composed])
async def test_cache_status_is_for_trusted_peers(wrap: Any, resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = wrap(page, resilience, trusted=["10.0.0.0/8"], name="shop")
    await ask(app, "/a")
    page.fails(503)
    assert (await ask(app, "/a")).header("cache-status") == []
    (told,) = (await ask(app, "/a", client=("10.1.2.3", 7))).header("cache-status")
    assert re.fullmatch("shop; fwd=stale; fwd-status=503; ttl=(0|-1); detail=fallback", told)


async def test_the_name_is_the_operators(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = alone(page, resilience, name="catalog", degraded_header="X-Degraded")
    await ask(app, "/a")
    page.fails(503)
    assert (await ask(app, "/a")).header("x-degraded") == ["catalog;level=reduced"]


async def test_it_is_counted(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = composed(page, resilience)
    await ask(app, "/a")
    page.fails(503)
    await ask(app, "/a")
    metrics = resilience.metrics.render("")[0].decode()
    assert 'resilient_degraded_responses_total{cause="status_503",feature="response",level="reduced"} 1.0' in metrics
    assert 'resilient_cache_requests_total{dependency="",result="fallback"} 1.0' in metrics


async def test_a_good_answer_is_passed_on_as_it_is(wrap: Any, resilience: Resilience, ask: Any) -> None:
    answer = await ask(wrap(Page(x="1"), resilience), "/a")
    assert answer.messages == [
        {"type": "http.response.start", "status": 200, "headers": [(b"x", b"1")]},
        {"type": "http.response.body", "body": b"the page"},
    ]


async def test_a_date_of_the_apps_own_is_kept_and_none_is_added(resilience: Resilience, ask: Any) -> None:
    for page, dates in ((Page(), []), (Page(date="Sun, 06 Nov 1994 08:49:37 GMT"), ["Sun, 06 Nov 1994 08:49:37 GMT"])):
        app = alone(page, resilience, stale_if_error=10**12, max_stale=10**12)
        await ask(app, "/a")
        page.fails(503)
        assert (await ask(app, "/a")).header("date") == dates  # servers add theirs


async def test_the_real_error_is_not_hidden(wrap: Any, resilience: Resilience, ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    page = Page()
    app = wrap(page, resilience)
    await ask(app, "/a")
    page.error = ValueError("broken")
    with caplog.at_level(logging.ERROR, "resilient"):
        assert (await ask(app, "/a")).status == 200
    (record,) = caplog.records
    assert record.exc_info is not None and record.exc_info[1] is page.error
    caplog.clear()
    page.error = CircuitOpen("open")  # told as events
    with caplog.at_level(logging.ERROR, "resilient"):
        assert (await ask(app, "/a")).status == 200
    assert caplog.records == []


async def test_an_error_that_is_raised_after_its_answer_was_replaced_is_logged(
    resilience: Resilience, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    broken = False

    async def endpoint(request: Request) -> Response:
        if broken:
            raise ValueError("broken")
        return PlainTextResponse("good")

    app = alone(Starlette(routes=[Route("/a", endpoint)]), resilience)  # around Starlette's own 500
    await ask(app, "/a")
    broken = True
    with caplog.at_level(logging.ERROR, "resilient"):
        answer = await ask(app, "/a")
    assert (answer.status, answer.body) == (200, b"good")
    (record,) = caplog.records
    assert "broken" in str(record.exc_info)


# -- what the client asked ------------------------------------------------------------------------------------------


class Told:
    """What the admission's limit and the brownout are told, in the order in which they are."""

    def __init__(self, page: Page, resilience: Resilience, monkeypatch: pytest.MonkeyPatch, **settings: Any) -> None:
        self.limit: list[float] = []
        self.brownout: list[float] = []
        brownout = resilience.brownout
        assert brownout is not None
        self.app = composed(page, resilience, **settings)
        monkeypatch.setattr(type(self.app.door), "sample", lambda door, duration: self.limit.append(duration))
        monkeypatch.setattr(type(brownout), "observe", lambda brownout, seconds: self.brownout.append(seconds))


@pytest.mark.parametrize("kept", [True, False], ids=["an answer stands in", "nothing was kept"])
async def test_who_measures_the_load_is_told_of_the_apps_own_answer(
    kept: bool, clock: FakeClock, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the client is given instead is quick and good, and says nothing of how the app fares."""
    resilience, page = Resilience(clock=clock, brownout=Brownout(target=1.0)), Page()
    told = Told(page, resilience, monkeypatch)

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(2)
        await page(scope, receive, send)

    told.app.app = slow
    if kept:
        assert (await ask(told.app)).status == 200
        told.limit.clear()
        told.brownout.clear()
    page.fails(503)
    assert (await ask(told.app)).status == (200 if kept else 503)
    assert told.limit == [FAILED]
    assert told.brownout == [pytest.approx(2, abs=0.1)]


@pytest.mark.parametrize("kept", [True, False], ids=["an answer stands in", "nothing was kept"])
async def test_so_they_are_of_an_answer_that_was_never_given(
    kept: bool, clock: FakeClock, ask: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    resilience, page = Resilience(clock=clock, brownout=Brownout(target=1.0)), Page()
    told = Told(page, resilience, monkeypatch)
    if kept:
        assert (await ask(told.app)).status == 200
        told.limit.clear()
        told.brownout.clear()

    async def stuck(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(100)

    told.app.app = stuck
    assert (await ask(told.app)).status == (200 if kept else 504)
    assert told.limit == [DROPPED]
    assert told.brownout == [pytest.approx(30, abs=0.5)]


async def test_a_client_that_has_it_already_is_told_so(wrap: Any, resilience: Resilience, ask: Any) -> None:
    page = Page(etag='"7"', last_modified="Sun, 06 Nov 1994 08:49:37 GMT")
    app = wrap(page, resilience)
    await ask(app, "/a")
    page.fails(503)
    answer = await ask(app, "/a", headers={"if-none-match": 'W/"7"'})
    assert (answer.status, answer.body) == (304, b"")
    assert answer.header("etag") == ['"7"'] and answer.header("content-length") == []
    assert answer.header("degraded") == ["response;level=reduced"]
    assert (await ask(app, "/a", headers={"if-none-match": '"8"'})).status == 200
    assert (await ask(app, "/a", headers={"if-modified-since": "Sun, 06 Nov 1994 08:49:37 GMT"})).status == 304
    assert (await ask(app, "/a", headers={"if-match": '"8"'})).status == 503  # for the app to judge


async def test_head_is_answered_from_get(wrap: Any, resilience: Resilience, ask: Any) -> None:
    page = Page(content_type="text/plain")
    app = wrap(page, resilience)
    await ask(app, "/a", method="HEAD")
    page.fails(503)
    assert (await ask(app, "/a", method="HEAD")).status == 503
    page.status, page.body = 200, b"the page"
    await ask(app, "/a")
    page.fails(503)
    answer = await ask(app, "/a", method="HEAD")
    assert (answer.status, answer.body) == (200, b"")
    assert answer.header("content-length") == ["8"]


async def test_a_part_is_cut_from_the_whole(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = alone(page, resilience)
    await ask(app, "/a")
    page.fails(503)
    answer = await ask(app, "/a", headers={"range": "bytes=4-7"})
    assert (answer.status, answer.body) == (206, b"page")
    assert answer.header("content-range") == ["bytes 4-7/8"] and answer.header("content-length") == ["4"]


@pytest.mark.parametrize("kind", ["lifespan", "websocket"])
async def test_anything_but_http_passes_through(kind: str, resilience: Resilience) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def receive() -> Any:
        return {"type": "lifespan.shutdown"}

    async def send(message: Any) -> None: ...

    scope = {"type": kind}
    await alone(app, resilience)(scope, receive, send)
    assert seen[0][0] is scope and len(seen) == 1
    assert seen[0] == (scope, receive, send) or kind == "lifespan"  # which the service reads along


async def test_nothing_is_done_while_it_is_switched_off(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = alone(page, resilience)
    await ask(app, "/a")
    resilience.enabled = False
    page.fails(503)
    assert (await ask(app, "/a")).status == 503


# -- time -----------------------------------------------------------------------------------------------------------


def deadline_inside(app: Any, resilience: Resilience, **limits: Any) -> Any:
    return alone(DeadlineMiddleware(app, resilience, **limits), resilience)


def deadline_outside(app: Any, resilience: Resilience, **limits: Any) -> Any:
    return DeadlineMiddleware(alone(app, resilience), resilience, **limits)


def in_one(app: Any, resilience: Resilience, **limits: Any) -> Any:
    return ResilienceMiddleware(app, resilience, stale=StaleResponses(stale_if_error=300.0), **limits)


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("around", [deadline_inside, in_one])
async def test_an_answer_that_is_not_there_in_time_is_replaced(
    around: Any, hard: bool, resilience: Resilience, listener: RecordingListener, clock: FakeClock, ask: Any
) -> None:
    slow = False

    async def page(scope: Any, receive: Any, send: Any) -> None:
        if slow:
            await anyio.sleep(100)
        await PlainTextResponse("in time")(scope, receive, send)

    app = around(page, resilience, timeout=2.0, hard=hard)
    await ask(app, "/a")
    slow = True
    before = clock.now()
    answer = await ask(app, "/a")
    assert clock.now() - before < 3
    assert (answer.status, answer.body) == (200, b"in time")
    assert answer.header("degraded") == ["response;level=reduced"]
    (told,) = listener.of(FeatureDegraded)
    assert told.cause in ("deadline", "status_504")
    assert (await ask(app, "/never")).status == 504


async def test_a_deadline_outside_has_the_last_word(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(100)

    assert (await ask(deadline_outside(page, resilience, timeout=2.0), "/a")).status == 504


async def test_a_request_that_comes_too_late_is_answered_without_any_work(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app = in_one(page, resilience, trusted=lambda scope: True, max_expired=1.0)
    await ask(app, "/a")
    answer = await ask(app, "/a", headers={"x-request-timeout-ms": "5"})
    assert (answer.status, page.asked) == (200, 1)


# -- in real apps ---------------------------------------------------------------------------------------------------


async def around_it(request: Request, call_next: Any) -> Any:
    response = await call_next(request)
    response.headers["x-around"] = "1"
    return response


@pytest.mark.parametrize("order", ["inside", "outside", "both"])
@pytest.mark.parametrize("failure", ["raises", "answers"])
async def test_ground_47_with_base_http_middleware(order: str, failure: str, resilience: Resilience) -> None:
    broken = False

    async def endpoint(request: Request) -> Response:
        if not broken:
            return JSONResponse({"good": True})
        if failure == "raises":
            raise ValueError("broken")
        return JSONResponse({"good": False}, 503)

    app = Starlette(routes=[Route("/a", endpoint)])
    if order in ("inside", "both"):
        app.add_middleware(BaseHTTPMiddleware, dispatch=around_it)
    resilience.install(app, stale=StaleResponses(stale_if_error=60))
    if order in ("outside", "both"):
        app.add_middleware(BaseHTTPMiddleware, dispatch=around_it)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as user:
        assert (await user.get("/a")).json() == {"good": True}
        broken = True
        answer = await user.get("/a")
    assert (answer.status_code, answer.json()) == (200, {"good": True})
    assert answer.headers["degraded"] == "response;level=reduced"
    assert "x-around" in answer.headers


@pytest.mark.parametrize("sync", [True, False])
async def test_in_fastapi(sync: bool) -> None:
    app, resilience = FastAPI(), Resilience()  # in real time: there are threads
    resilience.install(app, stale=StaleResponses(stale_if_error=60, routes=["/product/{product}"]))
    broken: list[Exception] = []

    def work(product: str) -> dict[str, str]:
        for error in broken:
            raise error
        return {"product": product}

    async def later(product: str) -> dict[str, str]:
        return work(product)

    app.get("/product/{product}")(work if sync else later)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://shop") as user:
        assert (await user.get("/product/7")).json() == {"product": "7"}
        for error in (HTTPException(503), CircuitOpen("open"), ValueError("broken")):
            broken[:] = [error]
            answer = await user.get("/product/7")
            assert (answer.status_code, answer.json()) == (200, {"product": "7"})
            assert answer.headers["degraded"] == "response;level=reduced"
        broken[:] = [HTTPException(404)]
        assert (await user.get("/product/7")).status_code == 404


def test_with_the_test_client() -> None:
    resilience = Resilience()
    broken = False

    async def endpoint(request: Request) -> Response:
        if broken:
            raise ValueError("broken")
        return PlainTextResponse("good")

    app = Starlette(routes=[Route("/a", endpoint)])
    resilience.install(app, stale=StaleResponses(stale_if_error=60))
    with TestClient(app) as client:
        assert client.get("/a").text == "good"
        broken = True
        answer = client.get("/a")
        assert (answer.status_code, answer.text) == (200, "good")
        with pytest.raises(ValueError, match="broken"):
            client.get("/a?other")


@pytest.mark.parametrize("failing", [False, True])
async def test_ground_36_background_tasks_survive(failing: bool, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    done: list[str] = []
    broken = False

    async def mail() -> None:
        await anyio.sleep(60)  # longer than the request may take
        done.append("mailed")

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("text", 503 if broken else 200, background=BackgroundTask(mail))

    app = in_one(Starlette(routes=[Route("/a", endpoint)]), resilience, timeout=5.0)
    await ask(app, "/a")
    broken = failing
    answer = await ask(app, "/a")
    assert (answer.status, answer.body) == (200, b"text")
    assert done == ["mailed", "mailed"]


async def test_mounted_middleware_serves_once_and_the_outer_keeps_no_stale_answer(resilience: Resilience, ask: Any) -> None:
    broken = False

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("text", 503 if broken else 200)

    inner = StaleResponses(stale_if_error=300)
    outer = StaleResponses(stale_if_error=300)
    app = ResilienceMiddleware(Page(), resilience)
    inside = Starlette(routes=[Route("/a", endpoint)])
    resilience.install(inside, stale=inner)
    app = ResilienceMiddleware(Starlette(routes=[Mount("/in", inside)]), resilience, stale=outer)
    await ask(app, "/in/a")
    kept = outer.store.count
    broken = True
    outer.store.clear()  # type: ignore[attr-defined]
    answer = await ask(app, "/in/a")
    assert (answer.status, answer.body) == (200, b"text")
    assert answer.header("degraded") == ["response;level=reduced"]
    assert (kept, outer.store.count) == (1, 0)  # type: ignore[attr-defined]


# -- cancellation and back-pressure -----------------------------------------------------------------------------------


async def test_a_stream_is_passed_on_piece_by_piece_while_it_is_kept(resilience: Resilience, ask: Any) -> None:
    stale = StaleResponses(stale_if_error=60)
    sent: list[bytes] = []
    ahead: list[int] = []

    async def pieces() -> Any:
        for number in range(5):
            ahead.append(number - len(sent))
            yield b"%d" % number

    async def endpoint(request: Request) -> Response:
        return StreamingResponse(pieces())

    app = ResilienceMiddleware(Starlette(routes=[Route("/a", endpoint)]), resilience, stale=stale)

    async def receive() -> Any:
        await anyio.sleep_forever()

    async def send(message: Any) -> None:
        await anyio.sleep(0.001)
        if message.get("body"):
            sent.append(message["body"])

    scope = {
        "type": "http",
        "method": "GET",
        "path": "/a",
        "headers": [(b"host", b"shop")],
        "query_string": b"",
        "asgi": {"version": "3.0"},
    }
    await app(scope, receive, send)
    assert sent == [b"0", b"1", b"2", b"3", b"4"]
    assert ahead == [0] * 5
    assert stale.store.count == 1  # type: ignore[attr-defined]


@pytest.mark.parametrize("end", ["cancelled", "disconnected"])
async def test_an_answer_that_was_not_sent_to_its_end_is_not_kept_and_nothing_is_held(end: str, resilience: Resilience) -> None:
    stale = StaleResponses(stale_if_error=60)
    app = StaleResponseMiddleware(_endless, resilience)
    app.stale = stale

    async def receive() -> Any:
        await anyio.sleep_forever()

    count = 0
    with anyio.CancelScope() as scope:

        async def send(message: Any) -> None:
            nonlocal count
            count += 1
            await anyio.lowlevel.checkpoint()
            if count == 4:
                if end == "disconnected":
                    raise OSError("the client has gone")
                scope.cancel()
                await anyio.lowlevel.checkpoint()

        request = {"type": "http", "method": "GET", "path": "/a", "headers": [(b"host", b"shop")], "query_string": b""}
        if end == "disconnected":
            with pytest.raises(OSError, match="gone"):
                await app(request, receive, send)
        else:
            await app(request, receive, send)
    assert count == 4
    assert stale.store.count == 0  # type: ignore[attr-defined]
    assert stale.shelf._held == 0


async def _endless(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    while True:
        await send({"type": "http.response.body", "body": b"more", "more_body": True})


async def test_a_cancelled_request_gets_no_stale_answer(resilience: Resilience, ask: Any) -> None:
    waiting = anyio.Event()
    slow = False

    async def page(scope: Any, receive: Any, send: Any) -> None:
        if slow:
            waiting.set()
            await anyio.sleep_forever()
        await PlainTextResponse("good")(scope, receive, send)

    app = alone(page, resilience)
    await ask(app, "/a")
    slow = True
    answers: list[Any] = []

    async def user() -> None:
        answers.append(await ask(app, "/a"))

    async with anyio.create_task_group() as group:
        group.start_soon(user)
        await waiting.wait()
        group.cancel_scope.cancel()
    assert answers == []
