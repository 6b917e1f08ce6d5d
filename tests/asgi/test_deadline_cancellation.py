"""Past the deadline: apps that cannot or will not be cancelled, and cancellations that are not ours."""

from __future__ import annotations

import asyncio
import gc
import logging
import threading
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.to_thread
import pytest
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from resilient import CircuitOpen, Resilience
from resilient.asgi import DeadlineMiddleware, ResilienceMiddleware
from resilient.events import DeadlinePassed
from resilient.testing import FakeClock, RecordingListener
from resilient.wheel import _wheel

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}


def limits(listener: RecordingListener) -> list[tuple[str, str]]:
    return [(event.side, event.limit) for event in listener.of(DeadlinePassed)]


@pytest.fixture
def hard(anyio_backend: Any) -> bool:
    """Whether the client can be answered before the app has ended."""
    return "asyncio" in anyio_backend


async def stubborn(scope: Any, receive: Any, send: Any) -> None:
    with anyio.CancelScope(shield=True):
        await anyio.sleep(10)
        await send(START)
        await send(BODY)


# -- hard -----------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("middleware", [DeadlineMiddleware, ResilienceMiddleware])
async def test_ground_39_an_app_that_cannot_be_cancelled_is_answered_for_in_time_and_held_to_its_end(
    middleware: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, hard: bool, ask: Any
) -> None:
    arrived = clock.now()
    answer = await ask(middleware(stubborn, resilience, timeout=1), now=clock.now)
    assert clock.now() - arrived == pytest.approx(10)
    if hard:
        assert answer.status == 504
        assert answer.problem["error"] == "http_response_timeout"
        assert [at - arrived for at in answer.times] == pytest.approx([1, 1], abs=0.02)
        assert limits(listener) == [("inbound", "inbound")]
    else:
        assert answer.messages == [START, BODY]
        assert limits(listener) == [("inbound", "late")]


@pytest.mark.anyio
async def test_a_soft_deadline_lets_it_answer_late(resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    answer = await ask(DeadlineMiddleware(stubborn, resilience, timeout=1, hard=False))
    assert answer.messages == [START, BODY]
    assert limits(listener) == [("inbound", "late")]


@pytest.mark.anyio
async def test_an_app_that_swallows_the_cancellation_and_says_nothing_is_answered_for(
    resilience: Resilience, listener: RecordingListener, ask: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(10)

    answer = await ask(DeadlineMiddleware(app, resilience, timeout=1, hard=False))
    assert answer.status == 504
    assert limits(listener) == [("inbound", "inbound")]


class Sync:
    """A synchronous endpoint that runs until it is let go."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.entered = threading.Event()
        self.ended = threading.Event()

    def __call__(self, request: Request) -> Response:
        self.entered.set()
        assert self.go.wait(10)
        self.ended.set()
        return PlainTextResponse("late")


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_ground_39_a_sync_endpoint_is_answered_504_while_its_thread_runs(ask: Any) -> None:
    endpoint = Sync()
    inner = Starlette(routes=[Route("/", endpoint.__call__)])
    answered = anyio.Event()
    in_progress = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        in_progress.append(True)
        try:
            await inner(scope, receive, send)
        finally:
            in_progress.pop()

    async def tell(scope: Any, receive: Any, send: Any) -> None:
        async def told(message: Any) -> None:
            await send(message)
            if message["type"] == "http.response.body":
                answered.set()

        await ResilienceMiddleware(app, Resilience(), timeout=0.05)(scope, receive, told)

    result = []

    async def client() -> None:
        result.append(await ask(tell))

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(client)
        with anyio.fail_after(5):
            await answered.wait()
        assert in_progress and not endpoint.ended.is_set()
        endpoint.go.set()
    assert endpoint.ended.is_set() and not in_progress
    (answer,) = result
    assert answer.status == 504
    assert len(answer.messages) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_the_504_is_sent_in_the_context_of_its_own_request(resilience: Resilience, ask: Any) -> None:
    request_id: ContextVar[str] = ContextVar("request_id")
    inner = DeadlineMiddleware(stubborn, resilience, timeout=1)
    seen: dict[str, set[str]] = {}

    async def outer(scope: Any, receive: Any, send: Any) -> None:
        async def marked(message: Any) -> None:
            seen.setdefault(scope["path"], set()).add(request_id.get())
            await send(message)

        request_id.set(scope["path"])
        await inner(scope, receive, marked)

    async with anyio.create_task_group() as tasks:
        for number in range(3):
            tasks.start_soon(ask, outer, f"/{number}")
    assert seen == {f"/{number}": {f"/{number}"} for number in range(3)}


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_an_app_that_streams_on_after_its_504_is_stopped_by_its_next_message(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(10)
        await send(START)
        while True:
            await send({**BODY, "more_body": True})

    answer = await ask(DeadlineMiddleware(app, resilience, timeout=1))
    assert answer.status == 504
    assert len(answer.messages) == 2


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize(("error", "logged"), [(RuntimeError("lost"), True), (CircuitOpen("x"), False)])
async def test_what_the_app_raises_after_its_504_is_logged_and_breaks_no_connection(
    error: Exception, logged: bool, resilience: Resilience, caplog: pytest.LogCaptureFixture, ask: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(10)
        raise error

    with caplog.at_level(logging.ERROR, logger="resilient"):
        answer = await ask(DeadlineMiddleware(app, resilience, timeout=1))
    assert answer.status == 504
    assert [(record.message, record.exc_info[1], record.route) for record in caplog.records if record.exc_info] == (  # type: ignore[attr-defined]
        [("the app failed after its deadline had been answered", error, "unmatched")] if logged else []
    )


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_504_that_cannot_be_sent_is_the_servers_to_know(resilience: Resilience, caplog: pytest.LogCaptureFixture) -> None:
    async def send(message: Any) -> None:
        raise OSError("client gone")

    scope = {"type": "http", "method": "GET", "headers": []}
    with pytest.raises(OSError, match="client gone"):
        await DeadlineMiddleware(stubborn, resilience, timeout=1)(scope, None, send)
    assert not caplog.records


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_a_request_given_up_while_its_504_is_being_sent_leaves_nothing_behind(resilience: Resilience) -> None:
    sending = asyncio.Event()

    async def send(message: Any) -> None:
        sending.set()
        await asyncio.sleep(1000)

    scope = {"type": "http", "method": "GET", "headers": []}
    serving = asyncio.create_task(DeadlineMiddleware(stubborn, resilience, timeout=1)(scope, None, send))  # type: ignore[arg-type]
    await sending.wait()
    before = asyncio.all_tasks()
    serving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await serving
    await asyncio.sleep(0)
    assert len(before - asyncio.all_tasks()) == 2  # the request and its answer


# -- cancellations and errors that are not ours ---------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("error", [TimeoutError("the app's own"), KeyError("bug")])
async def test_the_apps_own_timeout_passes(error: Exception, resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise error

    with pytest.raises(type(error)) as caught:
        await ask(ResilienceMiddleware(app, resilience))
    assert caught.value is error
    assert listener.events == []


@pytest.mark.anyio
async def test_pitfall_12_the_apps_own_scope_stays_its_own(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.move_on_after(1) as mine:
            await anyio.sleep(100)
        await send({**START, "status": 200 if mine.cancelled_caught else 500})
        await send(BODY)

    assert (await ask(ResilienceMiddleware(app, resilience, timeout=5))).status == 200


@pytest.mark.anyio
async def test_a_cancellation_from_further_out_passes(resilience: Resilience, listener: RecordingListener, ask: Any) -> None:
    with anyio.move_on_after(1) as outer:
        await ask(ResilienceMiddleware(stubborn_to_us, resilience, timeout=5))
    assert outer.cancelled_caught
    assert listener.events == []


async def stubborn_to_us(scope: Any, receive: Any, send: Any) -> None:
    await anyio.sleep(100)


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("when", [1.0, 2.0])
async def test_a_native_cancellation_passes_even_together_with_ours(when: float, resilience: Resilience, ask: Any) -> None:
    """At 2.0 the server's shutdown and our deadline meet."""
    serving = asyncio.ensure_future(ask(ResilienceMiddleware(stubborn_to_us, resilience, timeout=2, hard=False)))
    asyncio.get_running_loop().call_later(when, serving.cancel)
    if when == 2.0:
        await asyncio.sleep(1.5)
        (slot,) = [slot for slot in _wheel(asyncio.get_running_loop()).slots.values() if slot]
        (exchange,) = slot
        asyncio.get_running_loop().call_later(0.5, exchange.cancel)
    with pytest.raises(asyncio.CancelledError):
        await serving


@pytest.mark.anyio
async def test_ground_47_inside_and_outside_of_a_base_http_middleware(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    class Passing(BaseHTTPMiddleware):
        async def dispatch(self, request: Request, call_next: Any) -> Response:
            response: Response = await call_next(request)
            return response

    async def endpoint(request: Request) -> Response:
        await anyio.sleep(float(request.query_params.get("s", "0")))
        return PlainTextResponse("ok")

    ours = Middleware(ResilienceMiddleware, resilience, timeout=1)
    for stack in ([ours, Middleware(Passing)], [Middleware(Passing), ours]):
        app = Starlette(routes=[Route("/", endpoint)], middleware=stack)
        assert (await ask(app)).body == b"ok"
        answer = await ask(app, query_string=b"s=100")
        assert answer.status == 504
        assert answer.problem["title"] == "Gateway Timeout"


# -- nothing is left behind -----------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_no_request_stays_on_the_timer_wheel(resilience: Resilience, ask: Any) -> None:
    async def fine(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)

    async def silent(scope: Any, receive: Any, send: Any) -> None: ...

    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("x")

    async def refused(scope: Any, receive: Any, send: Any) -> None:
        raise CircuitOpen("x")

    for app in (fine, silent, failing, refused, stubborn_to_us):
        for body in (False, True):
            try:
                await ask(ResilienceMiddleware(app, resilience, timeout=1, body=body))
            except KeyError:
                assert app is failing
    gc.collect()
    assert not [slot for slot in _wheel(asyncio.get_running_loop()).slots.values() if slot]


@pytest.mark.anyio
async def test_many_requests_at_once_each_have_their_own_deadline(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(float(scope["path"][1:]))
        await send(START)
        await send(BODY)

    statuses: dict[int, int] = {}

    async def one(number: int) -> None:
        statuses[number] = (await ask(bounded, f"/{number}")).status

    bounded = ResilienceMiddleware(app, resilience, timeout=50.5)
    async with anyio.create_task_group() as tasks:
        for number in range(100):
            tasks.start_soon(one, number)
    assert statuses == {number: 200 if number <= 50 else 504 for number in range(100)}
