"""Starlette's own observable behaviours, with and without everything that this library has: the same for the client and the app."""

from __future__ import annotations

import contextvars
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from fastapi import BackgroundTasks, Depends, FastAPI, HTTPException
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.middleware import Middleware
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.middleware.gzip import GZipMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Host, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.testclient import TestClient
from starlette.websockets import WebSocket, WebSocketDisconnect

from resilient import CircuitOpen, Resilience
from resilient.asgi import Admission, Disconnects, StaleResponses

Wrap = Callable[[Any], Any]
VARIABLE: contextvars.ContextVar[str] = contextvars.ContextVar("variable", default="unset")


def everything(app: Any) -> Any:
    """All aspects on, and a limit that covers the body."""
    resilience = Resilience()
    resilience.install(
        app,
        trusted=["10.0.0.0/8"],
        body=True,
        stale=StaleResponses(stale_if_error=300),
        admission=Admission(criticality={"/items/{rest:path}": "sheddable"}),
        cancel_on_disconnect=Disconnects(after=0.01),
    )
    return app


def everything_in_shadow(app: Any) -> Any:
    """All of it, and none of it acts."""
    Resilience().install(
        app,
        admission=Admission(enforce=False),
        enforce_deadlines=False,
        cancel_on_disconnect=Disconnects(after=0.01, enforce=False),
    )
    return app


@pytest.fixture(params=["bare", "everything", "in shadow"])
def wrap(request: pytest.FixtureRequest) -> Wrap:
    return {"bare": lambda app: app, "everything": everything, "in shadow": everything_in_shadow}[request.param]


@pytest.fixture(params=["asyncio", "trio"])
def visit(request: pytest.FixtureRequest, wrap: Wrap) -> Iterator[Callable[..., TestClient]]:
    """`visit(app)` is a test client of the app, wrapped, with its lifespan running."""
    opened: list[TestClient] = []

    def visit(app: Any, *, further_out: Callable[[Any], None] = lambda app: None, **options: Any) -> TestClient:
        wrapped = wrap(app)
        further_out(wrapped)
        client = TestClient(wrapped, backend=request.param, **options)
        client.__enter__()
        opened.append(client)
        return client

    yield visit
    for client in opened:
        client.__exit__()


async def passing(request: Request, call_next: Callable[[Request], Any]) -> Response:
    response: Response = await call_next(request)
    response.headers["x-passed"] = "yes"
    return response


async def ok(request: Request) -> Response:
    return PlainTextResponse("ok")


def told(response: Any) -> tuple[int, dict[str, str], bytes]:
    headers = {name: value for name, value in response.headers.items() if name not in ("date", "last-modified", "etag", "set-cookie")}
    return response.status_code, headers, response.content


# -- responses --------------------------------------------------------------------------------------------------------


def test_plain_answers_are_what_they_were(visit: Any) -> None:
    async def many(request: Request) -> Response:
        response = JSONResponse({"a": [1, 2]}, status_code=201, headers={"x-one": "1"})
        response.headers.append("x-two", "2")
        response.headers.append("x-two", "3")
        response.set_cookie("a", "b")
        return response

    client = visit(Starlette(routes=[Route("/", many), Route("/moved", lambda request: RedirectResponse("/", 303)), Route("/ok", ok)]))
    answer = client.get("/")
    assert (answer.status_code, answer.json(), answer.headers["x-two"], answer.cookies["a"]) == (201, {"a": [1, 2]}, "2, 3", "b")
    assert told(client.head("/ok")) == (200, {"content-length": "2", "content-type": "text/plain; charset=utf-8"}, b"")
    assert client.get("/moved", follow_redirects=False).headers["location"] == "/"
    assert told(client.get("/nowhere")) == (404, {"content-length": "9", "content-type": "text/plain; charset=utf-8"}, b"Not Found")
    refused = client.post("/ok")
    assert (refused.status_code, set(refused.headers["allow"].split(", "))) == (405, {"GET", "HEAD"})


def test_streams_come_as_they_are_made(visit: Any) -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            for number in range(5):
                await anyio.sleep(0.01)
                yield b"%d" % number

        return StreamingResponse(chunks(), media_type="text/plain")

    def plain(request: Request) -> Response:
        return StreamingResponse(iter(["a", "b", "c"]))

    client = visit(Starlette(routes=[Route("/", stream), Route("/plain", plain)]))
    with client.stream("GET", "/") as answer:
        assert answer.headers.get("content-length") is None
        assert b"".join(answer.iter_raw()) == b"01234"
    assert client.get("/plain").text == "abc"


def test_files_and_ranges(visit: Any, tmp_path: Path) -> None:
    file = tmp_path / "page.txt"
    file.write_text("0123456789")
    app = Starlette(routes=[Route("/file", lambda request: FileResponse(file)), Mount("/static", StaticFiles(directory=tmp_path))])
    client = visit(app)
    for path in ("/file", "/static/page.txt"):
        whole = client.get(path)
        assert (whole.status_code, whole.text, whole.headers["accept-ranges"]) == (200, "0123456789", "bytes")
        part = client.get(path, headers={"range": "bytes=2-4"})
        assert (part.status_code, part.text, part.headers["content-range"]) == (206, "234", "bytes 2-4/10")
        assert client.get(path, headers={"range": "bytes=0-1, 8-9"}).status_code == 206
        assert client.get(path, headers={"range": "bytes=90-"}).status_code == 416
        assert client.head(path).headers["content-length"] == "10"
    assert client.get("/static/page.txt", headers={"if-none-match": whole.headers["etag"]}).status_code == 304


def test_background_tasks_run_after_the_answer(visit: Any) -> None:
    done: list[str] = []

    async def work(word: str) -> None:
        await anyio.sleep(0.05)
        done.append(word)

    def in_thread(word: str) -> None:
        done.append(word)

    app = FastAPI()

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks) -> str:
        tasks.add_task(work, "first")
        tasks.add_task(in_thread, "second")
        return "accepted"

    @app.get("/one")
    async def one() -> Response:
        return Response("accepted", background=BackgroundTask(work, "third"))

    client = visit(app)
    assert client.get("/").json() == "accepted" and done == ["first", "second"]
    assert client.get("/one").text == "accepted" and done[2:] == ["third"]


def test_gzip_and_cors_and_sessions(visit: Any) -> None:
    sessions = pytest.importorskip("starlette.middleware.sessions", exc_type=ImportError)

    async def counted(request: Request) -> Response:
        request.session["n"] = request.session.get("n", 0) + 1
        return PlainTextResponse(str(request.session["n"]) * 2000)

    middleware = [
        Middleware(GZipMiddleware, minimum_size=100),
        Middleware(CORSMiddleware, allow_origins=["http://page"]),
        Middleware(sessions.SessionMiddleware, secret_key="s"),
    ]
    client = visit(Starlette(routes=[Route("/", counted)], middleware=middleware))
    for expected in ("1", "2"):
        answer = client.get("/", headers={"origin": "http://page", "accept-encoding": "gzip"})
        assert answer.text == expected * 2000
        assert (answer.headers["content-encoding"], answer.headers["access-control-allow-origin"]) == ("gzip", "http://page")
    preflight = client.options("/", headers={"origin": "http://page", "access-control-request-method": "GET"})
    assert preflight.status_code == 200


@pytest.mark.anyio
@pytest.mark.parametrize(
    "messages",
    [
        [{"type": "http.response.start", "status": 200, "headers": [], "trailers": True},
         {"type": "http.response.body", "body": b"x", "more_body": False},
         {"type": "http.response.trailers", "headers": [(b"x-sum", b"1")], "more_trailers": False}],
        [{"type": "http.response.push", "path": "/style.css", "headers": []},
         {"type": "http.response.start", "status": 200, "headers": []},
         {"type": "http.response.body", "body": b"x"}],
        [{"type": "http.response.early_hint", "links": [b"</style.css>; rel=preload"]},
         {"type": "http.response.debug", "info": {"template": "t"}},
         {"type": "http.response.start", "status": 200, "headers": []},
         {"type": "http.response.body"}],
        [{"type": "http.response.start", "status": 200, "headers": []},
         {"type": "http.response.pathsend", "path": "/tmp/a"}],
        [{"type": "http.response.start", "status": 200, "headers": []},
         {"type": "http.response.zerocopysend", "file": 3, "more_body": True},
         {"type": "http.response.zerocopysend", "file": 3}],
    ],
    ids=["trailers", "push", "early hint and debug", "pathsend", "zerocopysend"],
)  # fmt: skip
async def test_messages_of_extensions_pass_as_they_are(messages: list[Any], wrap: Wrap, ask: Any) -> None:
    async def endpoint(scope: Any, receive: Any, send: Any) -> None:
        for message in messages:
            await anyio.sleep(0.02)
            await send(message)

    app = wrap(Starlette(routes=[Mount("/", endpoint)]))
    extensions = {"http.response.trailers": {}, "http.response.push": {}, "http.response.pathsend": {}}
    assert (await ask(app, extensions=extensions)).messages == messages


# -- requests ---------------------------------------------------------------------------------------------------------


def test_bodies_forms_and_streams_are_the_apps_to_read(visit: Any) -> None:
    pytest.importorskip("python_multipart")

    async def body(request: Request) -> Response:
        await anyio.sleep(0.05)
        return Response(await request.body())

    async def stream(request: Request) -> Response:
        return PlainTextResponse(str(sum([len(chunk) async for chunk in request.stream()])))

    async def form(request: Request) -> Response:
        async with request.form() as found:
            upload: Any = found["file"]
            return JSONResponse({"name": found["name"], "size": len(await upload.read())})

    routes = [Route(f"/{one.__name__}", one, methods=["POST"]) for one in (body, stream, form)]
    client = visit(Starlette(routes=routes))
    assert client.post("/body", content=b"a" * 100_000).content == b"a" * 100_000
    assert client.post("/stream", content=iter([b"ab", b"cd"])).text == "4"
    assert client.post("/form", data={"name": "n"}, files={"file": b"x" * 70_000}).json() == {"name": "n", "size": 70_000}


def test_is_disconnected_says_no_while_the_client_is_there(visit: Any) -> None:
    async def endpoint(request: Request) -> Response:
        said: list[Any] = [(await request.body()).decode()]  # first: what is asked before that is taken by the question
        for _ in range(3):
            said.append(await request.is_disconnected())
            await anyio.sleep(0.02)
        return JSONResponse(said)

    client = visit(Starlette(routes=[Route("/", endpoint, methods=["GET", "POST"])]))
    assert client.post("/", content=b"still here").json() == ["still here", False, False, False]


def test_sync_endpoints_see_the_context_and_run_in_threads(visit: Any) -> None:
    import threading

    app = FastAPI()

    async def setting() -> None:
        VARIABLE.set("by a dependency")

    @app.get("/")
    def sync(_: None = Depends(setting)) -> list[Any]:
        return [threading.current_thread() is threading.main_thread(), VARIABLE.get()]

    @app.get("/thread")
    async def thread() -> str:
        VARIABLE.set("here")
        return await anyio.to_thread.run_sync(VARIABLE.get)

    client = visit(app)
    assert client.get("/").json() == [False, "by a dependency"]
    assert client.get("/thread").json() == "here"


@pytest.mark.anyio
async def test_context_of_an_endpoint_is_visible_around_the_app(wrap: Wrap, ask: Any) -> None:
    """As it is with pure ASGI middleware, and isn't with `BaseHTTPMiddleware`."""
    app = wrap(Starlette(routes=[Route("/", _set)]))
    seen = []

    async def outermost(scope: Any, receive: Any, send: Any) -> None:
        await app(scope, receive, send)
        seen.append(VARIABLE.get())

    await ask(outermost)
    assert seen == ["by the endpoint"]


async def _set(request: Request) -> Response:
    VARIABLE.set("by the endpoint")
    return Response()


# -- errors -----------------------------------------------------------------------------------------------------------


class Shelved(Exception):
    pass


def test_handlers_of_the_app_answer(visit: Any) -> None:
    async def shelved(request: Request, error: Exception) -> Response:
        return PlainTextResponse("shelved", status_code=418)

    async def unavailable(request: Request, error: Exception) -> Response:
        return PlainTextResponse("ours to say", status_code=503)

    async def raising(request: Request) -> Response:
        kind = request.path_params["kind"]
        raise {
            "own": Shelved(),
            "http": HTTPException(409, {"why": "so"}, {"x-why": "so"}),
            "plain": StarletteHTTPException(410),
            "open": CircuitOpen("x"),
        }[kind]

    app = FastAPI(exception_handlers={Shelved: shelved, CircuitOpen: unavailable})
    app.add_route("/{kind}", raising)
    client = visit(app)
    assert told(client.get("/own"))[::2] == (418, b"shelved")
    conflict = client.get("/http")
    assert (conflict.status_code, conflict.json(), conflict.headers["x-why"]) == (409, {"detail": {"why": "so"}}, "so")
    assert client.get("/plain").status_code == 410
    assert told(client.get("/open"))[::2] == (503, b"ours to say")


def test_errors_that_nobody_handles_are_raised_on(visit: Any) -> None:
    async def broken(request: Request) -> Response:
        raise Shelved

    def app() -> Any:
        return Starlette(routes=[Route("/", broken)])

    with pytest.raises(Shelved):
        visit(app()).get("/")
    answer = visit(app(), raise_server_exceptions=False).get("/")
    assert (answer.status_code, answer.text) == (500, "Internal Server Error")


def test_a_debug_page_is_shown(visit: Any) -> None:
    async def broken(request: Request) -> Response:
        raise Shelved

    answer = visit(Starlette(debug=True, routes=[Route("/", broken)]), raise_server_exceptions=False).get("/")
    assert answer.status_code == 500 and "Traceback" in answer.text


def test_an_error_in_the_middle_of_a_stream_breaks_it_off(visit: Any) -> None:
    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"half"
            raise Shelved

        return StreamingResponse(chunks())

    with pytest.raises(Shelved):
        visit(Starlette(routes=[Route("/", stream)])).get("/")


# -- the structure of an app ------------------------------------------------------------------------------------------


def test_mounts_hosts_and_paths(visit: Any) -> None:
    async def where(request: Request) -> Response:
        return JSONResponse([request.scope.get("root_path", ""), request.url.path, request.path_params])

    inner = Starlette(routes=[Route("/{id:int}", where, name="where"), Mount("/deep/{tenant}", routes=[Route("/x", where)])])
    hosted = Host("api.example.com", Starlette(routes=[Route("/", where)]))
    app = Starlette(routes=[Mount("/shop", inner, name="shop"), hosted, Route("/{rest:path}", where)])
    client = visit(app)
    assert client.get("/shop/7").json() == ["/shop", "/shop/7", {"id": 7}]
    assert client.get("/shop/deep/t1/x").json() == ["/shop/deep/t1", "/shop/deep/t1/x", {"tenant": "t1"}]
    assert client.get("/", headers={"host": "api.example.com"}).json() == ["", "/", {}]
    assert client.get("/any/thing").json() == ["", "/any/thing", {"rest": "any/thing"}]
    assert app.url_path_for("shop:where", id=3) == "/shop/3"


@pytest.mark.parametrize("outside", [True, False])
def test_base_http_middleware_inside_and_outside(outside: bool, visit: Any) -> None:
    ended: list[str] = []

    async def later() -> None:
        ended.append("background")

    async def stream(request: Request) -> Response:
        async def chunks() -> AsyncIterator[bytes]:
            yield b"a"
            await anyio.sleep(0.03)
            yield b"b"

        return StreamingResponse(chunks(), background=BackgroundTask(later))

    async def echo(request: Request) -> Response:
        return Response(await request.body())

    async def missing(request: Request) -> Response:
        raise StarletteHTTPException(404, "none")

    async def reading(request: Request, call_next: Any) -> Response:
        await request.body()
        return await passing(request, call_next)

    app = Starlette(routes=[Route("/", stream), Route("/echo", echo, methods=["POST"]), Route("/missing", missing)])

    def add(app: Any) -> None:
        app.add_middleware(BaseHTTPMiddleware, dispatch=reading)

    if outside:  # what is added later lies further out
        client = visit(app, further_out=add)
    else:
        add(app)
        client = visit(app)
    answer = client.get("/")
    assert (answer.content, answer.headers["x-passed"]) == (b"ab", "yes")
    assert ended == ["background"]
    assert client.post("/echo", content=b"body").content == b"body"
    assert client.get("/missing").status_code == 404


def test_lifespan_state_reaches_requests(visit: Any) -> None:
    events = []

    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[dict[str, Any]]:
        events.append("begun")
        yield {"pool": "open", "resources": [1]}
        events.append("ended")

    async def state(request: Request) -> Response:
        request.state.mine = "set"
        return JSONResponse([request.state.pool, request.state.resources, request.state.mine])

    client = visit(Starlette(routes=[Route("/", state)], lifespan=lifespan))
    assert events == ["begun"]
    for _ in range(2):
        assert client.get("/").json() == ["open", [1], "set"]


def test_a_lifespan_that_fails_fails(wrap: Wrap) -> None:
    @asynccontextmanager
    async def lifespan(app: Any) -> AsyncIterator[None]:
        raise Shelved
        yield

    with pytest.raises(Shelved), TestClient(wrap(Starlette(lifespan=lifespan))):
        pass


def test_websockets(visit: Any) -> None:
    async def echo(socket: WebSocket) -> None:
        await socket.accept(subprotocol="chat", headers=[(b"x-socket", b"1")])
        try:
            while True:
                await socket.send_text(f"{socket.path_params['room']}: {await socket.receive_text()}")
        except WebSocketDisconnect as left:
            closed.append(left.code)

    async def refused(socket: WebSocket) -> None:
        await socket.close(4001)

    async def denied(socket: WebSocket) -> None:
        await socket.send_denial_response(PlainTextResponse("no", status_code=403))

    closed: list[int] = []
    routes = [WebSocketRoute("/rooms/{room}", echo), WebSocketRoute("/refused", refused), WebSocketRoute("/denied", denied)]
    client = visit(Starlette(routes=routes))
    with client.websocket_connect("/rooms/a", subprotocols=["chat"]) as socket:
        assert socket.accepted_subprotocol == "chat"
        for word in ("one", "two"):
            socket.send_text(word)
            assert socket.receive_text() == f"a: {word}"
        socket.close(4000)
    assert closed == [4000]
    with pytest.raises(WebSocketDisconnect) as left, client.websocket_connect("/refused"):
        pass
    assert left.value.code == 4001
    with pytest.raises(WebSocketDisconnect), client.websocket_connect("/denied"):
        pass


def test_dependencies_that_yield_end_after_the_answer(visit: Any) -> None:
    order: list[str] = []
    app = FastAPI()

    async def session() -> AsyncIterator[str]:
        order.append("opened")
        yield "session"
        order.append("closed")

    @app.get("/")
    async def endpoint(tasks: BackgroundTasks, one: str = Depends(session)) -> str:
        tasks.add_task(order.append, "background")
        return one

    assert visit(app).get("/").json() == "session"
    assert sorted(order) == ["background", "closed", "opened"] and order[0] == "opened"


@pytest.mark.anyio
@pytest.mark.parametrize("type_", ["http.custom", "webtransport"])
async def test_other_protocols_pass(type_: str, wrap: Wrap) -> None:
    """An app of its own kind, which Starlette would refuse."""
    from resilient.asgi import ResilienceMiddleware

    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append((scope, receive, send))

    async def nothing(*_: Any) -> Any: ...

    scope = {"type": type_}
    await ResilienceMiddleware(app, Resilience(), cancel_on_disconnect=True)(scope, nothing, nothing)
    assert seen == [(scope, nothing, nothing)] and scope == {"type": type_}
