"""Errors of this library that escape the app: what the client is told, and what it is not."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

import resilient.httpx
import resilient.httpx2
from resilient import (
    AllTargetsFailed,
    BulkheadFull,
    CircuitOpen,
    DeadlineExceeded,
    Overloaded,
    RateLimited,
    Rejected,
    Resilience,
    ResilienceError,
    SpendExceeded,
)
from resilient.asgi import ErrorMiddleware, ResilienceMiddleware
from resilient.asgi.errors import ErrorMapping

START = {"type": "http.response.start", "status": 200, "headers": []}
SECRET = "redis://:password=hunter2@10.0.0.1"
UNAVAILABLE = "A service that this one needs is unavailable."
LATE = "A service that this one needs did not answer in time."


@pytest.fixture(params=[ErrorMiddleware, ResilienceMiddleware])
def middleware(request: pytest.FixtureRequest) -> Any:
    return request.param


def raising(error: BaseException) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    return app


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("kind", "status", "title", "token", "detail"),
    [
        (CircuitOpen, 503, "Service Unavailable", "destination_unavailable", UNAVAILABLE),
        (BulkheadFull, 503, "Service Unavailable", "connection_limit_reached", UNAVAILABLE),
        (RateLimited, 503, "Service Unavailable", "connection_limit_reached", UNAVAILABLE),
        (SpendExceeded, 503, "Service Unavailable", "http_request_denied", UNAVAILABLE),
        (Overloaded, 503, "Service Unavailable", "connection_limit_reached", UNAVAILABLE),
        (Rejected, 503, "Service Unavailable", "destination_unavailable", UNAVAILABLE),
        (DeadlineExceeded, 504, "Gateway Timeout", "http_response_timeout", LATE),
        (AllTargetsFailed, 503, "Service Unavailable", "destination_unavailable", UNAVAILABLE),
        (ResilienceError, 503, "Service Unavailable", "proxy_internal_error", UNAVAILABLE),
        (resilient.httpx.CircuitOpen, 503, "Service Unavailable", "destination_unavailable", UNAVAILABLE),
        (resilient.httpx2.DeadlineExceeded, 504, "Gateway Timeout", "http_response_timeout", LATE),
    ],
)
async def test_ground_40_an_error_that_escapes_is_told_and_is_no_500(
    middleware: Any, kind: type[ResilienceError], status: int, title: str, token: str, detail: str, resilience: Resilience, ask: Any
) -> None:
    answer = await ask(middleware(raising(kind(SECRET, dependency="billing", reason="outage")), resilience))
    assert answer.status == status
    problem = answer.problem
    problem.pop("retry_after", None)
    assert problem == {"type": "about:blank", "title": title, "status": status, "detail": detail, "error": token}


@pytest.mark.anyio
async def test_pitfall_12_no_exception_text_and_no_name_leaks(middleware: Any, resilience: Resilience, ask: Any) -> None:
    error = CircuitOpen(SECRET, dependency="billing", policy="breaker", reason="outage")
    error.__cause__ = OSError(SECRET)
    answer = await ask(middleware(raising(error), resilience))
    told = repr(answer.messages)
    assert "hunter2" not in told and "billing" not in told and "outage" not in told


@pytest.mark.anyio
async def test_the_dependency_is_named_when_causes_are_exposed(middleware: Any, resilience: Resilience, ask: Any) -> None:
    answer = await ask(middleware(raising(CircuitOpen(SECRET, dependency="billing")), resilience, expose_causes=True))
    assert answer.problem["dependency"] == "billing"
    assert "hunter2" not in repr(answer.messages)


@pytest.mark.anyio
async def test_a_head_request_gets_the_headers_alone(resilience: Resilience, ask: Any) -> None:
    answer = await ask(ErrorMiddleware(raising(CircuitOpen("x")), resilience), method="HEAD")
    assert answer.status == 503
    assert answer.body == b""
    assert int(answer.header("content-length")[0]) > 0


# -- Retry-After ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "least", "most"),
    [
        (CircuitOpen("x", retry_after=0.2), 1, 2),
        (CircuitOpen("x", retry_after=1.0), 1, 2),
        (CircuitOpen("x", retry_after=1.01), 2, 3),
        (CircuitOpen("x", retry_after=60.0), 60, 72),
        (CircuitOpen("x", retry_after=-5.0), 1, 1),
        (CircuitOpen("x"), 1, 2),
        (CircuitOpen("x", retry_after=math.inf), None, None),
        (CircuitOpen("x", retry_after=math.nan), None, None),
        (BulkheadFull("x"), 1, 2),
        (Overloaded("x"), 1, 2),
        (DeadlineExceeded("x"), 1, 2),
        (DeadlineExceeded("x", retry_after=3), 3, 4),
        (AllTargetsFailed("x"), 1, 2),
        (AllTargetsFailed("x", causes=(CircuitOpen("x", retry_after=9), CircuitOpen("x", retry_after=4), OSError())), 4, 5),
        (AllTargetsFailed("x", causes=(CircuitOpen("x", retry_after=9),), retry_after=2), 2, 3),
    ],
)
def test_retry_after_is_whole_rounded_up_and_spread_upward(error: ResilienceError, least: int | None, most: int | None) -> None:
    def at(chance: float) -> int | None:
        problem = ErrorMapping(chance=lambda: chance).problem(error)
        assert problem is not None
        return problem.retry_after

    assert at(0.0) == least
    assert at(1 - 1e-9) == most


@pytest.mark.anyio
async def test_retry_after_stands_in_the_header_and_in_the_problem(resilience: Resilience, ask: Any) -> None:
    answer = await ask(ErrorMiddleware(raising(CircuitOpen("x", retry_after=7)), resilience))
    (told,) = answer.header("retry-after")
    assert answer.problem["retry_after"] == int(told)
    assert 7 <= int(told) <= 9


def test_callers_are_spread() -> None:
    mapping = ErrorMapping()
    told = {mapping.problem(CircuitOpen("x", retry_after=100)).retry_after for _ in range(200)}  # type: ignore[union-attr]
    assert len(told) > 10


# -- groups ---------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_group_of_nothing_but_ours_is_told_as_its_first(resilience: Resilience, ask: Any) -> None:
    group = ExceptionGroup("tasks", [ExceptionGroup("more", [DeadlineExceeded("x")]), CircuitOpen("x")])
    assert (await ask(ErrorMiddleware(raising(group), resilience))).status == 504


@pytest.mark.anyio
@pytest.mark.parametrize("other", [KeyError("bug"), GeneratorExit()])
async def test_a_group_with_anything_else_in_it_is_raised(other: BaseException, resilience: Resilience, ask: Any) -> None:
    group = BaseExceptionGroup("tasks", [CircuitOpen("x"), other])
    with pytest.raises(BaseExceptionGroup) as caught:
        await ask(ErrorMiddleware(raising(group), resilience))
    assert caught.value is group


# -- whose errors, and when -----------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize(
    "error",
    [
        KeyError("bug"),
        TimeoutError("the app's own"),
        httpx.ConnectError("the app's own client"),
        httpx.HTTPStatusError("503", request=httpx.Request("GET", "http://x"), response=httpx.Response(503)),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_errors_that_are_not_ours_are_raised_as_they_are(middleware: Any, error: Exception, resilience: Resilience, ask: Any) -> None:
    with pytest.raises(type(error)) as caught:
        await ask(middleware(raising(error), resilience))
    assert caught.value is error
    assert caught.value.conversation.messages == []  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_ground_38_after_the_start_the_error_is_raised_on(middleware: Any, resilience: Resilience, ask: Any) -> None:
    error = CircuitOpen("x")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        raise error

    with pytest.raises(CircuitOpen) as caught:
        await ask(middleware(app, resilience))
    assert caught.value is error
    assert caught.value.conversation.messages == [START]  # type: ignore[attr-defined]


@pytest.mark.anyio
async def test_a_disabled_resilience_maps_nothing(ask: Any) -> None:
    with pytest.raises(CircuitOpen):
        await ask(ErrorMiddleware(raising(CircuitOpen("x")), Resilience(enabled=False)))


def endpoint_raising(error: Exception) -> Callable[[Request], Any]:
    async def endpoint(request: Request) -> Response:
        raise error

    return endpoint


@pytest.mark.anyio
async def test_ground_40_in_starlette_and_without_a_trace_of_the_debugger(resilience: Resilience, ask: Any) -> None:
    app = Starlette(debug=True, routes=[Route("/", endpoint_raising(CircuitOpen(SECRET)))])
    resilience.install(app)
    assert (await ask(app)).problem["error"] == "destination_unavailable"


@pytest.mark.anyio
@pytest.mark.parametrize("handled", [CircuitOpen, ResilienceError])
async def test_ground_41_a_handler_of_the_app_wins(handled: type[Exception], resilience: Resilience, ask: Any) -> None:
    async def handler(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", status_code=418)

    app = Starlette(routes=[Route("/", endpoint_raising(CircuitOpen("x")))], exception_handlers={handled: handler})
    resilience.install(app)
    answer = await ask(app)
    assert (answer.status, answer.body) == (418, b"sorry")
