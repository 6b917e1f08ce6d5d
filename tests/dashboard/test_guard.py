"""Who may read, from where, and what every answer says to browsers."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from resilient import Criticality, Resilience
from resilient.asgi import Admission, StaleResponses
from resilient.asgi.pulse import running_loop
from resilient.dashboard.assets import assets
from resilient.testing import FakeClock

from .conftest import made, reading

pytestmark = pytest.mark.anyio

PATHS = ["/resilience", "/resilience/state", "/resilience/stream", "/resilience/controls"]
CLOSED = {"default-src 'none'", "script-src 'self'", "style-src 'self'", "frame-ancestors 'none'", "base-uri 'none'", "form-action 'none'"}


def check_headers(answer: Any) -> None:
    """Every answer keeps itself to itself."""
    assert set(answer.header("content-security-policy")[0].split("; ")) >= CLOSED
    assert "unsafe" not in answer.header("content-security-policy")[0]
    assert answer.header("x-content-type-options") == ["nosniff"]
    assert answer.header("referrer-policy") == ["no-referrer"]
    assert answer.header("cross-origin-resource-policy") == ["same-origin"]
    assert answer.header("cross-origin-opener-policy") == ["same-origin"]
    (start,) = answer.starts
    assert not [name for name, _ in start["headers"] if name.lower().startswith(b"access-control")]


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("method", ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "TRACE", "X"])
async def test_every_answer_has_the_headers(path: str, method: str, ask: Any, app: Any, resilience: Resilience) -> None:
    resilience.draining = True  # so that a stream ends
    answer = await ask(app, path, method=method, headers={"origin": "https://evil.example", "host": "shop.example"})
    check_headers(answer)
    assert answer.status in (403, 405)
    answer = await ask(app, path, method=method)
    check_headers(answer)
    if answer.status == 405:
        assert answer.header("allow")[0].split(", ")[0] in ("GET", "POST")
        assert answer.problem["title"] == "Method Not Allowed"


async def test_the_page_and_its_files_come_out_of_the_package(ask: Any, app: Any) -> None:
    files = assets()
    assert "index.html" in files
    for name, asset in files.items():
        path = "/resilience" if name == "index.html" else f"/resilience/{name}"
        answer = await ask(app, path)
        check_headers(answer)
        assert (answer.status, answer.body) == (200, asset.content)
        assert answer.header("content-type") == [asset.media_type]
        assert answer.header("cache-control") == ["no-cache"]
        again = await ask(app, path, headers={"if-none-match": answer.header("etag")[0]})
        check_headers(again)
        assert (again.status, again.body) == (304, b"")
        assert (await ask(app, path, headers={"if-none-match": '"x"' * 100_000})).status == 200
    assert (await ask(app, "/resilience/__init__.py")).status == 404
    assert (await ask(app, "/resilience/../board.py")).status == 404


async def test_nothing_else_is_cached(ask: Any, app: Any) -> None:
    assert (await ask(app, "/resilience/state")).header("cache-control") == ["no-store"]
    assert (await ask(app, "/resilience/controls")).header("cache-control") == ["no-store"]


FOREIGN = [
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "garbage"},
    {"origin": "https://evil.example"},
    {"origin": "null"},
    {"origin": ""},
    {"origin": "https://shop.example.evil.example"},
    {"origin": "https://evil.example/shop.example"},
    {"origin": "http://shop.example:81"},
    {"origin": "http://[", "sec-fetch-site": "same-origin"},
    {"origin": "x" * 1_000_000},
    {"origin": "https://evil.example", "sec-fetch-site": "same-origin"},
    {"origin": "https://shop.example", "sec-fetch-site": "cross-site"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: str(headers)[:60])
async def test_pages_of_another_origin_may_not_read(headers: dict[str, str], ask: Any, app: Any) -> None:
    for path in ("/resilience/state", "/resilience/stream", "/resilience"):
        answer = await ask(app, path, headers={"host": "shop.example", **headers})
        assert answer.status == 403
        assert answer.problem["field"] in ("Origin", "Sec-Fetch-Site")
        assert b"evil" not in answer.body


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "same-origin"},
        {"sec-fetch-site": "none"},
        {"origin": "https://shop.example"},
        {"origin": "http://Shop.Example"},
        {"origin": "https://shop.example:443", "sec-fetch-site": "same-origin"},
    ],
)
async def test_its_own_pages_may(headers: dict[str, str], ask: Any, app: Any) -> None:
    assert (await ask(app, "/resilience/state", headers={"host": "shop.example", **headers})).status == 200
    assert (await ask(app, "/resilience/state", headers={"host": "shop.example:443", **headers})).status == (
        403 if headers.get("origin", "").startswith("http:") else 200
    )


async def test_a_link_from_elsewhere_leads_to_the_page_and_to_nothing_else(ask: Any, app: Any) -> None:
    headers = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    assert (await ask(app, "/resilience", headers=headers)).status == 200
    assert (await ask(app, "/resilience/state", headers=headers)).status == 403


async def test_the_apps_own_cors_settings_open_nothing(ask: Any, app: Any) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=["*"], allow_methods=["*"], allow_headers=["*"])
    answer = await ask(app, "/resilience/state", headers={"origin": "https://evil.example", "host": "shop.example"})
    assert answer.status == 403
    assert "dependencies" not in answer.body.decode()


async def test_only_names_that_are_allowed_are_answered(ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    app = made(resilience, clock, dashboard_hosts=["Ops.example.com", "localhost:8000", "[::1]"])
    for host in ("ops.example.com", "OPS.example.com:8443", "localhost:8000", "[::1]:9"):
        assert (await ask(app, "/resilience/state", headers={"host": host})).status == 200
    for host in ("evil.example", "localhost", "localhost:8001", "ops.example.com.evil.example", "ops.example.com:x", "", "x" * 1_000_000):
        for path in PATHS[:3]:
            answer = await ask(app, path, headers={"host": host})
            check_headers(answer)
            assert (answer.status, answer.problem["field"]) == (421, "Host")
    # Behind a proxy that changes Host, the public name is one of them.
    headers = {"host": "localhost:8000", "origin": "https://ops.example.com"}
    assert (await ask(app, "/resilience/state", headers=headers)).status == 200
    # A name that was rebound to this address has the same Origin and Host, both wrong.
    headers = {"host": "evil.example:8000", "origin": "http://evil.example:8000", "sec-fetch-site": "same-origin"}
    assert (await ask(app, "/resilience/state", headers=headers)).status == 421


@pytest.mark.parametrize("hosts", ["ops.example.com", 3, [3], [""], ["http://ops"], ["a b"], ["*"]])
def test_hosts_that_are_none_are_refused(hosts: Any, resilience: Resilience) -> None:
    with pytest.raises((TypeError, ValueError), match="^dashboard_hosts: expected"):
        resilience.dashboard(hosts=hosts)


async def nobody(request: Any) -> None:
    await anyio.sleep(0)


async def somebody(request: Any) -> Any:
    await anyio.sleep(0)
    return request.headers.get("x-user")


@pytest.mark.parametrize("readers", [nobody, lambda request: None, lambda request: False, somebody])
async def test_readers_may_be_guarded(readers: Any, ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    app = made(resilience, clock, dashboard_readers=readers, authorize=lambda request: request.headers.get("x-operator"))
    resilience.draining = True
    for path in (*PATHS[:3], *(f"/resilience/{name}" for name in assets() if name != "index.html")):
        answer = await ask(app, path)
        check_headers(answer)
        assert (answer.status, answer.problem["detail"]) == (403, "You may not read this.")
        assert (await ask(app, path, headers={"x-user": "bob"})).status == (200 if readers is somebody else 403)
        assert (await ask(app, path, headers={"x-operator": "ann"})).status == 200  # an operator may read


async def late(request: Any) -> str:
    await anyio.sleep(3600)
    return "ann"


def fails(request: Any) -> str:
    raise KeyError("a secret")


async def fails_later(request: Any) -> str:
    await anyio.sleep(0)
    raise ValueError("a secret")


@pytest.mark.parametrize("ask_them", [fails, fails_later, late, lambda request: True, lambda request: 7, lambda request: ""])
async def test_a_guard_that_fails_lets_nobody_in_and_tells_nothing(ask_them: Any, ask: Any, clock: FakeClock, caplog: Any) -> None:
    resilience = Resilience(clock=clock)
    app = made(resilience, clock, authorize=ask_them)
    token = {"x-resilient-token": "x"}
    for path, method in (("/resilience/state", "GET"), ("/resilience/stream", "GET"), ("/resilience/controls", "POST")):
        answer = await ask(app, path, method=method, headers=token)
        check_headers(answer)
        assert (answer.status, answer.problem["detail"]) == (500, "Whether you may could not be found out.")
        assert b"secret" not in answer.body
    assert "authorize" in caplog.text
    assert resilience._board.streams == 0  # type: ignore[union-attr]
    assert (await ask(app, "/resilience")).status == 200  # which asks nobody
    if ask_them not in (fails, fails_later, late):
        return
    guarded = made(Resilience(clock=clock), clock, dashboard_readers=ask_them)
    for path in PATHS[:3]:
        answer = await ask(guarded, path)
        assert (answer.status, b"secret" in answer.body) == (500, False)
    assert "dashboard_readers" in caplog.text


async def test_what_the_app_says_to_whom_it_does_not_know_is_answered(ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    def login(request: Any) -> str:
        if "authorization" not in request.headers:
            raise HTTPException(401, "Who are you?", headers={"www-authenticate": "Basic"})
        if request.headers["authorization"] == "odd":
            raise HTTPException(302, {"no": "text"}, headers={"cache-control": "public", "location": "/login"})  # type: ignore[arg-type]
        return "ann"

    app = made(resilience, clock, dashboard_readers=login, authorize=login)
    answer = await ask(app, "/resilience")
    check_headers(answer)
    assert (answer.status, answer.problem["detail"]) == (401, "Who are you?")
    assert answer.header("www-authenticate") == ["Basic"]
    answer = await ask(app, "/resilience", headers={"authorization": "odd"})
    assert (answer.status, answer.problem["detail"]) == (403, "You may not do this.")
    assert answer.header("cache-control") == ["no-store"]
    answer = await ask(app, "/resilience/state", headers={"authorization": "x"})
    assert json.loads(answer.body)["controls"]["who"] == "ann"
    open_to_all = made(Resilience(clock=clock), clock, authorize=login)
    assert json.loads((await ask(open_to_all, "/resilience/state")).body)["controls"] is None


async def test_headers_of_a_megabyte_change_nothing(ask: Any, app: Any) -> None:
    big = "\xe4" * 1_000_000
    for name in ("last-event-id", "x-resilient-token", "sec-fetch-mode", "if-none-match", "cookie", "accept"):
        answer = await ask(app, "/resilience/state", headers={name: big.encode().decode("ascii", "replace").replace("\ufffd", "x")})
        assert answer.status == 200


@pytest.mark.parametrize("authorize", [somebody, lambda request: request.headers.get("x-user")])
async def test_whoever_says_who_an_operator_is_may_be_async(authorize: Any, ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    app = made(resilience, clock, authorize=authorize)
    for user, who in (("ann", "ann"), ("b\x00b" + "x" * 500, "b b" + "x" * 97), (None, None)):
        answer = await ask(app, "/resilience/state", headers={} if user is None else {"x-user": user})
        controls = json.loads(answer.body)["controls"]
        assert (None if controls is None else controls["who"]) == who


async def test_no_answer_is_kept_and_none_that_was_kept_stands_in(ask: Any, clock: FakeClock) -> None:
    fails_now = False

    def authorize(request: Any) -> None:
        if fails_now:
            raise RuntimeError

    app = made(Resilience(clock=clock), clock, authorize=authorize, stale=StaleResponses())
    assert (await ask(app, "/resilience/state")).status == 200
    fails_now = True
    answer = await ask(app, "/resilience/state")
    assert answer.status == 500
    assert answer.problem["detail"] == "Whether you may could not be found out."


async def test_it_is_there_when_the_service_has_no_place_left(ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    app = made(resilience, clock, prefix="/in", admission=Admission(limit=4, max_concurrent=4, queue=4, exempt=()))
    door: Any = next(iter(resilience.admissions))
    permits = [door.come(Criticality.CRITICAL, door.now(), running_loop(), 0, stream=False) for _ in range(20)]
    assert (await ask(app, "/other")).status == 503
    state = await ask(app, "/in/resilience/state")
    assert json.loads(state.body)["load"]["in_flight"] == 4
    assert (await ask(app, "/in/resilience")).status == 200
    async with reading(app, "/in/resilience/stream") as reader:
        await reader.until(lambda reader: len(reader.parts) == 2)
    for permit in permits:
        door.leave(permit, door.now())
