"""Which answers are kept, for whom, and until when: nobody is ever served what was meant for somebody else."""

from __future__ import annotations

import ast
import logging
import threading
from typing import Any

import anyio
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.authentication import AuthCredentials, SimpleUser
from starlette.middleware.authentication import AuthenticationMiddleware
from starlette.requests import Request
from starlette.responses import FileResponse, PlainTextResponse, Response
from starlette.routing import Route

from resilient import Level, Resilience
from resilient.asgi import ResilienceMiddleware, StaleResponseMiddleware, StaleResponses
from resilient.asgi.copies import uri_of
from resilient.context import current_record
from resilient.runtime import drive
from resilient.stores import LayeredStore, MemoryStore, SQLiteStore
from resilient.testing import FakeClock

from ..thorough import often
from .test_stale import Page

pytestmark = pytest.mark.anyio


def kept(page: Any, resilience: Resilience, **settings: Any) -> tuple[Any, StaleResponses]:
    stale = StaleResponses(**{"stale_if_error": 300.0, **settings})
    return ResilienceMiddleware(page, resilience, stale=stale), stale


# -- what is never kept ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "headers",
    [
        {"cache_control": "no-store"},
        {"cache_control": "private"},
        {"cache_control": "private, max-age=60, stale-if-error=600"},
        {"set_cookie": "session=1"},
        {"vary": "*"},
        {"content_type": "text/event-stream"},
        {"content_type": "multipart/x-mixed-replace; boundary=x"},
        {"content_length": "9"},  # one more than there was
        {"content_length": "7"},
        {"content_range": "bytes 0-7/100"},
    ],
)
async def test_what_is_never_kept(headers: dict[str, str], resilience: Resilience, ask: Any) -> None:
    page = Page(**headers)
    app, stale = kept(page, resilience)
    await ask(app, "/a")
    assert stale.store.count == 0  # type: ignore[attr-defined]
    page.fails(503)
    assert (await ask(app, "/a")).status == 503


@pytest.mark.parametrize(
    "request_headers",
    [{"authorization": "Bearer a"}, {"cache-control": "no-store"}, {"content-length": "3"}],
)
async def test_what_was_asked_for_so_is_never_kept(request_headers: dict[str, str], resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, stale = kept(page, resilience)
    await ask(app, "/a", headers=request_headers)
    assert stale.store.count == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("status", [206, 304, 500, 503, 301, 404, 401])
async def test_only_good_answers_are_kept_unless_they_say_so(status: int, resilience: Resilience, ask: Any) -> None:
    page = Page()
    page.status = status
    app, stale = kept(page, resilience)
    await ask(app, "/a")
    if status == 301:  # a good answer as any
        assert stale.store.count == 1  # type: ignore[attr-defined]
    else:
        assert stale.store.count == 0  # type: ignore[attr-defined]


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS", "DELETE", "BREW"])
async def test_only_answers_to_get_are_kept(method: str, resilience: Resilience, ask: Any) -> None:
    app, stale = kept(Page(), resilience)
    await ask(app, "/a", method=method)
    assert stale.store.count == 0  # type: ignore[attr-defined]


async def test_a_body_that_is_too_long_passes_by(resilience: Resilience, ask: Any) -> None:
    pieces = [b"x" * 40, b"y" * 40, b"z" * 21]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        headers = [(b"content-length", b"101")] if scope["path"] == "/told" else []
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": piece is not pieces[-1]})

    wrapped, stale = kept(app, resilience, max_body=100)
    for path in ("/told", "/untold"):
        assert (await ask(wrapped, path)).body == b"".join(pieces)
        assert (stale.store.count, stale.shelf._held) == (0, 0)  # type: ignore[attr-defined]
    pieces[-1] = pieces[-1][:-1]
    await ask(wrapped, "/untold")
    assert (stale.store.count, stale.shelf._held) == (1, 0)  # type: ignore[attr-defined]


async def test_what_is_held_of_answers_on_their_way_is_bounded(resilience: Resilience) -> None:
    go = anyio.Event()

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"x" * 90, "more_body": True})
        await go.wait()
        await send({"type": "http.response.body"})

    wrapped, stale = kept(app, resilience, max_body=100)
    most = 0

    async def send(message: Any) -> None:
        nonlocal most
        most = max(most, stale.shelf._held)

    async with anyio.create_task_group() as group:
        for number in range(50):
            scope = {"type": "http", "method": "GET", "path": f"/{number}", "headers": [(b"host", b"shop")], "query_string": b""}
            group.start_soon(wrapped, scope, None, send)
        await anyio.wait_all_tasks_blocked()
        go.set()
    assert most == 17 * 90  # at most 16 bodies of the largest size
    assert (stale.shelf._held, stale.shelf.dropped, stale.store.count) == (0, 33, 17)  # type: ignore[attr-defined]


async def test_files_and_trailers_pass_by(ask: Any, tmp_path: Any) -> None:
    file = tmp_path / "page.txt"
    file.write_text("text")

    async def trailing(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": True})
        await send({"type": "http.response.body", "body": b"x"})
        await send({"type": "http.response.trailers", "headers": [(b"x-sum", b"1")]})

    app, stale = kept(trailing, Resilience())
    assert len((await ask(app, "/a")).messages) == 3
    files, _ = kept(Starlette(routes=[Route("/f", lambda request: FileResponse(file))]), Resilience(), store=stale.store)
    answer = await ask(files, "/f", extensions={"http.response.pathsend": {}})
    assert answer.messages[-1]["type"] == "http.response.pathsend"
    assert stale.store.count == 0  # type: ignore[attr-defined]


async def test_a_degraded_answer_is_not_the_last_good_one(resilience: Resilience, ask: Any) -> None:
    when = ""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        record = current_record()
        assert record is not None
        if when == "before":
            record.add("reviews", Level.STATIC, "circuit_open")
        await send({"type": "http.response.start", "status": 503 if when == "fails" else 200, "headers": []})
        if when == "while":
            record.add("reviews", Level.STATIC, "circuit_open")
        await send({"type": "http.response.body", "body": when.encode()})

    wrapped, _ = kept(app, resilience)
    for when in ("good", "before", "while"):
        assert (await ask(wrapped, "/a")).body == when.encode()
    when = "fails"
    assert (await ask(wrapped, "/a")).body == b"good"


async def test_a_failure_never_replaces_a_good_answer(resilience: Resilience, ask: Any) -> None:
    page = Page(cache_control="max-age=60, stale-if-error=600")
    app, _ = kept(page, resilience)
    await ask(app, "/a")
    page.fails(503)
    for _ in range(3):
        answer = await ask(app, "/a")
        assert (answer.status, answer.body) == (200, b"the page")


@pytest.mark.parametrize("status", [301, 302, 401, 403, 404, 410])
@pytest.mark.parametrize("headers", [{}, {"cache_control": "no-store"}, {"etag": '"x"'}])
async def test_news_is_no_outage_and_ends_the_old_answer(status: int, headers: dict[str, str], resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience)
    await ask(app, "/a")
    page.status, page.headers, page.body = status, headers, b"news"
    assert (await ask(app, "/a")).status == status
    page.fails(503)
    assert (await ask(app, "/a")).body != b"the page"
    page.status, page.headers, page.body = 200, {}, b"back"
    await ask(app, "/a")
    page.fails(503)
    assert (await ask(app, "/a")).body == b"back"


# -- for whom -------------------------------------------------------------------------------------------------------

WHO = ({}, {"cookie": "a=1"}, {"cookie": "a=2"}, {"x-api-key": "1"}, {"x-api-key": "2"}, {"x-tenant": "1"}, {"x-tenant": "2"})


@pytest.mark.parametrize("one", WHO)
@pytest.mark.parametrize("other", WHO)
async def test_what_one_was_given_no_other_gets(one: Any, other: Any, resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience, identity=["X-Tenant"])
    await ask(app, "/a", headers=one)
    page.fails(503)
    assert (await ask(app, "/a", headers=other)).status == (200 if one == other else 503)


async def test_public_is_for_everybody(resilience: Resilience, ask: Any) -> None:
    page = Page(cache_control="public")
    app, _ = kept(page, resilience)
    await ask(app, "/a", headers={"authorization": "Bearer a"})
    page.fails(503)
    assert (await ask(app, "/a")).status == (await ask(app, "/a", headers={"cookie": "b"})).status == 200


async def test_an_anonymous_copy_may_be_shared_by_choice(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience, share_anonymous=True)
    await ask(app, "/a")
    page.fails(503)
    assert (await ask(app, "/a", headers={"cookie": "b"})).status == 200


async def test_private_answers_are_kept_for_one_user_by_choice(resilience: Resilience, ask: Any) -> None:
    page = Page(cache_control="private")
    app, _ = kept(page, resilience, per_user=True)
    await ask(app, "/a", headers={"authorization": "Bearer a"})
    await ask(app, "/a")
    page.fails(503)
    assert (await ask(app, "/a", headers={"authorization": "Bearer a"})).status == 200
    assert (await ask(app, "/a", headers={"authorization": "Bearer b"})).status == 503
    assert (await ask(app, "/a")).status == 503


async def test_partitions_are_the_operators(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience, partition=lambda scope: scope["client"][0])
    await ask(app, "/a", client=("10.0.0.1", 1))
    page.fails(503)
    assert (await ask(app, "/a", client=("10.0.0.1", 2))).status == 200
    assert (await ask(app, "/a", client=("10.0.0.2", 1))).status == 503


@pytest.mark.parametrize("wrong", [lambda scope: 7, lambda scope: scope["no such thing"]])
async def test_a_partition_that_fails_is_told_once_and_harms_nobody(
    wrong: Any, resilience: Resilience, ask: Any, caplog: pytest.LogCaptureFixture
) -> None:
    page = Page()
    app, stale = kept(page, resilience, partition=wrong)
    with caplog.at_level(logging.ERROR, "resilient"):
        for _ in range(3):
            assert (await ask(app, "/a")).status == 200
    assert len(caplog.records) == 1
    assert stale.store.count == 0  # type: ignore[attr-defined]


async def test_who_is_known_by_something_else_than_a_field_is_left_alone(resilience: Resilience, ask: Any) -> None:
    class ByAddress:
        async def authenticate(self, request: Any) -> Any:
            return AuthCredentials(), SimpleUser(request.client.host)

    async def endpoint(request: Request) -> Response:
        return PlainTextResponse(request.user.username)

    inner = Starlette(routes=[Route("/a", endpoint)])
    inner.add_middleware(AuthenticationMiddleware, backend=ByAddress())  # type: ignore[arg-type]
    app, stale = kept(inner, resilience)
    assert (await ask(app, "/a")).body == b"192.0.2.1"
    page, _tls = kept(Page(), resilience, store=stale.store)
    await ask(page, "/a", extensions={"tls": {"client_cert_name": "CN=a"}})
    assert stale.store.count == 0  # type: ignore[attr-defined]


async def test_variants_are_kept_apart(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        language = dict(scope["headers"]).get(b"accept-language", b"none")
        await send({"type": "http.response.start", "status": 503 if broken else 200, "headers": [(b"vary", b"accept-language")]})
        await send({"type": "http.response.body", "body": language})

    broken = False
    wrapped, _ = kept(app, resilience)
    for language in ("de", "en"):
        await ask(wrapped, "/a", headers={"accept-language": language})
    broken = True
    for language in ("de", "en"):
        assert (await ask(wrapped, "/a", headers={"accept-language": language})).body == language.encode()
    assert (await ask(wrapped, "/a", headers={"accept-language": "fr"})).status == 503
    assert (await ask(wrapped, "/a")).status == 503


async def test_what_a_proxy_says_chooses_a_copy_of_its_own(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        host = dict(scope["headers"]).get(b"x-forwarded-host", b"shop")
        await send({"type": "http.response.start", "status": 503 if broken else 200, "headers": []})
        await send({"type": "http.response.body", "body": b"https://" + host})

    broken = False
    wrapped, _ = kept(app, resilience)
    evil = {"x-forwarded-host": "evil", "x-forwarded-for": "203.0.113.9"}
    await ask(wrapped, "/a", headers=evil)
    broken = True
    assert (await ask(wrapped, "/a")).status == 503
    assert (await ask(wrapped, "/a", headers={"x-forwarded-host": "shop"})).status == 503
    assert (await ask(wrapped, "/a", headers={**evil, "x-forwarded-for": "203.0.113.1"})).body == b"https://evil"


async def test_only_chosen_routes_are_kept(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, stale = kept(page, resilience, routes=["/product/{id:int}", "/files/{rest:path}"])
    paths = {"/product/7": 200, "/files/a/b": 200, "/product/x": 503, "/product/7/more": 503, "/": 503, "/other": 503}
    for path in paths:
        await ask(app, path)
    page.fails(503)
    assert {path: (await ask(app, path)).status for path in paths} == paths
    assert (await ask(app, "/api/product/7", root_path="/api")).status == 503  # it has been asked for under another path
    assert stale.covers("/api/product/7", "/api")


@pytest.mark.parametrize("path", ["/health", "/healthz", "/readyz", "/internal/Ready", "/metrics", "/status"])
async def test_nothing_stands_in_for_a_probe(path: str, resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience)
    await ask(app, path)
    page.fails(503)
    assert (await ask(app, path)).status == 503
    chosen, _ = kept(page, resilience, routes=[path])
    page.status = 200
    await ask(chosen, path)
    page.fails(503)
    assert (await ask(chosen, path)).status == 200


async def test_the_probes_of_install_tell_the_truth(ask: Any) -> None:
    resilience = Resilience()
    app = Starlette()
    resilience.install(app, stale=StaleResponses(stale_if_error=60, routes=["/{rest:path}"]))
    assert (await ask(app, "/readyz")).status == 200
    resilience.ready = False
    assert (await ask(app, "/readyz")).status == 503


IDENTITIES = st.fixed_dictionaries(
    {},
    optional={
        "cookie": st.sampled_from(["a", "b"]),
        "authorization": st.sampled_from(["a", "b"]),
        "x-api-key": st.sampled_from(["a", "b"]),
        "accept-language": st.sampled_from(["de", "en"]),
        "x-forwarded-host": st.sampled_from(["a", "b"]),
    },
)
ANSWERS = st.fixed_dictionaries(
    {},
    optional={
        "cache-control": st.sampled_from(
            ["private", "no-store", "max-age=5", "must-revalidate", "stale-if-error=60", "no-cache", "private=x"]
        ),
        "vary": st.sampled_from(["cookie", "accept-language", "x-api-key, accept-language", "*"]),
        "set-cookie": st.just("a=b"),
        "etag": st.sampled_from(['"1"', '"2"']),
    },
)
STEPS = st.lists(
    st.tuples(
        st.sampled_from(["GET", "GET", "GET", "HEAD", "POST"]), IDENTITIES, ANSWERS, st.sampled_from([200, 200, 503, 503, 404, "raises"])
    ),
    min_size=2,
    max_size=12,
)


class Private:
    """An app that tells each caller who he is, whatever it says of how that may be kept."""

    def __init__(self) -> None:
        self.now: tuple[Any, Any] = ({}, 200)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        headers, status = self.now
        if status == "raises":
            raise ValueError
        asked = {name.decode(): value.decode() for name, value in scope["headers"]}
        asked.pop("host", None)
        lines = [(name.encode(), value.encode()) for name, value in headers.items()]
        await send({"type": "http.response.start", "status": status, "headers": lines})
        await send({"type": "http.response.body", "body": repr(sorted(asked.items())).encode()})


def identity_of(headers: dict[str, str]) -> str:
    return repr(sorted((name, value) for name, value in headers.items() if name in ("cookie", "authorization", "x-api-key")))


# Whatever it says or does not say in `Vary` besides: who asks, and for which host, is never mixed up.
@pytest.mark.slow
@settings(max_examples=often(800), deadline=None)
@given(STEPS, st.booleans())
def test_no_answer_ever_crosses_an_identity(steps: Any, per_user: bool) -> None:
    app = Private()
    resilience = Resilience()
    wrapped = StaleResponseMiddleware(app, resilience, stale_if_error=300.0, per_user=per_user)
    for method, headers, answer, status in steps:
        app.now = (answer, status)
        got: list[Any] = []

        async def send(message: Any, got: list[Any] = got) -> None:
            got.append(message)

        lines = [(b"host", b"shop"), *((name.encode(), value.encode()) for name, value in headers.items())]
        scope = {"type": "http", "method": method, "path": "/a", "query_string": b"", "headers": lines}
        try:
            drive(wrapped(scope, None, send))  # type: ignore[arg-type]
        except ValueError:
            assert got == []
            continue
        assert [message["type"] for message in got] == ["http.response.start", "http.response.body"]
        fields = dict(got[0]["headers"])
        if b"age" not in fields:
            continue
        assert fields[b"degraded"] == b"response;level=reduced"
        said = fields.get(b"cache-control", b"").decode()
        assert b"set-cookie" not in fields and said not in ("no-store", "must-revalidate", "no-cache")
        assert said != "private" or per_user
        if got[1]["body"]:
            told = dict(ast.literal_eval(got[1]["body"].decode()))
            assert identity_of(told) == identity_of(headers)
            assert told.get("x-forwarded-host") in (None, headers.get("x-forwarded-host"))
            for name in fields.get(b"vary", b"").decode().split(", "):
                assert not name or told.get(name) == headers.get(name)


# -- which URI ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scope", "host", "uri"),
    [
        ({"path": "/a b"}, "Shop:8000", "http://shop:8000/a%20b"),
        ({"path": "/ä", "query_string": b"q=%C3%A4&b"}, "shop", "http://shop/%C3%A4?q=%C3%A4&b"),
        ({"path": "/a#b"}, "shop", "http://shop/a%23b"),
        ({"path": "/a", "query_string": b"b#c"}, "shop", "http://shop/a?b%23c"),
        ({"path": "/a\n"}, "shop", "http://shop/a%0A"),
        ({"path": "/a?b"}, "shop", "http://shop/a%3Fb"),
        ({"path": "/a", "query_string": b"x\ny"}, "shop", None),
        ({"path": "/a/b", "raw_path": b"/a%2Fb"}, "shop", None),
        ({"path": "a"}, "shop", None),
        ({"path": "/a"}, "shop/b", None),
        ({"path": "/a"}, "user@shop", None),
        ({"path": "/a"}, "a, b", None),
        ({"path": "/a"}, "", None),
        ({"path": "/a", "server": ("10.0.0.1", 80)}, None, "http://10.0.0.1:80/a"),
        ({"path": "/a", "server": ("::1", 80)}, None, "http://::1:80/a"),
        ({"path": "/a", "server": ("/tmp/socket", None)}, None, None),
        ({"path": "/a"}, None, None),
        ({"path": "/a", "scheme": "https"}, "shop", "https://shop/a"),
    ],
)
def test_the_uri_of_a_request(scope: Any, host: str | None, uri: str | None) -> None:
    assert uri_of(scope, host) == uri


async def test_each_query_and_host_has_its_own(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience)
    await ask(app, "/a", query_string=b"page=1", headers={"host": "one"})
    page.fails(503)
    assert (await ask(app, "/a", query_string=b"page=1", headers={"host": "one"})).status == 200
    for query, host in ((b"page=2", "one"), (b"", "one"), (b"page=1", "two")):
        assert (await ask(app, "/a", query_string=query, headers={"host": host})).status == 503


# -- writes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "BREW"])
@pytest.mark.parametrize(("status", "left"), [(200, 503), (201, 503), (303, 503), (400, 200), (409, 200), (500, 200)])
async def test_a_write_that_succeeds_ends_what_was_kept(method: str, status: int, left: int, resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience)
    for headers in ({}, {"cookie": "a"}):
        await ask(app, "/a", headers=headers)
    page.status = status
    assert (await ask(app, "/a", method=method)).status == status
    page.fails(503)
    for headers in ({}, {"cookie": "a"}):
        assert (await ask(app, "/a", headers=headers)).status == left
    page.status, page.body = 200, b"new"
    await ask(app, "/a")
    page.fails(503)
    assert (await ask(app, "/a")).body == b"new"


async def test_a_write_names_what_else_it_has_changed(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience, routes=["/product/{id}"])
    for path in ("/product/7", "/product/8", "/product/9"):
        await ask(app, path)
    page.status, page.headers = 201, {"location": "/product/7", "content_location": "http://testserver:80/product/8"}
    await ask(app, "/products", method="POST")
    page.fails(503)
    page.headers = {}
    assert [(await ask(app, f"/product/{number}")).status for number in (7, 8, 9)] == [503, 503, 200]


@pytest.mark.parametrize("blocking", [False, True])
async def test_an_answer_that_a_write_overtook_is_not_kept(blocking: bool, tmp_path: Any, ask: Any) -> None:
    resilience = Resilience()
    store = SQLiteStore(tmp_path / "kept.db") if blocking else MemoryStore()
    written = anyio.Event()
    status = 200

    async def page(scope: Any, receive: Any, send: Any) -> None:
        old = scope["method"] == "GET" and not written.is_set()
        if old:
            await written.wait()
        await PlainTextResponse("old" if old else "new", status)(scope, receive, send)

    app, _ = kept(page, resilience, store=store)
    async with anyio.create_task_group() as group:
        group.start_soon(ask, app, "/a")
        await anyio.wait_all_tasks_blocked()
        await ask(app, "/a", method="POST")
        written.set()
    await settled(store)
    status = 503
    assert (await ask(app, "/a")).status == 503
    store.close()


async def test_writes_elsewhere_cost_nothing_that_is_kept(resilience: Resilience, ask: Any) -> None:
    page = Page()
    app, stale = kept(page, resilience, store=MemoryStore(max_marks=4))
    await ask(app, "/a")
    for number in range(50):
        await ask(app, f"/cart/{number}", method="PUT")
    assert stale.store.count == 1  # type: ignore[attr-defined]
    page.fails(503)
    assert (await ask(app, "/a")).status == 200


# -- stores ---------------------------------------------------------------------------------------------------------


async def settled(store: Any) -> None:
    """Wait until what goes on beside the requests is done."""
    flush = getattr(store, "flush", None)
    for _ in range(20):
        await anyio.sleep(0.01)
    if flush is not None:
        await anyio.to_thread.run_sync(flush, 5.0)


class Slow:
    """A store that blocks, and notes on which threads."""

    blocking = True

    def __init__(self) -> None:
        self.inner = MemoryStore()
        self.log: list[str] = []
        self.broken = False

    def _note(self, what: str) -> None:

        self.log.append(what)
        assert threading.current_thread() is not threading.main_thread()
        if self.broken:
            raise OSError("the disk is gone")

    def load(self, keys: Any) -> Any:
        self._note("load")
        return self.inner.load(keys)

    def save(self, records: Any) -> None:
        self._note("save")
        self.inner.save(records)

    def remove(self, keys: Any) -> None:
        self._note("remove")
        self.inner.remove(keys)

    def close(self) -> None:
        self.inner.close()


@pytest.mark.parametrize("kind", ["sqlite", "layered"])
async def test_in_a_store_that_blocks(kind: str, tmp_path: Any, ask: Any) -> None:
    store: Any = SQLiteStore(tmp_path / "kept.db")
    if kind == "layered":
        store = LayeredStore(store)
    page = Page()
    app, _ = kept(page, Resilience(), store=store)
    await ask(app, "/a")
    await settled(store)
    page.fails(ValueError("broken"))
    answer = await ask(app, "/a")
    assert (answer.status, answer.body) == (200, b"the page")
    page.error = None
    page.status = 200
    await ask(app, "/a", method="DELETE")
    page.fails(503)
    assert (await ask(app, "/a")).status == 503
    store.close()


async def test_a_good_answer_never_waits_for_a_store(ask: Any) -> None:
    store = Slow()
    sent_at: list[list[str]] = []
    app, _stale = kept(Page(), Resilience(), store=store)

    async def send(message: Any) -> None:
        sent_at.append([*store.log])

    scope = {"type": "http", "method": "GET", "path": "/a", "headers": [(b"host", b"shop")], "query_string": b""}
    await app(scope, None, send)
    assert sent_at == [[], []]
    await settled(store)
    assert store.log == ["load", "save"]
    for _ in range(10):
        await ask(app, "/a", headers={"host": "shop"})
    await settled(store)
    assert store.log == ["load", "save"]  # the very same was kept a moment ago


async def test_a_store_that_fails_harms_nobody(ask: Any, caplog: pytest.LogCaptureFixture) -> None:
    store = Slow()
    store.broken = True
    page = Page()
    app, stale = kept(page, Resilience(), store=store)
    with caplog.at_level(logging.ERROR, "resilient"):
        assert (await ask(app, "/a")).status == 200
        await settled(store)
        assert (await ask(app, "/a", method="POST")).status == 200
        page.fails(503)
        assert (await ask(app, "/a")).status == 503
    assert stale.stock.failures >= 3
    assert len(caplog.records) == 1


async def test_what_goes_to_a_store_at_a_time_is_bounded(ask: Any) -> None:
    class Hung(Slow):
        def _note(self, what: str) -> None:
            self.log.append(what)
            go.wait(10)

    go = threading.Event()
    app, stale = kept(Page(), Resilience(), store=Hung())
    for number in range(40):
        assert (await ask(app, f"/{number}")).status == 200
    assert stale.shelf.dropped == 24
    go.set()
    await settled(stale.store)
    assert stale.shelf._writing == 0


async def test_a_store_that_hangs_does_not_keep_the_error_back(clock: FakeClock, ask: Any) -> None:

    go = threading.Event()

    class Hung(Slow):
        def _note(self, what: str) -> None:
            go.wait(10)

    page = Page()
    page.status = 503
    app, _ = kept(page, Resilience(clock=clock), store=Hung())
    try:
        assert (await ask(app, "/a")).status == 503
    finally:
        go.set()


# -- what caches of others are told -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "told"),
    [
        (None, "stale-if-error=600"),
        ("", "stale-if-error=600"),
        ("public", "public, stale-if-error=600"),
        ("max-age=5", "max-age=5, stale-if-error=600, stale-while-revalidate=30"),
        ("max-age=5, stale-if-error=1", "max-age=5, stale-if-error=1, stale-while-revalidate=30"),
        ("max-age=5, stale-while-revalidate=0", "max-age=5, stale-while-revalidate=0, stale-if-error=600"),
        ("no-store", "no-store"),
        ("private", "private"),
        ("no-cache", "no-cache"),
        ("max-age=5, must-revalidate", "max-age=5, must-revalidate"),
        ("max-age=5, proxy-revalidate", "max-age=5, proxy-revalidate"),
        ("s-maxage=5", "s-maxage=5"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "HEAD"])
@pytest.mark.parametrize("status", [200, 304])
async def test_caches_downstream_are_told_that_they_may(
    said: str | None, told: str, method: str, status: int, resilience: Resilience, ask: Any
) -> None:
    page = Page() if said is None else Page(cache_control=said)
    page.status = status
    app, _ = kept(page, resilience, downstream_stale_if_error=600, downstream_stale_while_revalidate=30)
    assert (await ask(app, "/a", method=method)).header("cache-control") == [told]


@pytest.mark.parametrize(
    ("headers", "status", "request_headers"),
    [
        ({"set_cookie": "a=b"}, 200, {}),
        ({"vary": "*"}, 200, {}),
        ({}, 404, {}),
        ({}, 206, {}),
        ({}, 500, {}),
        ({}, 200, {"cookie": "a"}),
        ({}, 200, {"authorization": "a"}),
        ({}, 200, {"cache-control": "no-store"}),
    ],
)
async def test_nothing_is_said_of_what_others_may_not_keep(
    headers: Any, status: int, request_headers: Any, resilience: Resilience, ask: Any
) -> None:
    page = Page(**headers)
    page.status = status
    app, _ = kept(page, resilience, downstream_stale_if_error=600)
    assert (await ask(app, "/a", headers=request_headers)).header("cache-control") == []


async def test_what_others_are_told_gives_nothing_to_ourselves(resilience: Resilience, clock: FakeClock, ask: Any) -> None:
    page = Page()
    app, _ = kept(page, resilience, stale_if_error=10, downstream_stale_if_error=600)
    await ask(app, "/a")
    page.fails(503)
    clock.advance(11)
    assert (await ask(app, "/a")).status == 503
