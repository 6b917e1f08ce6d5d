"""Who is let into the app, who waits, who is turned away and how, and that what is held is given back once."""

from __future__ import annotations

import asyncio
import math
import threading
from collections.abc import Callable
from typing import Any

import anyio
import httpx
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Mount, Route

from resilient import Brownout, Criticality, Resilience, current_criticality
from resilient.asgi import Admission, AdmissionMiddleware, ResilienceMiddleware, StaleResponses
from resilient.events import RequestShed
from resilient.testing import FakeClock, RecordingListener

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}
SMALL = {"limit": 4, "min_concurrent": 4, "max_concurrent": 4}
"""Four slots, of which `critical` may take four and `sheddable` three."""


class Held:
    """An app whose requests go on until they are let go."""

    def __init__(self) -> None:
        self.gates: list[anyio.Event] = []
        self.order: list[str] = []
        self.criticality: list[Criticality] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        gate = anyio.Event()
        self.gates.append(gate)
        self.order.append(scope["path"])
        self.criticality.append(current_criticality())
        await gate.wait()
        await send(START)
        await send(BODY)

    def let_go(self, index: int = -1) -> None:
        self.gates[index].set()

    def let_all_go(self) -> None:
        for gate in self.gates:
            gate.set()


def shed(listener: RecordingListener) -> list[tuple[str, str, bool]]:
    return [(event.criticality, event.reason, event.enforced) for event in listener.of(RequestShed)]


@pytest.fixture
def held() -> Held:
    return Held()


@pytest.fixture(params=[AdmissionMiddleware, ResilienceMiddleware])
def around(request: pytest.FixtureRequest, resilience: Resilience) -> Callable[..., Any]:
    """The aspect alone, and among the others: one behaviour."""

    def make(app: Any, **settings: Any) -> Any:
        if request.param is AdmissionMiddleware:
            return AdmissionMiddleware(app, resilience, **settings)
        return ResilienceMiddleware(app, resilience, timeout=None, admission=Admission(**settings))

    return make


async def turns() -> None:
    """Let everybody go on until nobody can without time passing."""
    for _ in range(20):
        await anyio.lowlevel.checkpoint()


@pytest.fixture
def asked(ask: Any) -> Any:
    """Ask in a task, several at a time; the answers, in the order in which they came."""

    class Asked:
        def __init__(self) -> None:
            self.answers: list[tuple[str, Any]] = []

        async def _one(self, app: Any, path: str, details: dict[str, Any]) -> None:
            self.answers.append((path, await ask(app, path, **details)))

        async def start(self, group: Any, app: Any, *paths: str, **details: Any) -> None:
            for path in paths:
                group.start_soon(self._one, app, path, details)
                await turns()

        @property
        def statuses(self) -> dict[str, int]:
            return {path: answer.status for path, answer in self.answers}

    return Asked()


BY_PATH = {"/sheddable": "sheddable", "/plus": "sheddable_plus", "/top": "critical_plus"}


# -- slots and lines --------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_more_than_the_app_bears_wait_and_go_in_by_what_they_matter(
    around: Any, held: Held, asked: Any, listener: RecordingListener
) -> None:
    app = around(held, **SMALL, criticality=BY_PATH)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, *(f"/{number}" for number in range(4)))
        assert held.order == ["/0", "/1", "/2", "/3"] and app.door.in_flight == 4
        await asked.start(group, app, "/sheddable", "/plus", "/a", "/top", "/b")
        assert len(held.order) == 4 and app.door.queued == 5
        for index in range(4):
            held.let_go(index)
            await turns()
        assert held.order[4:] == ["/top", "/a", "/b", "/plus"]
        held.let_all_go()
        await turns()
        held.let_all_go()
    assert held.order[-1] == "/sheddable"
    assert set(asked.statuses.values()) == {200}
    assert (app.door.in_flight, app.door.queued) == (0, 0) and shed(listener) == []


@pytest.mark.anyio
async def test_sheddable_requests_leave_room_for_critical_ones(around: Any, held: Held, asked: Any) -> None:
    app = around(held, **SMALL, criticality=BY_PATH)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, *["/sheddable"] * 4)
        assert len(held.order) == 3
        await asked.start(group, app, "/critical")
        assert held.order[-1] == "/critical"
        held.let_all_go()
        await turns()
        held.let_all_go()


@pytest.mark.anyio
async def test_who_has_waited_long_enough_is_told_when_to_come_again(
    around: Any, held: Held, asked: Any, ask: Any, clock: FakeClock, listener: RecordingListener
) -> None:
    app = around(held, **SMALL, criticality=BY_PATH)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, "/0", "/1", "/2", "/3")
        began = clock.now()
        answer = await ask(app, "/sheddable")
        assert 0.1 <= clock.now() - began < 0.13
        began = clock.now()
        other = await ask(app, "/critical")
        assert 1.0 <= clock.now() - began < 1.03
        held.let_all_go()
    for one in (answer, other):
        assert one.status == 503
        seconds = int(one.header("retry-after")[0])
        assert 1 <= seconds <= 3
        assert one.problem == {
            "type": "about:blank",
            "title": "Service Unavailable",
            "status": 503,
            "detail": "The service has more requests than it can serve.",
            "error": "connection_limit_reached",
            "retry_after": seconds,
        }
        assert one.header("x-envoy-overloaded") == ["true"]
    assert shed(listener) == [("sheddable", "waited", True), ("critical", "waited", True)]


@pytest.mark.anyio
async def test_a_line_that_stays_is_cut_short(
    around: Any, held: Held, asked: Any, ask: Any, clock: FakeClock, listener: RecordingListener
) -> None:
    app = around(held, **SMALL, criticality=BY_PATH)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, "/0", "/1", "/2", "/3", "/sheddable")
        await anyio.sleep(0.098)
        await asked.start(group, app, "/sheddable")
        await anyio.sleep(0.0021)  # the line has not been empty for 0.1 s, and so it is no burst
        began = clock.now()
        answers = [await ask(app, "/sheddable") for _ in range(3)]
        assert clock.now() == began and {answer.status for answer in answers} == {503}
        await anyio.sleep(0.02)  # when the event loop is looked at next, who came in time has waited for too long all the same
        assert [answer.status for _, answer in asked.answers] == [503, 503]
        held.let_all_go()
    assert [reason for _, reason, _ in shed(listener)] == ["waited", "standing", "standing", "standing", "waited"]


@pytest.mark.anyio
async def test_in_a_full_queue_what_matters_less_makes_room(
    around: Any, held: Held, asked: Any, ask: Any, listener: RecordingListener
) -> None:
    app = around(held, **SMALL, queue=1, criticality=BY_PATH)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, "/0", "/1", "/2", "/3", "/sheddable")
        assert (await ask(app, "/sheddable")).status == 503
        await asked.start(group, app, "/critical")
        assert asked.statuses == {"/sheddable": 503}
        held.let_all_go()
        await turns()
        held.let_all_go()
    assert asked.statuses["/critical"] == 200
    assert shed(listener) == [("sheddable", "full", True), ("sheddable", "displaced", True)]


@pytest.mark.anyio
async def test_the_answer_to_head_has_no_body_and_headers_that_others_may_add_to(around: Any, held: Held, asked: Any, ask: Any) -> None:
    app = around(held, **SMALL, queue=0)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, "/0", "/1", "/2", "/3")
        answer = await ask(app, method="HEAD")
        assert answer.status == 503 and answer.body == b"" and int(answer.header("content-length")[0]) > 100
        for _ in range(20):
            (await ask(app)).starts[0]["headers"].append((b"x-added", b"by middleware further out"))
        assert (await ask(app)).header("x-added") == []
        held.let_all_go()


@pytest.mark.anyio
async def test_what_is_turned_away_is_counted(around: Any, resilience: Resilience, held: Held, asked: Any, ask: Any) -> None:
    app = around(held, **SMALL, queue=0)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, "/0", "/1", "/2", "/3")
        for _ in range(3):
            await ask(app)
        page = resilience.metrics.render()[0].decode()
        held.let_all_go()
    assert 'resilient_requests_shed_total{criticality="critical",reason="full"} 3.0' in page
    assert "resilient_admission_in_flight 4.0" in page and "resilient_admission_limit 4.0" in page
    assert "resilient_admission_in_flight 0.0" in resilience.metrics.render()[0].decode()


# -- what is held -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_slot_is_held_until_the_app_has_returned(around: Any, resilience: Resilience, ask: Any) -> None:
    seen = []

    async def stream(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        for _ in range(3):
            seen.append(app.door.in_flight)
            await send({**BODY, "more_body": True})
            await anyio.sleep(1)
        await send(BODY)
        seen.append(app.door.in_flight)

    app = around(stream)
    assert (await ask(app)).status == 200
    assert seen == [1, 1, 1, 1] and app.door.in_flight == 0


@pytest.mark.anyio
async def test_background_tasks_are_work(around: Any, ask: Any) -> None:
    seen = []

    async def page(request: Request) -> Response:
        return PlainTextResponse("ok", background=BackgroundTask(lambda: seen.append(app.door.in_flight)))

    app = around(Starlette(routes=[Route("/", page)]))
    await ask(app)
    assert seen == [1] and app.door.in_flight == 0


@pytest.mark.anyio
@pytest.mark.parametrize("when", [0.0, 0.05, 0.5, 1.5])
async def test_a_cancelled_request_gives_back_what_it_holds_once(around: Any, held: Held, asked: Any, when: float) -> None:
    app = around(held, **SMALL)
    async with anyio.create_task_group() as outer:
        await asked.start(outer, app, "/0", "/1", "/2")
        async with anyio.create_task_group() as group:
            await asked.start(group, app, *(f"/cancelled{number}" for number in range(5)))
            if when:
                await anyio.sleep(when)
            group.cancel_scope.cancel()
        assert (app.door.in_flight, app.door.queued) == (3, 0)
        await asked.start(outer, app, "/last")
        assert held.order[-1] == "/last"
        held.let_all_go()
    assert app.door.in_flight == 0


@pytest.mark.anyio
async def test_a_grant_that_comes_together_with_the_cancellation_is_passed_on(around: Any, held: Held, asked: Any) -> None:
    app = around(held, **SMALL)
    async with anyio.create_task_group() as outer:
        await asked.start(outer, app, "/0", "/1", "/2", "/3")
        async with anyio.create_task_group() as group:
            await asked.start(group, app, "/cancelled")
            await asked.start(outer, app, "/next")
            granted = app.door.grant

            def grant_and_cancel(most: int) -> Any:
                found = granted(1)
                group.cancel_scope.cancel()
                return found

            app.door.__class__.grant, before = lambda door, most: grant_and_cancel(most), app.door.__class__.grant
            try:
                held.let_go(0)
                await turns()
            finally:
                app.door.__class__.grant = before
        await turns()
        assert held.order[-1] == "/next" and "/cancelled" not in held.order
        held.let_all_go()
    assert (app.door.in_flight, app.door.queued) == (0, 0)


@pytest.mark.anyio
async def test_an_app_that_fails_gives_its_slot_back(around: Any, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        raise KeyError("bug")

    guarded = around(app)
    for _ in range(3):
        with pytest.raises(KeyError):
            await ask(guarded)
    assert guarded.door.in_flight == 0


@pytest.mark.anyio
async def test_the_deadline_holds_in_line_as_well(resilience: Resilience, held: Held, asked: Any, ask: Any, clock: FakeClock) -> None:
    app = ResilienceMiddleware(held, resilience, timeout=0.5, admission=Admission(**SMALL))
    async with anyio.create_task_group() as group:
        await asked.start(group, app, "/0", "/1", "/2", "/3")
        began = clock.now()
        late = await ask(app, "/late")
        assert late.status in (503, 504)
        assert clock.now() - began <= 0.52
    assert set(asked.statuses.values()) == {504}
    assert (app.door.in_flight, app.door.queued) == (0, 0)


def test_a_thread_that_goes_on_after_the_504_is_still_counted() -> None:
    go_on = threading.Event()

    def page(request: Request) -> Response:
        go_on.wait(10)
        return PlainTextResponse("late")

    resilience = Resilience()
    app = ResilienceMiddleware(Starlette(routes=[Route("/", page)]), resilience, timeout=0.05)

    async def main() -> None:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://app") as client:
            task = asyncio.create_task(client.get("/"))
            while not resilience.metrics.render()[0].decode().count('resilient_deadline_exceeded_total{side="inbound"} 1.0'):
                await asyncio.sleep(0.01)
            assert app.door.in_flight == 1  # the client has been answered, and the thread goes on
            go_on.set()
            assert (await task).status_code == 504
            assert app.door.in_flight == 0

    asyncio.run(main())


# -- who is none of its business --------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_health_metrics_and_administration_are_never_turned_away(resilience: Resilience, held: Held, asked: Any, ask: Any) -> None:
    app = Starlette(routes=[Mount("/app", held)])
    resilience.install(app, prefix="/internal", timeout=None, admission=Admission(**SMALL, queue=0, exempt=["/admin/{rest:path}"]))
    async with anyio.create_task_group() as group:
        await asked.start(group, app, *["/app/x"] * 4)
        assert (await ask(app, "/app/x")).status == 503
        for path in ("/internal/metrics", "/internal/livez", "/internal/readyz", "/internal/startupz"):
            assert (await ask(app, path)).status == 200
        assert (await ask(app, "/admin/tasks")).status == 404
        assert (await ask(app, "/administration")).status == 503
        held.let_all_go()


@pytest.mark.anyio
async def test_one_service_asks_once_however_many_of_its_apps_a_request_goes_through(
    resilience: Resilience, held: Held, asked: Any, ask: Any
) -> None:
    inner, outer = Starlette(routes=[Mount("/", held)]), Starlette()
    resilience.install(inner, admission=Admission(**SMALL, queue=0))
    outer.mount("/mounted", inner)
    resilience.install(outer, admission=Admission(limit=8, max_concurrent=8, queue=0))
    doors = sorted(resilience.admissions, key=lambda door: door.limit)
    async with anyio.create_task_group() as group:
        await asked.start(group, outer, *["/mounted/x"] * 8)
        assert [door.in_flight for door in doors if door.limit == 8 or door.in_flight] == [8]
        assert (await ask(outer, "/mounted/x")).status == 503
        held.let_all_go()
    assert [door.in_flight for door in doors] == [0] * len(doors)


@pytest.mark.anyio
async def test_a_mounted_app_with_a_resilience_of_its_own_asks_for_itself(
    resilience: Resilience, clock: FakeClock, held: Held, asked: Any, ask: Any
) -> None:
    inner = AdmissionMiddleware(held, Resilience(clock=clock), **SMALL, queue=0)
    outer = AdmissionMiddleware(inner, resilience)
    async with anyio.create_task_group() as group:
        await asked.start(group, outer, *["/x"] * 4)
        assert (await ask(outer, "/x")).status == 503
        assert (outer.door.in_flight, inner.door.in_flight) == (4, 4)
        held.let_all_go()
    assert (outer.door.in_flight, inner.door.in_flight) == (0, 0)


@pytest.mark.anyio
async def test_a_disabled_resilience_lets_everybody_in(held: Held, asked: Any, clock: FakeClock) -> None:
    app = AdmissionMiddleware(held, Resilience(enabled=False, clock=clock), **SMALL, queue=0)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, *["/x"] * 20)
        assert len(held.order) == 20
        held.let_all_go()


@pytest.mark.slow
@pytest.mark.anyio
async def test_the_defaults_turn_nobody_away_from_an_app_that_keeps_up(
    resilience: Resilience, asked: Any, listener: RecordingListener
) -> None:
    async def page(request: Request) -> Response:
        await anyio.sleep(0.2)
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", page)])
    resilience.install(app)
    for _ in range(3):
        async with anyio.create_task_group() as group:
            await asked.start(group, app, *["/"] * 400)
    assert [answer.status for _, answer in asked.answers] == [200] * 1200
    assert shed(listener) == []


@pytest.mark.anyio
async def test_shadow_mode_lets_everybody_in_and_tells(
    around: Any, held: Held, asked: Any, resilience: Resilience, listener: RecordingListener
) -> None:
    app = around(held, **SMALL, queue=2, enforce=False)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, *(f"/{number}" for number in range(8)))
        assert len(held.order) == 8 and app.door.in_flight == 4 and app.door.queued == 2
        assert shed(listener) == [("critical", "full", False)] * 2
        held.let_go(0)
        await turns()
        assert app.door.queued == 1 and app.door.in_flight == 4
        held.let_all_go()
    assert set(asked.statuses.values()) == {200}
    assert (app.door.in_flight, app.door.queued) == (0, 0)
    assert 'reason="shadow_full"} 2.0' in resilience.metrics.render()[0].decode()


@pytest.mark.anyio
async def test_the_last_good_answer_stands_in(resilience: Resilience, ask: Any, asked: Any, held: Held) -> None:
    async def page(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/held":
            await held(scope, receive, send)
        else:
            await send({**START, "headers": [(b"content-type", b"text/plain")]})
            await send(BODY)

    stale = StaleResponses(stale_if_error=60, routes=["/page"])
    app = ResilienceMiddleware(page, resilience, stale=stale, admission=Admission(**SMALL, queue=0))
    await ask(app, "/page", headers={"host": "shop"})
    async with anyio.create_task_group() as group:
        await asked.start(group, app, *["/held"] * 4)
        answer = await ask(app, "/page", headers={"host": "shop"})
        assert (answer.status, answer.body) == (200, b"ok")
        assert answer.header("degraded") == ["response;level=reduced"]
        assert (await ask(app, "/other", headers={"host": "shop"})).status == 503
        held.let_all_go()


# -- streams and websockets -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_event_streams_have_places_of_their_own(around: Any, asked: Any, ask: Any) -> None:
    gate = anyio.Event()

    async def events(scope: Any, receive: Any, send: Any) -> None:
        if scope["path"] == "/events":
            await send({**START, "headers": [(b"content-type", b"text/event-stream")]})
            await gate.wait()
        else:
            await send(START)
        await send(BODY)

    app = around(events, **SMALL, queue=0, max_streams=3)
    async with anyio.create_task_group() as group:
        await asked.start(group, app, "/events", "/events", headers={"accept": "text/event-stream"})
        await asked.start(group, app, "/events")  # says so in its head only
        assert (app.door.streams, app.door.in_flight) == (3, 0)
        assert (await ask(app, "/events", headers={"accept": "text/event-stream"})).status == 503
        await asked.start(group, app, "/events")
        assert (app.door.streams, app.door.in_flight) == (3, 1)  # it is under way, so it keeps its slot
        assert (await ask(app, "/page")).status == 200
        gate.set()
    assert (app.door.streams, app.door.in_flight) == (0, 0)


@pytest.mark.anyio
@pytest.mark.parametrize("extended", [False, True])
async def test_websockets_are_streams(around: Any, extended: bool, listener: RecordingListener) -> None:
    sent: list[dict[str, Any]] = []
    gate = anyio.Event()

    async def echo(scope: Any, receive: Any, send: Any) -> None:
        assert current_criticality() is Criticality.SHEDDABLE
        await receive()
        await send({"type": "websocket.accept"})
        await gate.wait()

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    app = around(echo, max_streams=1, criticality={"/socket": "sheddable"})
    scope = {"type": "websocket", "path": "/socket", "headers": [], "extensions": {"websocket.http.response": {}} if extended else {}}
    async with anyio.create_task_group() as group:
        group.start_soon(app, {**scope}, receive, send)
        await turns()
        assert app.door.streams == 1
        await app(scope, receive, send)
        gate.set()
    assert app.door.streams == 0
    assert shed(listener) == [("sheddable", "streams", True)]
    if extended:
        assert [message["type"] for message in sent[1:]] == ["websocket.http.response.start", "websocket.http.response.body"]
        assert sent[1]["status"] == 503
    else:
        assert sent[1:] == [{"type": "websocket.close", "code": 1013, "reason": "overloaded"}]


# -- the event loop ---------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_turn_of_the_loop_takes_on_a_few_milliseconds_of_work(resilience: Resilience, clock: FakeClock, asked: Any) -> None:
    order: list[str] = []

    async def computing(scope: Any, receive: Any, send: Any) -> None:
        order.append(scope["path"])
        clock.advance(0.01)  # the handler holds the event loop for so long
        await send(START)
        await send(BODY)

    app = AdmissionMiddleware(computing, resilience, criticality=BY_PATH)
    async with anyio.create_task_group() as group:
        group.start_soon(asked._one, app, "/first", {})
        for path in ("/sheddable", "/plus", "/critical", "/top"):
            group.start_soon(asked._one, app, path, {})
    first = order.pop(0)
    waited = [path for path in ("/top", "/critical", "/plus", "/sheddable") if path != first and path in order]
    assert [path for path in order if path != "/first"] == waited  # whoever came first, the others by what they matter


@pytest.mark.anyio
async def test_how_late_the_loop_is_is_measured_while_somebody_comes(around: Any, clock: FakeClock, ask: Any) -> None:
    async def computing(scope: Any, receive: Any, send: Any) -> None:
        clock.advance(0.3)
        await send(START)
        await send(BODY)

    app = around(computing)
    await ask(app)
    await anyio.sleep(0.001)
    assert math.isclose(app.door.lag, 0.3 - 0.02, abs_tol=0.002)
    await anyio.sleep(0.1)
    assert app.door.lag == 0.0  # nobody comes, and nothing is armed


@pytest.mark.parametrize("runs", [2])
def test_no_event_loop_is_kept(runs: int, ask: Any) -> None:
    held = Held()
    app = AdmissionMiddleware(held, Resilience(), **SMALL, max_wait=0.2, interval=0.1)

    async def main() -> None:
        async with anyio.create_task_group() as group:
            for _ in range(5):
                group.start_soon(ask, app)
            await turns()
            assert app.door.queued == 1
            held.let_all_go()
            while app.door.queued or app.door.in_flight:
                await anyio.sleep(0.001)
                held.let_all_go()

    for _ in range(runs):
        asyncio.run(main())
        held.gates.clear()
    assert app.door.in_flight == 0


def test_event_loops_in_several_threads_share_the_slots(ask: Any) -> None:
    most, now, lock = [0], [0], threading.Lock()

    async def counting(scope: Any, receive: Any, send: Any) -> None:
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        await anyio.sleep(0.001)
        with lock:
            now[0] -= 1
        await send(START)
        await send(BODY)

    app = AdmissionMiddleware(counting, Resilience(), **SMALL, max_wait=10.0)
    statuses: list[int] = []

    async def main() -> None:
        async def one() -> None:
            statuses.append((await ask(app)).status)

        async with anyio.create_task_group() as group:
            for _ in range(25):
                group.start_soon(one)

    threads = [threading.Thread(target=asyncio.run, args=(main(),)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert statuses == [200] * 100
    assert most[0] <= 4 and (app.door.in_flight, app.door.queued) == (0, 0)


@pytest.mark.slow
@pytest.mark.anyio
async def test_what_is_turned_away_dims_what_is_optional(anyio_backend: Any, asked: Any, clock: FakeClock) -> None:
    """Those who are served are quick, for the others are shed at once: by how long requests take there is no load at all."""
    resilience = Resilience(clock=clock, brownout=Brownout(target=1.0))
    resilience.feature("recommendations", fallback=[])
    brownout = resilience.brownout
    assert brownout is not None

    async def quick(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.05)
        await send(START)
        await send(BODY)

    app = ResilienceMiddleware(quick, resilience, timeout=None, admission=Admission(**SMALL, queue=1))

    async def seconds(count: int, at_once: int) -> None:
        for _ in range(count * 10):
            async with anyio.create_task_group() as group:
                await asked.start(group, app, *["/"] * at_once)
            await anyio.sleep(0.05)

    await seconds(2, 4)
    assert brownout.share == 1 and asked.statuses == {"/": 200}
    await seconds(10, 12)
    assert brownout.share == 0
    assert 1 < brownout.measured <= 4
    await seconds(20, 2)
    assert brownout.share == 1


@pytest.mark.anyio
async def test_shadow_mode_dims_nothing(anyio_backend: Any, held: Held, asked: Any, clock: FakeClock) -> None:
    """All are served: how long they take says what load they are, and nothing comes on top."""
    brownout = Brownout(target=1.0, period=0.1)
    resilience = Resilience(clock=clock, brownout=brownout)
    app = ResilienceMiddleware(held, resilience, timeout=None, admission=Admission(**SMALL, queue=0, enforce=False))
    for _ in range(20):
        async with anyio.create_task_group() as group:
            await asked.start(group, app, *["/"] * 12)
            await anyio.sleep(0.05)
            held.let_all_go()
    assert asked.statuses == {"/": 200} and app.door.in_flight == 0
    assert 'reason="shadow_full"} 160.0' in resilience.metrics.render()[0].decode()
    assert brownout.share == 1 and brownout.measured <= 1


@pytest.mark.anyio
async def test_a_websocket_of_administration_is_none_of_its_business(around: Any) -> None:
    sent: list[Any] = []

    async def socket(scope: Any, receive: Any, send: Any) -> None:
        assert app.door.streams == 0
        await send({"type": "websocket.accept"})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    app = around(socket, **SMALL, max_streams=0)
    await app({"type": "websocket", "path": "/resilience/live", "headers": []}, receive, send)
    await app({"type": "websocket", "path": "/chat", "headers": []}, receive, send)
    assert sent == ["websocket.accept", "websocket.close"]


@pytest.mark.anyio
async def test_a_websocket_of_a_mounted_app_is_let_in_once(resilience: Resilience) -> None:
    open_streams: list[int] = []

    async def socket(scope: Any, receive: Any, send: Any) -> None:
        open_streams.append(outer.door.streams)
        await send({"type": "websocket.accept"})

    async def receive() -> Any:
        return {"type": "websocket.connect"}

    async def send(message: Any) -> None:
        sent.append(message["type"])

    sent: list[str] = []
    admission = Admission(**SMALL, max_streams=1)
    inner = ResilienceMiddleware(socket, resilience, admission=admission)
    outer = ResilienceMiddleware(Starlette(routes=[Mount("/chat", app=inner)]), resilience, admission=admission)
    scope: dict[str, Any] = {"type": "websocket", "path": "/chat/room", "root_path": "", "headers": []}
    await outer(scope, receive, send)
    assert sent == ["websocket.accept"] and open_streams == [1] and outer.door.streams == 0
    assert not any(key.startswith("resilient") for key in scope)
