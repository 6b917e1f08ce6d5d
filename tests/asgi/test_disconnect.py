"""Requests whose client has gone: cancelled where that was asked for, and never at the price of a message of the app's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from resilient import Dependency, Resilience
from resilient.asgi import AdmissionMiddleware, DeadlineMiddleware, DisconnectMiddleware, Disconnects, ResilienceMiddleware
from resilient.events import ClientGone, DeadlinePassed
from resilient.testing import FakeClock, RecordingListener

pytestmark = pytest.mark.anyio

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}
FOR_EVER = 3600.0


class Client:
    """A client that leaves after a while, and a server between it and the app.

    Args:
        leaves: seconds until it does.
        body: the messages of its body.
        repeats: whether the server tells of it again and again, as uvicorn does, or once, as hypercorn.
    """

    def __init__(self, leaves: float = 1.0, *body: bytes, method: str = "GET", repeats: bool = False, headers: Any = ()) -> None:
        self.scope = {
            "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
            "scheme": "http", "path": "/", "raw_path": b"/", "query_string": b"", "root_path": "",
            "headers": [(b"content-length", b"%d" % sum(map(len, body)))] if body else list(headers),
            "client": ("192.0.2.1", 1), "server": ("shop", 80),
        }  # fmt: skip
        chunks = body or (b"",)
        self._incoming = [{"type": "http.request", "body": chunk, "more_body": chunk is not chunks[-1]} for chunk in chunks]
        self._leaves, self._repeats = leaves, repeats
        self.received = self.reading = 0
        self.sent: list[Any] = []
        self._complete = anyio.Event()
        self.gone = False

    async def receive(self) -> Any:
        self.received += 1
        self.reading += 1
        assert self.reading == 1, "two receive at a time"
        try:
            await anyio.sleep(0)
            if self._incoming:
                return self._incoming.pop(0)
            if self.gone and not self._repeats:
                await anyio.sleep_forever()  # as hypercorn does
            if not self.gone:
                with anyio.CancelScope(deadline=self._leaves_at):
                    await self._complete.wait()
            self.gone = True
            return {"type": "http.disconnect"}
        finally:
            self.reading -= 1

    async def send(self, message: Any) -> None:
        self.sent.append(message)
        if message["type"] == "http.response.body" and not message.get("more_body"):
            self._complete.set()

    async def ask(self, app: Any, path: str = "/") -> list[Any]:
        self._leaves_at = anyio.current_time() + self._leaves
        await app({**self.scope, "path": path}, self.receive, self.send)
        return self.sent

    @property
    def status(self) -> int:
        (start,) = [message for message in self.sent if message["type"] == "http.response.start"]
        return int(start["status"])


class Sleeping:
    """An app that works for ever, and knows how it ended."""

    def __init__(self, *, reads: bool = True) -> None:
        self.reads = reads
        self.body: list[bytes] = []
        self.ended = ""

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        try:
            while self.reads:
                message = await receive()
                self.body.append(message["body"])
                if not message["more_body"]:
                    break
            await anyio.sleep(FOR_EVER)
            self.ended = "done"
        except BaseException as error:
            self.ended = "cancelled" if isinstance(error, anyio.get_cancelled_exc_class()) else repr(error)
            raise


def watching(app: Any, resilience: Resilience, **settings: Any) -> Any:
    return ResilienceMiddleware(app, resilience, **{"timeout": None, "cancel_on_disconnect": True, **settings})


def gone(listener: RecordingListener) -> list[bool]:
    return [event.enforced for event in listener.of(ClientGone)]


# -- who is cancelled -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("timeout", [None, 60.0])
@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("reads", [True, False])
async def test_an_app_whose_client_leaves_is_cancelled(
    reads: bool, repeats: bool, timeout: float | None, resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    app, client = Sleeping(reads=reads), Client(1.0, repeats=repeats)
    began = clock.now()
    await client.ask(watching(app, resilience, timeout=timeout))
    assert app.ended == "cancelled" and clock.now() - began == pytest.approx(1.0, abs=0.01)
    assert client.status == 499  # for whoever lies further out; the client has no use for it
    assert gone(listener) == [True] and listener.of(DeadlinePassed) == []
    page = resilience.metrics.render()[0].decode()
    assert 'resilient_clients_gone_total{result="cancelled"} 1.0' in page
    assert 'resilient_requests_total{method="GET",route="unmatched",status="4xx"} 1.0' in page
    assert "resilient_admission_in_flight 0.0" in page


async def test_nothing_is_looked_at_by_default(resilience: Resilience, ask: Any) -> None:
    received: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        received.append(receive)
        await send(START)
        await send(BODY)

    client = Client()
    for cancel in (False, [], ()):
        await client.ask(watching(app, resilience, cancel_on_disconnect=cancel))
    assert received == [client.receive] * 3


@pytest.mark.parametrize(
    ("routes", "method", "path", "cancelled"),
    [
        (True, "GET", "/", True),
        (True, "HEAD", "/", True),
        (True, "POST", "/", False),
        (["/search"], "GET", "/search", True),
        (["/search"], "GET", "/other", False),
        (["/search"], "POST", "/search", False),
        (["POST /render"], "POST", "/render", True),
        (["/a", "GET,POST /b/{id}"], "POST", "/b/7", True),
        (("/search", "/other"), "GET", "/other", True),
        (Disconnects(["/search"]), "OPTIONS", "/search", True),
    ],
)
async def test_safe_methods_and_routes(
    routes: Any, method: str, path: str, cancelled: bool, resilience: Resilience, clock: FakeClock
) -> None:
    app, client = Sleeping(), Client(1.0, method=method)
    began = clock.now()
    await client.ask(watching(app, resilience, cancel_on_disconnect=routes), path)
    assert app.ended == ("cancelled" if cancelled else "done")
    assert clock.now() - began == pytest.approx(1.0 if cancelled else FOR_EVER, abs=0.01)


async def test_a_mounted_app_is_asked_by_its_own_paths(resilience: Resilience, clock: FakeClock) -> None:
    app, client = Sleeping(), Client(1.0)
    client.scope["root_path"] = "/shop"
    await client.ask(watching(app, resilience, cancel_on_disconnect=["/search"]), "/shop/search")
    assert app.ended == "cancelled"


async def test_one_that_leaves_before_anybody_looks_is_found_out_at_the_first_look(resilience: Resilience, clock: FakeClock) -> None:
    app, client = Sleeping(), Client(0.01)
    began = clock.now()
    await client.ask(watching(app, resilience, cancel_on_disconnect=Disconnects(after=0.5)))
    assert app.ended == "cancelled" and clock.now() - began == pytest.approx(0.5, abs=0.02)


async def test_many_at_a_time_are_each_looked_after(resilience: Resilience, listener: RecordingListener, clock: FakeClock) -> None:
    clients = [Client(0.3 + number / 10) for number in range(10)]
    ended = []

    async def ask(client: Client, app: Any) -> None:
        await client.ask(app)
        ended.append(clock.now() - began)

    began = clock.now()
    app = watching(Sleeping(), resilience)
    async with anyio.create_task_group() as tasks:
        for number, client in enumerate(clients):
            tasks.start_soon(ask, client, app)
            if number % 3 == 0:
                await anyio.sleep(0.02)
    assert [client.status for client in clients] == [499] * 10 and gone(listener) == [True] * 10
    assert max(ended) < 1.5


async def test_a_quick_request_is_never_looked_at(resilience: Resilience, clock: FakeClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.05)
        await send(START)
        await send(BODY)

    client = Client(0.01)
    await client.ask(watching(app, resilience))
    await anyio.sleep(5)
    assert client.sent == [START, BODY] and client.received == 0


async def test_a_stream_is_cancelled_in_the_middle(resilience: Resilience, listener: RecordingListener, clock: FakeClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send(START)
        while True:
            await send({**BODY, "more_body": True})
            await anyio.sleep(0.3)

    client = Client(1.0)
    await client.ask(watching(app, resilience, timeout=0.5))  # which is lifted when the response begins
    assert gone(listener) == [True] and listener.of(DeadlinePassed) == []
    assert client.status == 200 and client.sent[-1]["more_body"]


async def test_a_request_in_line_is_cancelled_and_leaves_the_line(resilience: Resilience, clock: FakeClock) -> None:
    from resilient.asgi import Admission

    admission = Admission(limit=1, min_concurrent=1, max_concurrent=1, max_wait=50.0)
    inside, queued = Sleeping(), Client(1.0)
    app = watching(inside, resilience, admission=admission)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(Client(3.0).ask, app)
        await anyio.sleep(0.1)
        await queued.ask(app)
        (door,) = resilience.admissions
        assert queued.status == 499 and (door.queued, door.in_flight) == (0, 1)
    assert (door.queued, door.in_flight) == (0, 0)


async def test_shadow_mode_cancels_nothing_and_counts(resilience: Resilience, listener: RecordingListener, clock: FakeClock) -> None:
    app, client = Sleeping(), Client(1.0)
    await client.ask(watching(app, resilience, cancel_on_disconnect=Disconnects(enforce=False)))
    assert app.ended == "done" and gone(listener) == [False]
    assert 'resilient_clients_gone_total{result="shadow_cancelled"} 1.0' in resilience.metrics.render()[0].decode()


async def test_alone_and_beside_others(resilience: Resilience, listener: RecordingListener, clock: FakeClock) -> None:
    app, client = Sleeping(), Client(1.0)
    alone = DisconnectMiddleware(app, resilience)
    await client.ask(DeadlineMiddleware(AdmissionMiddleware(alone, resilience), resilience))
    assert app.ended == "cancelled" and client.status == 499 and gone(listener) == [True]


# -- who is not -------------------------------------------------------------------------------------------------------


async def test_ground_45_a_disconnect_after_the_end_ends_no_background_task(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    done = []

    async def work() -> None:
        await anyio.sleep(10)
        done.append(True)

    async def endpoint(request: Request) -> Response:
        await anyio.sleep(1.0)  # long enough to be looked after
        return Response("ok", background=BackgroundTask(work))

    client = Client(FOR_EVER, repeats=True)
    await client.ask(watching(Starlette(routes=[Route("/", endpoint)]), resilience))
    assert client.gone and done == [True] and client.status == 200 and gone(listener) == []


@pytest.mark.parametrize("repeats", [True, False])
async def test_an_app_that_waits_for_it_gets_it_and_is_left_alone(
    repeats: bool, resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        heard.extend([(await receive())["type"] for _ in range(3)])
        await anyio.sleep(5)
        await send(START)
        await send(BODY)

    client = Client(1.0, repeats=repeats)
    await client.ask(watching(app, resilience))
    assert heard == ["http.request", "http.disconnect", "http.disconnect"]
    assert client.sent == [START, BODY] and gone(listener) == []


async def test_an_app_that_begins_to_wait_while_we_do_gets_it(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    heard = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.5)  # by now the first message is here, and we wait for the next one
        heard.extend([await receive(), await receive()])
        await send(START)
        await send(BODY)

    client = Client(1.0)
    await client.ask(watching(app, resilience))
    assert [message["type"] for message in heard] == ["http.request", "http.disconnect"]
    assert client.sent == [START, BODY] and gone(listener) == [] and client.received == 2


async def test_is_disconnected_says_so_though_we_were_told_first(resilience: Resilience, clock: FakeClock) -> None:
    said = []

    async def endpoint(request: Request) -> Response:
        await request.body()
        for _ in range(4):
            await anyio.sleep(0.4)
            said.append(await request.is_disconnected())
        return Response("ok")

    shadow = Disconnects(enforce=False)
    client = Client(1.0)
    await client.ask(watching(Starlette(routes=[Route("/", endpoint)]), resilience, cancel_on_disconnect=shadow))
    assert said == [False, False, True, True] and client.status == 200


async def test_a_poll_that_comes_to_nothing_does_not_end_the_watch(resilience: Resilience, clock: FakeClock) -> None:
    async def endpoint(request: Request) -> Response:
        await request.body()
        assert not await request.is_disconnected()
        await anyio.sleep(0.2)
        assert not await request.is_disconnected()
        await anyio.sleep(FOR_EVER)
        return Response("never")

    client = Client(1.0)
    began = clock.now()
    await client.ask(watching(Starlette(routes=[Route("/", endpoint)]), resilience))
    assert client.status == 499 and clock.now() - began == pytest.approx(1.0, abs=0.01)


async def test_a_streaming_response_of_starlette_ends_as_it_does_without_us(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    sent: list[list[Any]] = []

    async def endpoint(request: Request) -> Response:
        async def chunks() -> Any:
            while True:
                yield b"x"
                await anyio.sleep(0.3)

        return StreamingResponse(chunks(), background=BackgroundTask(lambda: sent.append([])))

    app = Starlette(routes=[Route("/", endpoint)])
    bare, watched = Client(1.0), Client(1.0)
    assert await bare.ask(app) == await watched.ask(watching(app, resilience))
    assert gone(listener) == [] and len(sent) == 2


# -- nothing is taken -------------------------------------------------------------------------------------------------


async def test_ground_44_a_body_that_is_not_read_yet_stays_with_the_server(resilience: Resilience, clock: FakeClock) -> None:
    app, client = Sleeping(), Client(1.0, b"one", b"two", method="POST")
    seen = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.7)
        seen.append(client.received)
        await app(scope, receive, send)

    await client.ask(watching(late, resilience, cancel_on_disconnect=["POST /"]))
    assert seen == [0]  # it may be answered "100 Continue", or be refused unread
    assert app.body == [b"one", b"two"] and app.ended == "cancelled"


async def test_a_body_that_nobody_announced_is_kept_for_the_app(resilience: Resilience, clock: FakeClock) -> None:
    """HTTP/2 needs neither Content-Length nor Transfer-Encoding."""
    app, client = Sleeping(), Client(1.0, b"one", b"two", b"three", method="POST")
    client.scope["headers"] = []
    seen = []

    async def late(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.7)
        seen.append(client.received)
        await app(scope, receive, send)

    await client.ask(watching(late, resilience, cancel_on_disconnect=["POST /"]))
    assert seen == [1]  # one piece of it, and no more
    assert app.body == [b"one", b"two", b"three"] and app.ended == "cancelled"


async def test_an_app_that_waits_while_we_read_gets_what_we_read(resilience: Resilience, clock: FakeClock) -> None:
    class Slow(Client):
        async def receive(self) -> Any:
            if self.received == 0:
                self.received += 1
                await anyio.sleep(0.6)  # HTTP/2: the end of the headers was no end of the request
                return {"type": "http.request", "body": b"late", "more_body": False}
            return await super().receive()

    got = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.3)
        got.append((await receive())["body"])
        await anyio.sleep(FOR_EVER)

    client = Slow(1.0)
    await client.ask(watching(app, resilience))
    assert got == [b"late"] and client.status == 499


async def test_what_receiving_raises_is_raised_in_the_app(resilience: Resilience, clock: FakeClock) -> None:
    class Broken(Exception):
        pass

    class Breaking(Client):
        async def receive(self) -> Any:
            self.received += 1
            await anyio.sleep(0)
            raise Broken

    caught = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(0.5)
        with pytest.raises(Broken):
            await receive()
        caught.append(True)
        await anyio.sleep(0.5)
        await send(START)
        await send(BODY)

    client = Breaking()
    await client.ask(watching(app, resilience))
    assert caught == [True] and client.sent == [START, BODY]


async def test_nobody_reads_on_after_the_app_has_returned(resilience: Resilience, clock: FakeClock) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await receive()
        await anyio.sleep(0.5)
        await send(START)
        await send({**BODY, "more_body": True})  # and never an end

    client = Client(2.0)
    await client.ask(watching(app, resilience))
    await anyio.sleep(0.1)
    assert client.received == 2 and client.reading == 0


async def test_context_reaches_what_receives_for_us(resilience: Resilience, clock: FakeClock) -> None:
    """Instrumentation wraps `receive`, and looks at the context of the request."""
    from contextvars import ContextVar

    whose: ContextVar[str] = ContextVar("whose", default="nobody's")
    seen = []

    class Instrumented(Client):
        async def receive(self) -> Any:
            seen.append(whose.get())
            return await super().receive()

    async def further_out(scope: Any, receive: Any, send: Any) -> None:
        whose.set("this request's")
        await watching(Sleeping(reads=False), resilience)(scope, receive, send)

    await Instrumented(1.0).ask(further_out)
    assert seen == ["this request's"] * 2


# -- the framework around it ------------------------------------------------------------------------------------------


async def passing(request: Request, call_next: Callable[[Request], Any]) -> Response:
    return await call_next(request)  # type: ignore[no-any-return]


@pytest.mark.parametrize("outside", [True, False])
async def test_inside_and_outside_of_base_http_middleware(
    outside: bool, resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    ended = []

    async def endpoint(request: Request) -> Response:
        try:
            await request.body()
            await anyio.sleep(FOR_EVER)
        except BaseException as error:
            ended.append(type(error))
            raise
        return Response("never")

    layers = [Middleware(ResilienceMiddleware, resilience=resilience, cancel_on_disconnect=True), Middleware(BaseHTTPMiddleware, passing)]
    app = Starlette(routes=[Route("/", endpoint)], middleware=layers if outside else layers[::-1])
    client = Client(1.0)
    began = clock.now()
    await client.ask(app)
    assert clock.now() - began == pytest.approx(1.0, abs=0.01)
    assert ended == [anyio.get_cancelled_exc_class()] and client.status == 499 and gone(listener) == [True]


async def test_an_app_mounted_in_another_with_middleware_of_its_own(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    app, client = Sleeping(), Client(1.0)
    inner = watching(app, resilience)
    await client.ask(watching(Starlette(routes=[Mount("/shop", inner)]), resilience), "/shop/search")
    assert app.ended == "cancelled" and client.status == 499 and gone(listener) == [True]


async def test_what_it_was_calling_is_cancelled_and_not_blamed(resilience: Resilience, clock: FakeClock) -> None:
    upstream = Dependency("upstream", clock=clock)
    ended = []

    async def call() -> None:
        try:
            await anyio.sleep(FOR_EVER)
        finally:
            ended.append(clock.now())

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await upstream.call(call)

    for _ in range(10):
        await Client(0.3).ask(watching(app, resilience))
    assert len(ended) == 10
    assert upstream.state == "closed" and upstream.breaker.fail_counter == 0 and upstream.bulkhead.in_use == 0
    assert upstream.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 10}


async def test_an_app_that_will_not_be_cancelled_ends_as_it_likes(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3.0)
            await send(START)
            await send(BODY)

    client = Client(1.0)
    await client.ask(watching(app, resilience))
    assert client.sent == [START, BODY] and gone(listener) == []


async def test_a_deadline_that_passes_meanwhile_is_not_answered_twice(
    resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(3.0)  # as a thread does
        await anyio.sleep(1.0)

    first = Client(1.0)
    await first.ask(watching(app, resilience, timeout=2.0))
    assert first.status == 499 and gone(listener) == [True] and listener.of(DeadlinePassed) == []
    listener.clear()
    second = Client(2.0)
    await second.ask(watching(app, resilience, timeout=1.0))
    assert second.status == 504 and gone(listener) == [] and len(listener.of(DeadlinePassed)) == 1


async def test_websockets_are_not_its_business(resilience: Resilience) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(receive)

    async def receive() -> Any: ...

    await watching(app, resilience)({"type": "websocket", "path": "/", "headers": [], "client": None}, receive, receive)
    assert seen == [receive]


async def test_a_json_body_is_there_for_an_endpoint_that_waits_first(resilience: Resilience, clock: FakeClock) -> None:
    async def endpoint(request: Request) -> Response:
        await anyio.sleep(0.5)
        return JSONResponse(await request.json())

    client = Client(5.0, b'{"a":', b"1}", method="POST")
    app = Starlette(routes=[Route("/", endpoint, methods=["POST"])])
    await client.ask(watching(app, resilience, cancel_on_disconnect=["POST /"]))
    assert client.sent[-1]["body"] == b'{"a":1}'
