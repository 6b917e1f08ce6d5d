"""What clients may send to do harm: never an exception, nothing that grows, nothing told that is not theirs to know."""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import random
import string
from typing import Any
from urllib.parse import quote

import anyio
import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Mount, Route

from resilient import CircuitBreaker, CircuitOpen, Criticality, Fallback, Resilience, Retry, current_criticality, current_deadline
from resilient.asgi import Admission, Disconnects, ResilienceMiddleware, StaleResponses
from resilient.asgi.criticality import InboundCriticality
from resilient.asgi.deadline import InboundDeadlines
from resilient.asgi.pulse import running_loop
from resilient.httpx import AsyncResilientTransport
from resilient.stores import MemoryStore
from resilient.testing import FaultyTransport

from ..thorough import often

TRUSTED, STRANGER = ("10.0.0.7", 1), ("198.51.100.66", 1)
MB = 1024 * 1024
SECRETS = ("catalog", "suggestions-internal", "hunter2", "circuit_open", "ConnectError", "10.9.8.7", "Traceback")


class Fortress:
    """A service with everything on, that calls something which is down."""

    def __init__(self, **options: Any) -> None:
        self.resilience = Resilience()
        self.store = MemoryStore(max_bytes=200_000, max_entries=300, max_marks=50)
        self.catalog = self.resilience.dependency("catalog", CircuitBreaker(key="route", max_keys=100), origin="http://10.9.8.7")
        suggestions = self.resilience.dependency("suggestions-internal", Retry(attempts=1), origin="http://10.9.8.8")
        self.wire = FaultyTransport([httpx.ConnectError("password=hunter2")])
        self.client = httpx.AsyncClient(transport=AsyncResilientTransport(self.resilience, self.wire))
        self.seen: list[Any] = []

        @self.resilience.feature("suggestions", needs=[suggestions], fallback=[])
        async def suggested() -> Any:
            return (await self.client.get("http://10.9.8.8/")).json()

        async def item(request: Request) -> Response:
            deadline = current_deadline()
            self.seen.append((current_criticality(), None if deadline is None else deadline.remaining))
            return JSONResponse(await suggested(), headers={"cache-control": "max-age=60"})

        async def down(request: Request) -> Response:
            raise CircuitOpen("catalog: password=hunter2", dependency="catalog", policy="circuit_breaker", reason="outage", retry_after=2.0)

        async def proxied(request: Request) -> Response:
            with contextlib.suppress(httpx.TransportError, CircuitOpen):
                await self.client.get("http://10.9.8.7/" + quote(request.path_params["rest"], safe="/"))
            return Response("sent on")

        self.app = Starlette(
            routes=[
                Route("/items/{id}", item, methods=["GET", "POST"]),
                Route("/down", down),
                Mount("/files", routes=[Route("/{rest:path}", proxied)]),
            ]
        )
        self.resilience.install(
            self.app,
            **{
                "trusted": ["10.0.0.0/8"],
                "timeout": 30.0,
                "stale": StaleResponses(stale_if_error=300, store=self.store),
                "admission": Admission(criticality={"GET /items/{id}": "sheddable"}, streams=["/events/{rest:path}"]),
                "cancel_on_disconnect": Disconnects(),
                **options,
            },
        )

    async def ask(self, path: str = "/items/7", *, client: Any = STRANGER, method: str = "GET", headers: Any = (), **scope: Any) -> Any:
        return await converse(self.app, path, client=client, method=method, headers=headers, **scope)

    def page(self) -> str:
        return self.resilience.metrics.render()[0].decode()


async def converse(app: Any, path: str, *, client: Any, method: str, headers: Any, **scope: Any) -> tuple[Any, bytes]:
    """One request, as a server hands it on. Returns the response's start and its body."""
    sent: list[Any] = []
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        await anyio.sleep(0)
        return incoming.pop() if incoming else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        sent.append(message)

    asked = {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method, "scheme": "http",
        "path": path, "raw_path": path.encode(errors="replace"), "query_string": b"", "root_path": "", "headers": list(headers),
        "client": client, "server": ("shop", 80), **scope,
    }  # fmt: skip
    await app({name: value for name, value in asked.items() if value is not ...}, receive, send)
    starts = [message for message in sent if message["type"] == "http.response.start"]
    bodies = [message for message in sent if message["type"] == "http.response.body"]
    assert len(starts) == 1 and len(bodies) >= 1 and not bodies[-1].get("more_body")
    return starts[0], b"".join(message.get("body", b"") for message in bodies)


def shown(start: Any, body: bytes) -> str:
    return repr(start["headers"]) + body.decode(errors="replace")


@pytest.fixture
def fortress() -> Fortress:
    return Fortress()


# -- who says so ------------------------------------------------------------------------------------------------------

FORGED = [(b"x-request-timeout-ms", b"1"), (b"grpc-timeout", b"1n"), (b"x-envoy-expected-rq-timeout-ms", b"0")]


@pytest.mark.anyio
async def test_a_stranger_says_neither_how_long_he_waits_nor_how_much_he_matters(fortress: Fortress) -> None:
    forwarded = [(b"x-forwarded-for", b"10.0.0.7"), (b"forwarded", b"for=10.0.0.7"), (b"x-real-ip", b"10.0.0.7")]
    for client in (STRANGER, None, ("", 0), ("10.0.0.7.example.com", 1), ("::ffff:198.51.100.66", 1), ("10.0.0.7%eth0", 1)):
        start, _ = await fortress.ask(client=client, headers=[*FORGED, (b"x-criticality", b"critical_plus"), *forwarded])
        assert start["status"] == 200
    assert {criticality for criticality, _ in fortress.seen} == {Criticality.SHEDDABLE}
    assert all(29 < remaining <= 30 for _, remaining in fortress.seen)


@pytest.mark.anyio
async def test_of_a_trusted_caller_no_more_is_taken_than_there_is(fortress: Fortress) -> None:
    for value in (b"9999999999", b"0000000001" + b"0" * 40, b"99999999999999999999"):
        await fortress.ask(client=TRUSTED, headers=[(b"x-request-timeout-ms", value), (b"grpc-timeout", b"99999999H")])
    await fortress.ask(client=TRUSTED, headers=[(b"x-criticality", b"critical_plus_plus")])
    assert all(criticality is Criticality.SHEDDABLE and remaining <= 30 for criticality, remaining in fortress.seen)


NUMBERS = [
    *(b"-1", b"-0", b"+5", b"NaN", b"nan", b"inf", b"-inf", b"Infinity", b"1e999", b"1e3", b"0x10", b"1_000", b"1.5", b"5 5", b"5,5"),
    *(b"", b" ", b"\x00", b"5\x00", b"\xd9\xa1\xd9\xa2", b"\xff\xfe", b"5\r\nX-Evil: 1", b"9" * 5000, b"9" * MB, b"m", b"5S5S", b"S"),
]


@pytest.mark.parametrize("name", [b"x-request-timeout-ms", b"grpc-timeout", b"x-envoy-expected-rq-timeout-ms"])
@pytest.mark.parametrize("value", NUMBERS, ids=lambda value: repr(value[:12]))
def test_numbers_that_are_none_leave_our_own_limit_in_force(name: bytes, value: bytes) -> None:
    deadlines = InboundDeadlines(5.0, trusted=lambda scope: True)
    assert deadlines.seconds({"headers": [(name, value)]}) == 5.0
    assert deadlines.ignored == 1


@pytest.mark.parametrize("value", [*NUMBERS, b"critical_plus;q=1", b'"critical_plus"', b"critical_plus, sheddable", b"CRITICAL-", b"3"])
def test_words_that_are_none_say_nothing(value: bytes) -> None:
    reader = InboundCriticality({"/": "sheddable"}, trusted=lambda scope: True)
    assert reader.of({"headers": [(b"x-criticality", value)], "method": "GET", "path": "/"}) is Criticality.SHEDDABLE
    assert reader.ignored == 1


# -- heads ------------------------------------------------------------------------------------------------------------

READ = [
    *(b"x-request-timeout-ms", b"grpc-timeout", b"x-criticality", b"accept", b"host", b"cache-control", b"pragma", b"range", b"if-range"),
    *(b"if-none-match", b"if-modified-since", b"if-match", b"authorization", b"cookie", b"vary", b"priority", b"traceparent", b"baggage"),
    *(b"x-forwarded-host", b"content-length", b"transfer-encoding", b"idempotency-key", b"retry-after", b"date", b"expect", b"upgrade"),
]
MALFORMED = [
    *(b"max-age=", b"max-age=99999999999999999999999", b'no-cache="', b"private=\x00", b"=", b",,,;;;", b'"', b"u=8, i=?2", b"u=\x80"),
    *(b"max-age=-1, stale-if-error=NaN", b"bytes=9999999999999999999999-", b"bytes=-", b"W/", b'W/"', b"*, *", b"Thu, 99 Foo 0000 99:99"),
    *(b"00-" + b"0" * 32, b"\x00" * 100, b"\xff" * 100, b"(" * 10_000, b'a="' + b"\\" * 10_000, b"x" * MB, b"," * 50_000, b"a, " * 20_000),
]


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
@pytest.mark.parametrize("client", [TRUSTED, STRANGER], ids=["trusted", "stranger"])
async def test_no_field_of_a_request_breaks_anything(client: Any, fortress: Fortress) -> None:
    await fortress.ask()  # something to stand in
    for name in READ:
        for value in MALFORMED if name != b"priority" else [*MALFORMED, *NUMBERS]:
            for path in ("/items/7", "/down"):
                start, body = await fortress.ask(path, client=client, headers=[(name, value)])
                assert start["status"] in (200, 503), (name, value[:20])
                if client is STRANGER:
                    assert not [secret for secret in SECRETS if secret in shown(start, body)]


@pytest.mark.anyio
async def test_thousands_of_fields(fortress: Fortress) -> None:
    many = [(b"x-%d" % number, b"v") for number in range(20_000)]
    same = [(name, b"5") for name in READ for _ in range(500)]
    for headers in (many, same, [[b"accept", b"*/*"]] * 5000, [(b"", b"")] * 5000, [(b"x-criticality", b"\xff")] * 5000):
        start, _ = await fortress.ask(headers=headers, client=TRUSTED)
        assert start["status"] in (200, 503, 504)


@pytest.mark.anyio
async def test_hosts_of_any_kind_are_kept_apart_or_not_at_all(fortress: Fortress) -> None:
    """What one host was answered may not stand in for another."""

    async def of_host(request: Request) -> Response:
        if "fail" in request.query_params:
            return Response(status_code=503)
        return Response(f"for {request.headers.get('host')}", headers={"cache-control": "max-age=1"})

    app = ResilienceMiddleware(Starlette(routes=[Route("/", of_host)]), Resilience(), stale=StaleResponses(stale_if_error=300))
    hosts = [b"shop", b"evil.example", b"shop@evil", b"shop/..", b"shop\x00", b"sh op", b"[::1", b"", b"\xff", b"a" * MB, b"shop:99999999"]
    for host in hosts:
        await converse(app, "/", client=STRANGER, method="GET", headers=[(b"host", host)])
    failing = Starlette(routes=[Route("/", lambda request: Response(status_code=503))])
    app.app = failing
    for host in hosts:
        start, body = await converse(app, "/", client=STRANGER, method="GET", headers=[(b"host", host)])
        assert start["status"] == 503 or body == b"for " + host
    start, body = await converse(app, "/", client=STRANGER, method="GET", headers=[(b"host", b"shop"), (b"host", b"evil.example")])
    assert start["status"] == 503
    assert (await converse(app, "/", client=STRANGER, method="GET", headers=[(b"host", b"shop")]))[1] == b"for shop"


# -- paths and methods ------------------------------------------------------------------------------------------------


def label_values(page: str, label: str) -> set[str]:
    return {line.split(f'{label}="', 1)[1].split('"', 1)[0] for line in page.splitlines() if f'{label}="' in line}


def random_path(chance: random.Random) -> str:
    letters = string.ascii_letters + string.digits + "%._~:@!$&'()*+,;=-\u00e9\u4e2d\x00\n\"{}\\"
    return "/" + "/".join("".join(chance.choices(letters, k=chance.randint(0, 12))) for _ in range(chance.randint(1, 5)))


@pytest.mark.anyio
@pytest.mark.slow
@pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)
async def test_ten_thousand_paths_leave_nothing_behind(fortress: Fortress, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # which keeps what it is told
    caplog.set_level(logging.CRITICAL, logger="httpx")
    caplog.set_level(logging.CRITICAL, logger="resilient")
    chance = random.Random(7)
    paths = [f"{chance.choice(['', '/items', '/files', '/down', '/events'])}{random_path(chance)}" for _ in range(10_000)]

    async def ask_all(some: list[str]) -> None:
        for path in some:
            start, _ = await fortress.ask(path, query_string=path.encode(errors="replace"), method=chance.choice(["GET", "HEAD", "POST"]))
            assert start["status"] in (200, 404, 405, 307, 503)
            fortress.seen.clear()
            fortress.wire.requests.clear()
            await anyio.sleep(0)  # as on a server: timers that are due come to their turn

    await ask_all(paths[:5000])
    fortress.page()
    await anyio.sleep(0.2)
    gc.collect()
    before = len(gc.get_objects())
    await ask_all(paths[5000:])
    page = fortress.page()
    await anyio.sleep(0.2)
    gc.collect()
    assert len(gc.get_objects()) - before < 1500  # while 5000 other paths were asked for
    assert label_values(page, "route") <= {"/items/{id}", "/files/{rest:path}", "/down", "unmatched"}
    assert label_values(page, "method") <= {"GET", "HEAD", "POST"}
    assert fortress.store.count <= 300 and fortress.store.size <= 200_000
    circuits: Any = fortress.catalog.breaker._circuits  # type: ignore[union-attr]
    assert 10 < len(circuits._by_key) <= 100
    (door,) = fortress.resilience.admissions
    assert (door.in_flight, door.queued, door.streams) == (0, 0, 0)


@pytest.mark.anyio
async def test_methods_that_are_made_up_are_one_label(fortress: Fortress) -> None:
    for number in range(300):
        start, _ = await fortress.ask(method=f"X{number}")
        assert start["status"] in (405, 503)
    for method in ("get", "", "GET\x00", "G" * 100_000, "\u00e9", "constructor", "*"):
        start, _ = await fortress.ask(method=method)
        assert start["status"] in (200, 405, 503)
    assert label_values(fortress.page(), "method") <= {"GET", "other"}


@pytest.mark.anyio
async def test_huge_queries_and_paths(fortress: Fortress) -> None:
    start, _ = await fortress.ask(query_string=b"q=" + b"a" * MB)
    assert start["status"] == 200
    start, _ = await fortress.ask("/items/" + "a" * MB)
    assert start["status"] == 200
    start, _ = await fortress.ask("/" * 100_000)
    assert start["status"] == 404
    assert fortress.store.size <= 200_000


# -- what is told -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_strangers_are_told_no_names_and_no_causes(fortress: Fortress) -> None:
    for path in ("/items/7", "/down", "/nowhere", "/livez", "/startupz"):
        for accept in (b"*/*", b"application/json", b"text/html", b"text/event-stream"):
            start, body = await fortress.ask(path, headers=[(b"accept", accept)])
            assert not [secret for secret in SECRETS if secret in shown(start, body)], path
    start, _ = await fortress.ask()
    assert (b"degraded", b"suggestions;level=static") in start["headers"]  # that it was is told, and of what feature
    start, body = await fortress.ask("/down")
    assert (start["status"], json.loads(body)["error"]) == (503, "destination_unavailable")


@pytest.mark.anyio
async def test_nor_is_anybody_who_is_turned_away_or_comes_too_late() -> None:
    tight = Fortress(admission=Admission(limit=1, min_concurrent=1, max_concurrent=1, queue=0), max_expired=1.0)
    (door,) = tight.resilience.admissions
    held = door.come(Criticality.CRITICAL_PLUS, door.now(), running_loop(), 0, stream=False)
    answers = [await tight.ask("/nowhere"), await tight.ask(client=TRUSTED, headers=[(b"x-request-timeout-ms", b"0")])]
    door.leave(held, door.now())
    assert [start["status"] for start, _ in answers] == [503, 504]
    for start, body in answers:
        assert not [secret for secret in SECRETS if secret in shown(start, body)]


@pytest.mark.anyio
async def test_a_name_cannot_break_out_of_a_field() -> None:
    resilience = Resilience()
    names = ['a"b\\c', "caf\u00e9", "a;b,c=d", "x" * 100]
    dependencies = [resilience.dependency(name, Fallback([])) for name in names]

    async def failing() -> Any:
        raise ConnectionRefusedError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for dependency in dependencies:
            await dependency.call(failing)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    for exposing in (True, False):
        app_ = ResilienceMiddleware(app, resilience, expose_causes=exposing)
        start, _ = await converse(app_, "/", client=STRANGER, method="GET", headers=[])
        (value,) = [value for name, value in start["headers"] if name == b"degraded"]
        assert value.isascii() and value.decode().isprintable()
        assert (value == b"dependency;level=static") is not exposing


@pytest.mark.anyio
async def test_a_function_of_ours_that_a_request_breaks_trusts_nobody(caplog: pytest.LogCaptureFixture) -> None:
    fortress = Fortress(trusted=lambda scope: scope["client"][0].startswith("10."))
    for client in (None, TRUSTED, None):
        start, _ = await fortress.ask(client=client, headers=[(b"x-criticality", b"critical_plus")])
        assert start["status"] == 200
    assert [criticality for criticality, _ in fortress.seen] == [Criticality.SHEDDABLE, Criticality.CRITICAL_PLUS, Criticality.SHEDDABLE]
    assert len([record for record in caplog.records if "nobody is trusted" in record.message]) <= 3


# -- anything at all --------------------------------------------------------------------------------------------------

FIELD = st.one_of(st.sampled_from(READ), st.binary(max_size=12).map(bytes.lower))
VALUE = st.one_of(st.sampled_from([value for value in [*NUMBERS, *MALFORMED] if len(value) < 1000]), st.binary(max_size=40))
SCOPES = st.fixed_dictionaries(
    {
        "method": st.one_of(st.sampled_from(["GET", "HEAD", "POST", "OPTIONS", "QUERY", "PROPFIND"]), st.text(max_size=8)),
        "path": st.one_of(st.sampled_from(["/items/1", "/down", "/files/a/b", "/livez", "", "*", "/events/x"]), st.text(max_size=30)),
        "headers": st.lists(st.tuples(FIELD, VALUE), max_size=8),
        "client": st.sampled_from([None, TRUSTED, STRANGER, ("", 0), ["10.0.0.7", 1], ("/run/app.sock", None), ("fe80::1%eth0", 1)]),
        "query_string": st.binary(max_size=20),
        "raw_path": st.one_of(st.just(...), st.none(), st.binary(max_size=20)),
        "root_path": st.one_of(st.just(...), st.sampled_from(["", "/", "/shop", "/items", "\u00e9"])),
        "http_version": st.sampled_from(["1.0", "1.1", "2", "3", "", "9.9"]),
        "scheme": st.sampled_from([..., "http", "https", "ws", "javascript"]),
        "server": st.sampled_from([..., None, ("shop", 80), ("/run/app.sock", None)]),
        "extensions": st.sampled_from([..., None, {}, {"tls": {}}, {"http.response.pathsend": {}}]),
        "state": st.sampled_from([..., {}]),
    }
)


async def bare(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"ok"})


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@pytest.mark.parametrize("inside", ["a bare app", "Starlette"])
@settings(max_examples=often(120), deadline=None, suppress_health_check=list(HealthCheck))
@given(scopes=st.lists(SCOPES, min_size=1, max_size=4))
def test_any_request_is_answered_once(backend: str, inside: str, scopes: list[dict[str, Any]]) -> None:
    fortress = Fortress(max_expired=1.0)
    app: Any = fortress.app
    if inside == "a bare app":
        app = ResilienceMiddleware(
            bare,
            fortress.resilience,
            trusted=["10.0.0.0/8"],
            stale=StaleResponses(stale_if_error=300, downstream_stale_if_error=5),
            admission=Admission(criticality=lambda scope: scope["path"]),
            cancel_on_disconnect=["/items/{id}", "POST /events/{rest:path}"],
            exempt_writes=["POST /down"],
        )

    async def ask() -> None:
        for scope in scopes:
            given = dict(scope)
            answered, body = await converse(
                app, given.pop("path"), client=given.pop("client"), method=given.pop("method"), headers=given.pop("headers"), **given
            )
            assert answered["status"] in (200, 204, 304, 307, 404, 405, 503, 504)
            if tuple(scope["client"] or ()) != TRUSTED and scope["path"] != "/readyz":
                assert not [secret for secret in SECRETS if secret in shown(answered, body)]

    anyio.run(ask, backend=backend)
    (door, *others) = fortress.resilience.admissions
    assert all(one.in_flight == one.queued == one.streams == 0 for one in (door, *others))
