"""A service that takes leave, in virtual time: what requests meet, who is waited for, and what is told."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Any

import anyio
import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route
from starlette.testclient import TestClient

from resilient import Resilience
from resilient.asgi import Admission, Drain, DrainMiddleware, MetricsMiddleware, ResilienceMiddleware
from resilient.events import DrainChanged, DrainHookFailed, RequestShed
from resilient.testing import FakeClock, RecordingListener

pytestmark = pytest.mark.anyio


def told(listener: RecordingListener) -> list[tuple[str, int]]:
    return [(event.what, event.in_flight) for event in listener.of(DrainChanged)]


class Page:
    """An app whose requests last as long as their path says."""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await anyio.sleep(float(scope["path"].strip("/") or 0))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"connection", b"keep-alive")]})
        await send({"type": "http.response.body", "body": b"ok"})


@pytest.fixture(params=[DrainMiddleware, ResilienceMiddleware])
def served(request: pytest.FixtureRequest, resilience: Resilience) -> Any:
    return request.param(Page(), resilience)


async def settled() -> None:
    await anyio.wait_all_tasks_blocked()


# -- phases -----------------------------------------------------------------------------------------------------------


async def test_at_first_all_are_served_and_told_to_close(served: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    assert (await ask(served)).header("connection") == ["keep-alive"]
    resilience.drain(delay=5, by="ann", why="rotation")
    assert resilience.draining and resilience.drain_begun.is_set() and not resilience.drain_closing.is_set()
    for _ in range(4):
        answer = await ask(served)
        assert (answer.status, answer.header("connection")) == (200, ["close"])
        await anyio.sleep(1)


async def test_then_new_work_is_turned_away(
    served: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    departure = resilience.drain(delay=5, budget=10, by="ann", why="rotation")
    await anyio.sleep(5)
    await settled()
    assert resilience.drain_closing.is_set()
    answer = await ask(served)
    assert answer.status == 503
    assert answer.header("connection") == ["close"]
    assert 1 <= int(answer.header("retry-after")[0]) <= 3
    assert answer.problem["error"] == "destination_unavailable"
    assert answer.problem["retry_after"] == int(answer.header("retry-after")[0])
    assert b"ann" not in answer.body and b"rotation" not in answer.body
    assert answer.header("x-envoy-overloaded") == []  # another try through the load balancer is of use
    assert (await ask(served, method="HEAD")).body == b""
    assert await departure is True
    shed = [(event.criticality, event.reason, event.enforced) for event in listener.of(RequestShed)]
    assert shed == [("critical", "draining", True)] * 2
    page = resilience.metrics.render("")[0].decode()
    assert 'resilient_requests_shed_total{criticality="critical",reason="draining"} 2.0' in page
    assert "resilient_draining 1.0" in page
    assert [(event.what, event.by, event.why) for event in listener.of(DrainChanged)] == [
        ("begun", "ann", "rotation"),
        ("closed", "ann", "rotation"),
        ("drained", "ann", "rotation"),
    ]


@pytest.mark.parametrize(("version", "expected"), [("1.1", ["close"]), ("1.0", ["close"]), ("2", []), ("3", [])])
async def test_connection_close_is_never_said_over_http_2(
    served: Any, resilience: Resilience, version: str, expected: list[str], clock: FakeClock, ask: Any
) -> None:
    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    served.app = silent
    resilience.drain(delay=5)
    assert (await ask(served, http_version=version)).header("connection") == expected
    await anyio.sleep(5)
    answer = await ask(served, http_version=version)
    assert (answer.status, answer.header("connection")) == (503, expected)


async def test_an_upgraded_connection_is_not_told_to_close(served: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    async def upgrading(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 101, "headers": [(b"connection", b"upgrade")]})
        await send({"type": "http.response.body"})

    served.app = upgrading
    resilience.drain(delay=5)
    assert (await ask(served)).header("connection") == ["upgrade"]


async def test_who_is_told_not_to_come_here_again(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    resilience.drain()
    assert (await ask(DrainMiddleware(Page(), resilience, not_here=True))).header("x-envoy-overloaded") == ["true"]


async def test_in_shadow_mode_all_are_let_in(resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any) -> None:
    served = DrainMiddleware(Page(), resilience, enforce=False)
    resilience.drain()
    assert (await ask(served)).status == 200
    assert [event.enforced for event in listener.of(RequestShed)] == [False]
    assert b'reason="shadow_draining"} 1.0' in resilience.metrics.render("")[0]


async def test_what_a_request_matters_is_told_of_those_turned_away(
    resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    served = ResilienceMiddleware(Page(), resilience, admission=Admission(criticality={"/search": "sheddable"}))
    resilience.drain()
    assert (await ask(served, "/search")).status == 503
    assert [event.criticality for event in listener.of(RequestShed)] == ["sheddable"]


async def test_without_the_aspect_nothing_is_refused(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    served = ResilienceMiddleware(Page(), resilience, drain=False)
    resilience.drain()
    answer = await ask(served)
    assert (answer.status, answer.header("connection")) == (200, ["keep-alive"])


async def test_while_all_is_switched_off_nothing_is_refused(served: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    resilience.enabled = False
    resilience.drain()
    assert (await ask(served)).status == 200


# -- what is always answered ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prefix", ["", "/internal"])
async def test_health_and_metrics_are_always_answered(prefix: str, ask: Any) -> None:
    app, resilience = FastAPI(), Resilience()
    resilience.install(app, prefix=prefix, drain=Drain(signals=(), exempt=["/livez", "/admin/{rest:path}"]))
    resilience.drain()
    assert (await ask(app, f"{prefix}/livez")).status == 200
    assert (await ask(app, f"{prefix}/metrics")).status == 200
    ready = await ask(app, f"{prefix}/readyz")
    assert (ready.status, b"draining" in ready.body) == (503, True)
    assert (await ask(app, "/admin/x")).status == 404
    assert (await ask(app, "/other")).status == 503


async def test_nobody_waits_for_who_only_asks_how_the_service_is(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    served = DrainMiddleware(Page(), resilience, exempt=["/100"])
    async with anyio.create_task_group() as group:
        group.start_soon(ask, served, "/100")
        await settled()
        assert await resilience.drain() is True
        group.cancel_scope.cancel()


# -- what is under way ------------------------------------------------------------------------------------------------


async def test_what_is_under_way_ends_in_time(
    served: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    answers: list[Any] = []

    async def one(path: str) -> None:
        answers.append(await ask(served, path))

    async with anyio.create_task_group() as group:
        for seconds in (3, 8):
            group.start_soon(one, f"/{seconds}")
        await settled()
        began = clock.now()
        assert await resilience.drain(delay=2, budget=10) is True
        assert 8 <= clock.now() - began < 8.2
    assert [(answer.status, answer.header("connection")) for answer in answers] == [(200, ["close"])] * 2
    assert told(listener) == [("begun", 2), ("closed", 2), ("drained", 0)]


async def test_what_does_not_is_told_and_not_killed(
    resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any, caplog: Any
) -> None:
    caplog.set_level("INFO", "resilient")
    ended: list[int] = []

    async def slow(request: Request) -> Response:
        await anyio.sleep(25)
        ended.append(1)
        return PlainTextResponse("late")

    app = Starlette(routes=[Route("/orders/{id}", slow)])
    resilience.install(app, timeout=None)
    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(ask, app, f"/orders/{number}")
        await settled()
        began = clock.now()
        assert await resilience.drain(delay=1, budget=4) is False
        assert clock.now() - began == pytest.approx(5, abs=0.1)
        assert b"resilient_drain_in_flight 3.0" in resilience.metrics.render("")[0]
    assert ended == [1, 1, 1]
    (overdue,) = (event for event in listener.of(DrainChanged) if event.what == "overdue")
    assert (overdue.in_flight, overdue.routes) == (3, ("/orders/{id}",))
    (record,) = (record for record in caplog.records if record.levelname == "WARNING")
    assert record.message == "drain overdue, 3 requests under way (/orders/{id})"


async def test_a_request_in_several_middlewares_is_one(
    resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    inner = Starlette(routes=[Route("/{seconds}", anyio_sleep)])
    resilience.install(inner)
    app = DrainMiddleware(MetricsMiddleware(Starlette(routes=[Mount("/in", app=inner)]), resilience), resilience)
    async with anyio.create_task_group() as group:
        group.start_soon(ask, app, "/in/3")
        await settled()
        assert resilience.leaving.in_flight == 1
        assert await resilience.drain(delay=1) is True
    assert told(listener) == [("begun", 1), ("closed", 1), ("drained", 0)]


async def anyio_sleep(request: Request) -> Response:
    await anyio.sleep(float(request.path_params["seconds"]))
    return PlainTextResponse("ok")


async def test_what_was_let_in_further_out_is_not_refused_further_in(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    inner = ResilienceMiddleware(Page(), resilience)

    async def later(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(2)
        await inner(scope, receive, send)

    outer = DrainMiddleware(later, resilience)
    answers: list[Any] = []

    async def one() -> None:
        answers.append(await ask(outer))

    async with anyio.create_task_group() as group:
        group.start_soon(one)
        await settled()
        resilience.drain(delay=1)
    assert answers[0].status == 200


async def test_it_is_not_over_before_background_tasks_are(served: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})
        await anyio.sleep(6)

    served.app = app
    async with anyio.create_task_group() as group:
        group.start_soon(ask, served)
        await settled()
        began = clock.now()
        assert await resilience.drain() is True
        assert 6 <= clock.now() - began < 6.2


async def test_who_fails_or_is_cancelled_is_inside_no_more(served: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    async def failing(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError

    async with anyio.create_task_group() as group:
        group.start_soon(ask, served, "/100")
        await settled()
        group.cancel_scope.cancel()
    served.app = failing
    with pytest.raises(KeyError):
        await ask(served)
    assert resilience.leaving.inside == set()


# -- orders -----------------------------------------------------------------------------------------------------------


async def test_a_second_order_can_only_make_it_sooner(
    served: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    first = resilience.drain(delay=100, budget=100, by="ann")
    await anyio.sleep(1)
    began = clock.now()
    assert resilience.drain(delay=3, by="bob") is first
    resilience.drain(delay=50)
    assert await first is True
    assert clock.now() - began == pytest.approx(3, abs=0.1)
    assert [(event.what, event.by) for event in listener.of(DrainChanged)] == [("begun", "ann"), ("closed", "ann"), ("drained", "ann")]
    assert await resilience.drain() is True  # it is over, and stays so
    assert repr(first) == "<Departure drained>"


@pytest.mark.parametrize("after", [1.0, 10.0])
async def test_a_service_resumes(
    served: Any, after: float, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    departure = resilience.drain(delay=5)
    assert repr(departure) == "<Departure going on>"
    await anyio.sleep(after)
    resilience.resume(by="bob", why="back in rotation")
    assert not resilience.draining and not resilience.drain_begun.is_set() and not resilience.drain_closing.is_set()
    assert await departure is (after > 5)
    answer = await ask(served)
    assert (answer.status, answer.header("connection")) == (200, ["keep-alive"])
    last = listener.of(DrainChanged)[-1]
    assert (last.what, last.by, last.why) == ("resumed", "bob", "back in rotation")
    resilience.resume()
    assert listener.of(DrainChanged)[-1] is last
    assert await resilience.drain() is True
    assert (await ask(served)).status == 503


async def test_readiness_alone_may_be_set_by_hand(
    served: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    resilience.draining = True
    resilience.draining = True
    await anyio.sleep(1000)
    assert resilience.draining and (await ask(served)).status == 200
    assert told(listener) == [("begun", 0)]
    assert await resilience.drain(by="ann") is True
    assert (await ask(served)).status == 503
    resilience.draining = False
    assert (await ask(served)).status == 200


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("delay", wrong) for wrong in ("3", None, -1, float("nan"), True)),
        *(("budget", wrong) for wrong in ("3", -1, float("nan"), True)),
        *(("by", wrong) for wrong in (3, None, "x" * 501, "a\nb")),
        ("why", 3),
    ],
)
def test_a_wrong_order_is_told(name: str, value: Any) -> None:
    resilience = Resilience()
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        resilience.drain(**{name: value})
    assert not resilience.draining


def test_a_wrong_hook_is_told() -> None:
    resilience = Resilience()
    with pytest.raises(TypeError, match="^hook"):
        resilience.on_drain(3)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="^timeout"):
        resilience.on_drain(print, timeout=0)
    with pytest.raises(TypeError, match="^draining"):
        resilience.draining = 1  # type: ignore[assignment]


# -- hooks and moments --------------------------------------------------------------------------------------------------


async def test_hooks_are_called_as_soon_as_it_begins_and_waited_for(
    resilience: Resilience, clock: FakeClock, listener: RecordingListener
) -> None:
    called: list[tuple[str, float]] = []
    began = clock.now()

    @resilience.on_drain
    async def checkpoint() -> None:
        await anyio.sleep(3)
        called.append(("checkpoint", clock.now() - began))

    @resilience.on_drain(timeout=1)
    async def stuck() -> None:
        await anyio.sleep(1000)

    @resilience.on_drain
    async def broken() -> None:
        raise KeyError("no disk")

    assert await resilience.drain(budget=10) is True
    assert called == [("checkpoint", pytest.approx(3))]
    failed = [(event.hook.rpartition(".")[2], event.cause) for event in listener.of(DrainHookFailed)]
    assert failed == [("broken", "error"), ("stuck", "late")]
    assert resilience.leaving.hooks.errors == 2
    assert b'resilient_drain_hooks_failed_total{cause="late"} 1.0' in resilience.metrics.render("")[0]


@pytest.mark.parametrize("error", [SystemExit, KeyboardInterrupt, GeneratorExit])
async def test_a_plain_hook_that_ends_its_thread_has_failed_and_ends_nothing_else(
    error: type[BaseException], listener: RecordingListener, caplog: pytest.LogCaptureFixture
) -> None:
    resilience = Resilience(listeners=[listener])  # in real time: the hook has a thread

    @resilience.on_drain
    def leaves() -> None:
        raise error

    assert await resilience.drain() is True
    assert [event.cause for event in listener.of(DrainHookFailed)] == ["error"]
    assert resilience.leaving.hooks.errors == 1
    assert f"it raised {error.__name__} on its thread" in caplog.text


async def test_an_async_hook_that_ends_the_program_does_so_and_is_told(resilience: Resilience, listener: RecordingListener) -> None:
    async def leaves() -> None:
        raise SystemExit(3)

    hooks = resilience.leaving.hooks
    hooks.add(leaves, 10.0)
    with pytest.raises(SystemExit):
        await hooks._call(hooks._hooks[0])
    assert [event.cause for event in listener.of(DrainHookFailed)] == ["error"]


async def test_a_hook_that_is_not_done_at_the_end_is_late(resilience: Resilience, clock: FakeClock, listener: RecordingListener) -> None:
    @resilience.on_drain
    async def slow() -> None:
        await anyio.sleep(8)

    began = clock.now()
    assert await resilience.drain(budget=2) is False
    assert clock.now() - began == pytest.approx(2, abs=0.1)
    assert [event.cause for event in listener.of(DrainHookFailed)] == ["late"]


async def test_a_service_that_resumes_leaves_its_hooks_to_their_end(resilience: Resilience, clock: FakeClock) -> None:
    done: list[float] = []

    @resilience.on_drain
    async def checkpoint() -> None:
        await anyio.sleep(3)
        done.append(clock.now())

    resilience.drain(delay=10)
    await anyio.sleep(1)
    resilience.resume()
    await anyio.sleep(3)
    assert len(done) == 1


async def test_plain_hooks_and_objects_are_called_too() -> None:
    resilience = Resilience()
    called: list[Any] = []

    class Replayer:
        async def __call__(self) -> None:
            called.append("replayer")

    resilience.on_drain(lambda: called.append(threading.current_thread()))
    resilience.on_drain(Replayer())
    assert await resilience.drain() is True
    assert "replayer" in called
    assert threading.current_thread() not in called and len(called) == 2


async def test_streams_are_told_when_no_new_work_is_taken_on(served: Any, resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    began = clock.now()
    ends: dict[str, float] = {}

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        await resilience.drain_begun.wait()
        ends["begun"] = clock.now() - began
        await resilience.drain_closing.wait()
        ends["closing"] = clock.now() - began
        await send({"type": "http.response.body", "body": b"bye"})

    served.app = stream
    async with anyio.create_task_group() as group:
        group.start_soon(ask, served)
        await anyio.sleep(1)
        assert await resilience.drain(delay=5) is True
    assert ends == {"begun": pytest.approx(1, abs=0.1), "closing": pytest.approx(6, abs=0.1)}


# -- where no loop runs -------------------------------------------------------------------------------------------------


def test_a_program_without_an_event_loop_can_be_drained() -> None:
    resilience = Resilience()
    called = threading.Event()
    resilience.on_drain(called.set)
    departure = resilience.drain()
    assert resilience.draining and resilience.drain_closing.is_set()
    assert called.wait(10)
    assert anyio.run(departure._end) is True


def test_from_a_thread_of_a_service_it_runs_on_its_loop() -> None:
    resilience = Resilience()
    where: list[threading.Thread] = []
    app = Starlette()
    resilience.install(app)

    @resilience.on_drain
    async def hook() -> None:
        where.append(threading.current_thread())

    with TestClient(app) as client:
        before = {thread.name for thread in threading.enumerate()}
        departure = resilience.drain()
        assert client.get("/readyz").status_code == 503
        assert anyio.run(departure._end) is True
        assert "resilient-drain" not in {thread.name for thread in threading.enumerate()} | before
    assert len(where) == 1 and where[0] is not threading.current_thread()


async def test_a_hook_has_a_thread_though_the_threads_of_endpoints_are_all_taken() -> None:
    resilience = Resilience()
    called: list[int] = []
    resilience.on_drain(lambda: called.append(1), timeout=5)
    limiter = anyio.to_thread.current_default_thread_limiter()
    guests = [object() for _ in range(int(limiter.total_tokens))]
    for guest in guests:
        await limiter.acquire_on_behalf_of(guest)
    try:
        with anyio.fail_after(30):
            assert await resilience.drain()
    finally:
        for guest in guests:
            limiter.release_on_behalf_of(guest)
    assert called == [1] and resilience.leaving.hooks.errors == 0


def drained_elsewhere(resilience: Resilience, delay: float) -> None:
    """A drain is begun on an event loop that ends before the drain does."""

    async def begin() -> None:
        resilience.drain(delay=delay)

    thread = threading.Thread(target=asyncio.run, args=(begin(),))
    thread.start()
    thread.join(30)


def test_a_drain_that_was_begun_on_a_loop_that_is_gone_is_looked_after_by_the_server(listener: RecordingListener) -> None:
    resilience = Resilience(listeners=[listener])

    async def serve() -> None:
        with anyio.fail_after(30):
            async with resilience.leaving.life():
                drained_elsewhere(resilience, 0.05)
                await resilience.drain_closing.wait()
                assert await resilience.drain()

    asyncio.run(serve())
    assert told(listener) == [("begun", 0), ("closed", 0), ("drained", 0)]


def test_a_server_ends_although_the_loop_of_its_drain_has_ended_before(listener: RecordingListener) -> None:
    resilience = Resilience(listeners=[listener])
    drained_elsewhere(resilience, 60.0)

    async def serve() -> None:
        with anyio.fail_after(30):
            async with resilience.leaving.life():
                assert resilience.draining

    asyncio.run(serve())
    assert told(listener) == [("begun", 0), ("closed", 0), ("drained", 0)]


def test_the_end_of_a_lifespan_is_a_drain_and_another_client_is_served(listener: RecordingListener) -> None:
    resilience = Resilience(listeners=[listener])
    hooked: list[bool] = []
    stops: list[bool] = []

    async def stop() -> None:
        stops.append(resilience.draining)

    app = Starlette()
    app.router.lifespan_context = ending(stop)
    resilience.on_drain(lambda: hooked.append(resilience.draining))
    resilience.install(app)
    for _ in range(2):
        with TestClient(app) as client:
            assert client.get("/readyz").status_code == 200
        assert not resilience.draining
        assert TestClient(app).get("/other").status_code == 404  # a client without a lifespan is served as well
    assert (hooked, stops) == ([True] * 2, [True] * 2)
    assert [event.what for event in listener.of(DrainChanged)] == ["begun", "closed", "drained"] * 2
    assert {event.why for event in listener.of(DrainChanged)} == {"shutdown"}


def ending(stop: Callable[[], Any]) -> Any:
    from contextlib import asynccontextmanager

    @asynccontextmanager
    async def lifespan(app: Any) -> Any:
        yield
        await stop()

    return lifespan


def test_a_drain_by_hand_outlives_the_start_of_a_service() -> None:
    resilience = Resilience()
    app = Starlette()
    resilience.install(app)
    resilience.draining = True
    with TestClient(app) as client:
        assert client.get("/readyz").status_code == 503


def test_the_last_of_two_servers_is_the_end(listener: RecordingListener) -> None:
    resilience = Resilience(listeners=[listener])
    apps = Starlette(), Starlette()
    for app in apps:
        resilience.install(app)
    with TestClient(apps[0]):
        with TestClient(apps[1]) as other:
            pass
        assert not resilience.draining
        assert other.get("/readyz").status_code == 200
        assert listener.of(DrainChanged) == []
    assert len(listener.of(DrainChanged)) == 3


async def test_a_reset_forgets_a_drain(
    served: Any, resilience: Resilience, clock: FakeClock, listener: RecordingListener, ask: Any
) -> None:
    departure = resilience.drain(delay=1)
    resilience.reset()
    assert await departure is False
    assert (await ask(served)).status == 200 and not resilience.drain_begun.is_set()
    assert told(listener) == [("begun", 0)]
