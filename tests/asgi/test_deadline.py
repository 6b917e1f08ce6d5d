"""The inbound deadline: who is bound by it, until when, and what the client hears."""

from __future__ import annotations

import math
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from resilient import Deadline, DeadlineExceeded, Resilience, current_deadline
from resilient.asgi import DeadlineMiddleware, ResilienceMiddleware
from resilient.context import DEADLINE
from resilient.events import DeadlinePassed
from resilient.testing import FakeClock, RecordingListener

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}


async def slow(scope: Any, receive: Any, send: Any) -> None:
    await anyio.sleep(1000)
    await send(START)
    await send(BODY)


def limits(listener: RecordingListener) -> list[tuple[str, str]]:
    return [(event.side, event.limit) for event in listener.of(DeadlinePassed)]


@pytest.fixture(params=[DeadlineMiddleware, ResilienceMiddleware])
def middleware(request: pytest.FixtureRequest) -> Any:
    """The aspect alone, and among the others: one behaviour."""
    return request.param


# -- up to the response's start -------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_request_has_thirty_seconds_and_is_then_answered_504(
    middleware: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    arrived = clock.now()
    answer = await ask(middleware(slow, resilience))
    assert 30 <= clock.now() - arrived <= 30 * (1 + 1 / 100)
    assert answer.status == 504
    assert answer.problem == {
        "type": "about:blank",
        "title": "Gateway Timeout",
        "status": 504,
        "detail": "The request took longer than it may.",
        "error": "http_response_timeout",
        "retry_after": 1,
    }
    assert limits(listener) == [("inbound", "inbound")]


@pytest.mark.anyio
async def test_the_app_is_cancelled_and_cleans_up(resilience: Resilience, ask: Any) -> None:
    cleaned = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await anyio.sleep(1000)
        finally:
            cleaned.append(True)

    assert (await ask(DeadlineMiddleware(app, resilience, timeout=1))).status == 504
    assert cleaned == [True]
    await anyio.sleep(0.001)  # nothing of the cancellation is left behind


@pytest.mark.anyio
async def test_an_answer_in_time_is_left_as_it_is(
    middleware: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.9)
        await send(START)
        await send(BODY)

    answer = await ask(middleware(app, resilience, timeout=1))
    assert answer.messages == [START, BODY]
    await anyio.sleep(10)
    assert answer.messages == [START, BODY]
    assert listener.events == []


@pytest.mark.anyio
async def test_the_body_may_take_as_long_as_it_likes_by_default(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(5):
            await anyio.sleep(20)
            await send({**BODY, "more_body": True})
        await send(BODY)

    assert (await ask(DeadlineMiddleware(app, resilience))).body == b"ok" * 6


@pytest.mark.anyio
async def test_without_a_timeout_there_is_no_limit(resilience: Resilience, ask: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_deadline())
        await slow(scope, receive, send)

    assert (await ask(DeadlineMiddleware(app, resilience, timeout=None))).status == 200
    assert seen == [None]


@pytest.mark.anyio
async def test_a_disabled_resilience_bounds_nothing(ask: Any, clock: FakeClock) -> None:
    resilience = Resilience(enabled=False, clock=clock)
    assert (await ask(ResilienceMiddleware(slow, resilience))).status == 200


# -- what the code inside sees --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_the_deadline_is_visible_inside_and_gone_afterwards(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    seen: list[Deadline | None] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_deadline())
        await anyio.sleep(3)
        assert current_deadline().remaining == pytest.approx(4)  # type: ignore[union-attr]
        await send(START)
        await send(BODY)

    arrived = clock.now()
    await ask(DeadlineMiddleware(app, resilience, timeout=7))
    (deadline,) = seen
    assert deadline is not None and deadline.inbound
    assert current_deadline() is None
    assert clock.now() == pytest.approx(arrived + 3)


@pytest.mark.anyio
async def test_an_outer_deadline_that_is_earlier_stays_in_force(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_deadline())
        await send(START)
        await send(BODY)

    outer = Deadline.after(5, clock)
    token = DEADLINE.set(outer)
    await ask(DeadlineMiddleware(app, resilience, timeout=30))
    DEADLINE.reset(token)
    assert seen == [outer]
    assert outer.remaining == 5


@pytest.mark.anyio
async def test_once_lifted_an_outer_deadline_holds_again(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_deadline().remaining)  # type: ignore[union-attr]
        await send(START)
        seen.append(current_deadline().remaining)  # type: ignore[union-attr]
        await send(BODY)

    inner = DeadlineMiddleware(app, resilience, timeout=10)
    await ask(DeadlineMiddleware(inner, resilience, timeout=20, body=True))
    assert seen == [10, 20]


@pytest.mark.anyio
async def test_ground_46_a_sync_endpoint_sees_the_deadline(ask: Any) -> None:
    seen = []

    def endpoint(request: Request) -> Response:
        seen.append(current_deadline())
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", endpoint)])
    assert (await ask(ResilienceMiddleware(app, Resilience(), timeout=20))).status == 200
    (deadline,) = seen
    assert deadline is not None and deadline.inbound


# -- ground 36, 37, 50: what lives on -------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("body", [False, True])
async def test_ground_36_background_tasks_survive_and_may_call_out(
    middleware: Any, resilience: Resilience, clock: FakeClock, body: bool, ask: Any
) -> None:
    done = []

    async def background() -> None:
        await anyio.sleep(100)
        done.append(current_deadline().remaining)  # type: ignore[union-attr]

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(background))

    app = Starlette(routes=[Route("/", endpoint)])
    answer = await ask(middleware(app, resilience, timeout=1, body=body))
    assert answer.body == b"ok"
    assert done == [math.inf]


@pytest.mark.anyio
async def test_a_task_started_in_time_is_not_bound_once_the_response_has_begun(resilience: Resilience, ask: Any) -> None:
    seen = []

    async def later(deadline_seen: anyio.Event) -> None:
        seen.append(current_deadline().remaining)  # type: ignore[union-attr]
        deadline_seen.set()
        await anyio.sleep(50)
        seen.append(current_deadline().remaining)  # type: ignore[union-attr]

    async with anyio.create_task_group() as tasks:

        async def app(scope: Any, receive: Any, send: Any) -> None:
            started = anyio.Event()
            tasks.start_soon(later, started)
            await started.wait()
            await send(START)
            await send(BODY)

        await ask(DeadlineMiddleware(app, resilience, timeout=10))
    assert seen == [10, math.inf]


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["websocket", "lifespan"])
async def test_ground_37_50_websockets_and_lifespan_are_untouched(middleware: Any, resilience: Resilience, kind: str) -> None:
    given: list[Any] = []

    async def app(*arguments: Any) -> None:
        given.extend(arguments)
        assert current_deadline() is None
        await anyio.sleep(100)
        raise KeyError("from the app")

    async def receive() -> Any: ...
    async def send(message: Any) -> None: ...

    scope = {"type": kind} if kind == "lifespan" else {"type": kind, "path": "/ws", "headers": []}
    untouched = {**scope}
    with pytest.raises(KeyError, match="from the app"):
        await middleware(app, resilience, timeout=1)(scope, receive, send)
    assert given[0] is scope
    # With the lifespan of the app begins and ends what the service does besides: it reads along.
    assert given == [scope, receive, send] or kind == "lifespan"
    assert scope == untouched


# -- the body under the deadline too --------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_ground_38_a_body_that_takes_too_long_is_broken_off_without_a_second_start(
    middleware: Any, resilience: Resilience, listener: RecordingListener, ask: Any
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while True:
            await send({**BODY, "more_body": True})
            await anyio.sleep(1)

    with pytest.raises(DeadlineExceeded) as caught:
        await ask(middleware(app, resilience, timeout=2.5, body=True))
    assert caught.value.reason == "inbound"
    answer = caught.value.conversation  # type: ignore[attr-defined]
    assert len(answer.starts) == 1
    assert answer.body == b"okokok"
    assert limits(listener) == [("inbound", "inbound")]


@pytest.mark.anyio
@pytest.mark.parametrize(
    "start",
    [
        {**START, "status": 101},
        {**START, "headers": [(b"Content-Type", b"text/event-stream; charset=utf-8")]},
    ],
    ids=["101", "event-stream"],
)
async def test_upgrades_and_event_streams_are_never_broken_off(resilience: Resilience, start: Any, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(start)
        await anyio.sleep(100)
        await send(BODY)

    assert (await ask(DeadlineMiddleware(app, resilience, timeout=1, body=True))).body == b"ok"


@pytest.mark.anyio
async def test_another_content_type_is_broken_off(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({**START, "headers": [(b"x-y", b"z"), (b"content-type", b"text/plain")]})
        await anyio.sleep(100)

    with pytest.raises(DeadlineExceeded):
        await ask(DeadlineMiddleware(app, resilience, timeout=1, body=True))


@pytest.mark.anyio
async def test_a_file_sent_by_the_server_ends_the_body(resilience: Resilience, ask: Any) -> None:
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send({"type": "http.response.pathsend", "path": "/dev/null"})
        await anyio.sleep(100)
        done.append(True)

    await ask(DeadlineMiddleware(app, resilience, timeout=1, body=True))
    assert done == [True]


@pytest.mark.anyio
async def test_trailers_after_the_last_chunk_pass(resilience: Resilience, ask: Any) -> None:
    trailers = {"type": "http.response.trailers", "headers": []}

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        await anyio.sleep(5)
        await send(trailers)

    assert (await ask(DeadlineMiddleware(app, resilience, timeout=1, body=True))).messages == [START, BODY, trailers]


# -- to the outbound side -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_outbound_calls_end_in_time_for_the_reply(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    search = resilience.dependency("search", timeout=20)
    ended = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        try:
            await search.call(anyio.sleep, 100)
        except DeadlineExceeded as error:
            ended.append((error.reason, clock.now() - arrived))
            raise

    arrived = clock.now()
    answer = await ask(ResilienceMiddleware(app, resilience, timeout=2))
    assert answer.status == 504
    ((reason, at),) = ended
    assert reason == "inbound"
    assert 1.9 < at < 2


@pytest.mark.anyio
async def test_outbound_calls_after_the_response_are_not_bound_by_it(resilience: Resilience, ask: Any) -> None:
    search = resilience.dependency("search", timeout=20)
    done = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        await send(BODY)
        await search.call(anyio.sleep, 10)
        done.append(True)

    await ask(ResilienceMiddleware(app, resilience, timeout=2))
    assert done == [True]
