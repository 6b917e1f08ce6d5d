"""Requests that go to one of several targets: rewritten, moved on safely, and never with another one's credentials."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from resilient import AllTargetsFailed, CircuitBreaker, Failover, RateLimit, Resilience, Target, Timeout, standard
from resilient.events import FailedOver
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare
from .servers import Server, answer, answering
from .test_sync import client_of

pytestmark = pytest.mark.anyio

ORIGIN = "https://api.example.com/v1"


def client(library: Any, dependency: Any, inner: Any, **settings: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner), timeout=60, **settings)


def two(**second: Any) -> Failover:
    return Failover(Target("first"), Target("second", **{"url": "https://other.example.org/api", **second}))


async def pieces() -> Any:
    yield b"{}"


async def sent(library: Any, declare: Declare, target: Target, *, origin: str | None = ORIGIN, **request: Any) -> Any:
    """The request that `target` gets."""
    inner = FaultyTransport([200])
    async with client(library, declare(Failover(target), origin=origin), inner) as http:
        await http.request(**{"method": "GET", "url": f"{ORIGIN}/items", **request})
    (seen,) = inner.requests
    return seen


# -- where ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "origin", "target", "expected"),
    [
        (f"{ORIGIN}/items", ORIGIN, "https://eu.example.com/v2", "https://eu.example.com/v2/items"),
        (f"{ORIGIN}/items?a=b&c=%2F", ORIGIN, "https://eu.example.com/v2/", "https://eu.example.com/v2/items?a=b&c=%2F"),
        (ORIGIN, ORIGIN, "https://eu.example.com", "https://eu.example.com/"),
        (f"{ORIGIN}/a%2Fb", ORIGIN, "http://eu.example.com:8080", "http://eu.example.com:8080/a%2Fb"),
        (f"{ORIGIN}/items", None, "https://eu.example.com", "https://eu.example.com/v1/items"),
        ("https://api.example.com/v10/items", "https://api.example.com/v1", "https://eu.example.com", "https://eu.example.com/v10/items"),
        (f"{ORIGIN}/items", ORIGIN, None, f"{ORIGIN}/items"),
    ],
)
async def test_urls(
    library: Any, clock: FakeClock, declare: Declare, url: str, origin: str | None, target: str | None, expected: str
) -> None:
    seen = await sent(library, declare, Target("eu", url=target), origin=origin, url=url)
    assert str(seen.url) == expected
    assert seen.headers["host"] == library.URL(expected).netloc.decode()


async def test_the_host_field_follows_and_may_be_set(library: Any, clock: FakeClock, declare: Declare) -> None:
    extensions = {"sni_hostname": "api.example.com", "mine": 1}
    seen = await sent(library, declare, Target("eu", url="https://10.0.0.1", headers={"Host": "eu.example.com"}), extensions=extensions)
    assert seen.headers["host"] == "eu.example.com"
    assert "sni_hostname" not in seen.extensions and seen.extensions["mine"] == 1
    seen = await sent(library, declare, Target("same", headers={"x-region": "eu"}), extensions=extensions)
    assert (seen.extensions["sni_hostname"], seen.headers["x-region"]) == ("api.example.com", "eu")


# -- credentials ------------------------------------------------------------------------------------------------------

SECRETS = {
    "Authorization": "Bearer first",
    "Proxy-Authorization": "Basic first",
    "Cookie": "session=first",
    "api-key": "first",
    "X-Api-Key": "first",
    "x-goog-api-key": "first",
    "X-Auth-Token": "first",
    "x-amz-security-token": "first",
    "X-Client-Secret": "first",
    "X-Session-Id": "first",
    "Signature": "first",
    "Signature-Input": "first",
}


async def test_a_providers_credentials_never_reach_another_one(library: Any, clock: FakeClock, declare: Declare) -> None:
    fields = {**SECRETS, "idempotency-key": "7", "x-request-id": "8", "user-agent": "9"}
    inner = FaultyTransport([503, 200])
    dependency = declare(two(headers={"authorization": "Bearer second"}), origin=ORIGIN)
    async with client(library, dependency, inner, auth=("user", "password")) as http:
        request = http.build_request("GET", f"{ORIGIN}/items?api_key=first&key=first&q=x", headers=fields)
        response = await http.send(request, auth=None)
    first, second = inner.requests
    assert first.headers["authorization"] == "Bearer first" and first.url.params["key"] == "first"
    assert "first" not in str(second.headers.raw) + str(second.url)
    assert second.headers["authorization"] == "Bearer second"
    assert [second.headers[name] for name in ("idempotency-key", "x-request-id", "user-agent")] == ["7", "8", "9"]
    assert str(second.url) == "https://other.example.org/api/items?q=x"
    assert request.headers["authorization"] == "Bearer first", "the program's own request is left as it is"
    assert response.extensions["target"] == "second"


async def test_neither_do_those_in_the_url(library: Any, clock: FakeClock, declare: Declare) -> None:
    seen = await sent(library, declare, Target("other", url="https://other.example.org"), url="https://user:word@api.example.com/v1/x")
    assert str(seen.url) == "https://other.example.org/x"
    assert "authorization" not in seen.headers


async def test_a_replica_may_be_trusted_with_them(library: Any, clock: FakeClock, declare: Declare) -> None:
    seen = await sent(library, declare, Target("eu", url="https://eu.example.com/v1", trusted=True), headers=SECRETS)
    assert {name: seen.headers[name] for name in SECRETS} == SECRETS
    seen = await sent(library, declare, Target("same", url=f"{ORIGIN}/beta"))
    assert str(seen.url) == f"{ORIGIN}/beta/items"
    seen = await sent(library, declare, Target("same", url=f"{ORIGIN}/beta"), headers=SECRETS)
    assert seen.headers["cookie"] == "session=first", "it is the same origin"
    seen = await sent(library, declare, Target("same", trusted=False), headers=SECRETS)
    assert not {name.lower() for name in SECRETS} & set(seen.headers)


async def test_fields_are_replaced_and_removed(library: Any, clock: FakeClock, declare: Declare) -> None:
    target = Target("eu", headers={"Authorization": None, "x-absent": None, "x-model": "small"})
    seen = await sent(library, declare, target, headers={"authorization": "Bearer first", "x-model": "large"})
    assert "authorization" not in seen.headers and seen.headers["x-model"] == "small"


async def test_cookies_of_another_provider_are_not_kept_for_the_first(library: Any, clock: FakeClock, declare: Declare) -> None:
    def cookie(request: Any) -> Any:
        return library.Response(200, headers={"set-cookie": "session=second"})

    for trusted, kept in ((None, {}), (True, {"session": "second"})):
        async with client(library, declare(two(trusted=trusted)), FaultyTransport([503, cookie])) as http:
            await http.get(f"{ORIGIN}/items")
            assert dict(http.cookies) == kept


async def test_redirects_are_followed_without_credentials_for_others(library: Any, clock: FakeClock, declare: Declare) -> None:
    def moved(request: Any) -> Any:
        return library.Response(302, headers={"location": "https://other.example.org/api/elsewhere"})

    inner = FaultyTransport([503, moved, 200])
    resilience = Resilience(clock=clock)
    resilience.dependency("api", two(headers={"authorization": "Bearer second"}), origin=ORIGIN)
    transport = library.ours.AsyncResilientTransport(resilience, inner)
    async with library.AsyncClient(transport=transport, follow_redirects=True) as http:
        await http.get(f"{ORIGIN}/items", headers={"authorization": "Bearer first"})
    assert [request.headers.get("authorization") for request in inner.requests] == ["Bearer first", "Bearer second", None]


async def test_a_challenge_is_answered_to_nobody_else(library: Any, clock: FakeClock, declare: Declare) -> None:
    """The second target's 401 makes the client send the password of the first: to the first alone."""

    def challenge(request: Any) -> Any:
        return library.Response(401, headers={"www-authenticate": 'Digest realm="x", nonce="y", qop="auth"'})

    inner = FaultyTransport([503, challenge, 503, 200])
    async with client(library, declare(two(), origin=ORIGIN), inner, auth=library.DigestAuth("user", "word")) as http:
        await http.get(f"{ORIGIN}/items")
    assert ["authorization" in request.headers for request in inner.requests] == [False, False, True, False]
    assert [request.url.host for request in inner.requests] == ["api.example.com", "other.example.org"] * 2


# -- bodies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"model": "small"}, {"model": "small", "n": 1}),
        (lambda body: {"wrapped": body}, {"wrapped": {"model": "large", "n": 1}}),
        ({}, {"model": "large", "n": 1}),
    ],
)
async def test_json_is_changed(library: Any, clock: FakeClock, declare: Declare, change: Any, expected: Any) -> None:
    bodies = []

    async def read(request: Any) -> Any:
        bodies.append((request.headers["content-length"], b"".join([part async for part in request.stream])))
        return library.Response(429 if len(bodies) == 1 else 200)

    async with client(library, declare(two(json=change), origin=ORIGIN), FaultyTransport([read])) as http:
        await http.post(f"{ORIGIN}/chat", json={"model": "large", "n": 1})
    assert [json.loads(body) for _, body in bodies] == [{"model": "large", "n": 1}, expected]
    assert [int(length) for length, _ in bodies] == [len(body) for _, body in bodies]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"json": [1, 2]},
        {"content": b"{}", "headers": {"content-type": "text/plain"}},
        {"content": b"{", "headers": {"content-type": "application/json"}},
    ],
    ids=["none", "a list", "not said to be JSON", "not JSON"],
)
async def test_what_is_no_json_object_stays(library: Any, clock: FakeClock, declare: Declare, body: dict[str, Any]) -> None:
    plain = library.Request("POST", ORIGIN, **body)
    seen = await sent(library, declare, Target("eu", json={"model": "small"}), method="POST", **body)
    assert seen.content == plain.content


async def test_json_that_cannot_be_said_or_changed_is_the_programs_mistake(library: Any, clock: FakeClock, declare: Declare) -> None:
    for target, request in (
        (Target("eu", json=lambda body: object()), {"json": {}}),
        (Target("eu", json={"a": float("nan")}), {"json": {}}),
        (Target("eu", json={"a": 1}), {"content": pieces(), "headers": {"content-type": "application/json"}}),
        (Target("eu", function=len), {}),
        (Target("eu", arguments={"a": 1}), {}),
    ):
        dependency = declare(Failover(target))
        async with client(library, dependency, FaultyTransport([200])) as http:
            with pytest.raises(TypeError, match="'eu'"):
                await http.post(ORIGIN, **request)
        assert dependency.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 1}


# -- when -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "fault", "moved"),
    [
        ("GET", 503, True),
        ("PUT", 500, True),
        ("POST", 503, False),
        ("POST", 429, True),
        ("POST", "ConnectError", True),
        ("POST", "ConnectTimeout", True),
        ("POST", "ReadError", False),
        ("POST", "ReadTimeout", False),
        ("GET", "ReadError", True),
        ("GET", 404, False),
        ("GET", "PoolTimeout", False),
        ("GET", "LocalProtocolError", False),
    ],
)
@pytest.mark.parametrize("repeat", [False, True])
async def test_which_failures_move_on(
    library: Any, clock: FakeClock, declare: Declare, method: str, fault: Any, moved: bool, repeat: bool
) -> None:
    inner = FaultyTransport([fault if isinstance(fault, int) else getattr(library, fault)("scripted"), 200])
    failover = Failover(Target("first"), Target("second", url="https://other.example.org"), repeat=repeat)
    moves = moved or (repeat and fault not in (404, "PoolTimeout", "LocalProtocolError"))
    async with client(library, declare(failover), inner) as http:
        if moves or isinstance(fault, int):
            response = await http.request(method, ORIGIN)
            assert (response.status_code, response.extensions["target"]) == ((200, "second") if moves else (fault, "first"))
        else:
            with pytest.raises(getattr(library, fault)):
                await http.request(method, ORIGIN)
    assert len(inner.requests) == (2 if moves else 1)


async def test_a_body_that_cannot_be_sent_again_is_not(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503, 200])
    async with client(library, declare(Failover("https://a.example", "https://b.example", repeat=True)), inner) as http:
        assert (await http.put(ORIGIN, content=pieces())).status_code == 503
    assert len(inner.requests) == 1


async def test_none_left(library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener) -> None:
    bad = scripted(library, b"busy", status=503)
    inner = FaultyTransport([library.ConnectError("refused"), bad])
    async with client(library, declare(two(), origin=ORIGIN), inner) as http:
        with pytest.raises(library.TransportError) as raised:
            await http.get(f"{ORIGIN}/items")
    error = raised.value
    assert isinstance(error, AllTargetsFailed) and type(error) is library.ours.AllTargetsFailed
    refused, failed = error.causes
    assert isinstance(refused, library.ConnectError) and isinstance(failed, library.HTTPStatusError)
    assert (failed.response.status_code, await failed.response.aread()) == (503, b"busy")
    assert bad.body.closed == 1  # type: ignore[attr-defined]
    assert str(error.request.url) == f"{ORIGIN}/items"
    assert [(event.target, event.to, event.cause) for event in listener.of(FailedOver)] == [
        ("first", "second", "ConnectError"),
        ("second", "", "status_503"),
    ]


async def test_an_open_circuit_sends_any_request_to_the_next(library: Any, clock: FakeClock, declare: Declare) -> None:
    circuit = CircuitBreaker()
    circuit.open()
    inner = FaultyTransport([200])
    async with client(library, declare(Failover(Target("a", circuit), "https://b.example")), inner) as http:
        assert (await http.post(ORIGIN, json={})).extensions["target"] == "b.example"
    assert len(inner.requests) == 1


async def test_a_hanging_target_leaves_time_for_the_next(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([HANG, 200])
    dependency = declare(*standard(timeout=4, failover=two()))
    async with client(library, dependency, inner) as http:
        assert (await http.get(ORIGIN)).extensions["target"] == "second"
    assert clock.now() == pytest.approx(1002)
    first, second = dependency.policies[2].pipelines
    assert first.stats.snapshot().counts["failure"] == second.stats.snapshot().counts["success"] == 1


async def test_permits_are_held_to_the_end_of_the_body(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(failover=(failover := two())))
    broken = scripted(library, b"half", library.ReadError("reset"))
    async with client(library, dependency, FaultyTransport([503, broken])) as http:
        async with http.stream("GET", ORIGIN) as response:
            assert dependency.bulkhead.in_use == 1
            with pytest.raises(library.ReadError):
                await response.aread()
    assert dependency.bulkhead.in_use == 0
    first, second = failover.pipelines
    assert (first.breaker.fail_counter, second.breaker.fail_counter) == (1, 1)  # type: ignore[union-attr]
    assert dependency.stats.snapshot().counts == {"success": 0, "failure": 1, "ignored": 0}


async def test_a_cancelled_caller_closes_what_is_open(library: Any, clock: FakeClock, declare: Declare) -> None:
    class Stuck:
        async def run(self, call: Any, inner: Any) -> Any:
            await inner(call)
            await anyio.sleep_forever()

    good = scripted(library, b"good")
    dependency = declare(*standard(failover=Failover(Target("a", Stuck()))))
    async with client(library, dependency, FaultyTransport([good])) as http:
        with anyio.move_on_after(1):
            await http.get(ORIGIN)
    assert (good.body.closed, dependency.bulkhead.in_use) == (1, 0)  # type: ignore[attr-defined]


# -- real servers -----------------------------------------------------------------------------------------------------


async def test_over_the_librarys_own_pool(library: Any, declare: Declare) -> None:
    with Server(answering(answer(503))) as first, Server(answering(answer(200, b"second"))) as second:
        failover = Failover(Target("first", url=first.url), Target("second", url=second.url, headers={"authorization": "Bearer second"}))
        transport = library.ours.AsyncResilientTransport(declare(Timeout(total=5), failover, origin=ORIGIN), verify=False)
        async with library.AsyncClient(transport=transport) as http:
            response = await http.get(f"{ORIGIN}/items", headers={"authorization": "Bearer own"})
        assert (response.text, response.extensions["target"]) == ("second", "second")
        (asked,) = second.requests
        assert (asked.target, asked.headers["authorization"]) == ("/items", "Bearer second")
        assert asked.headers["host"] == second.url.removeprefix("http://").rstrip("/")
        assert "authorization" not in first.requests[0].headers


def test_synchronous(library: Any, declare: Declare) -> None:
    inner = FaultyTransport([library.ConnectError("refused"), scripted(library, b"second")])
    dependency = declare(*standard(failover=two()))
    with client_of(library, dependency, inner) as http:
        response = http.get(ORIGIN)
    assert (response.text, response.extensions["target"]) == ("second", "second")
    assert dependency.bulkhead.in_use == 0
    with client_of(library, declare(two(), name="none"), FaultyTransport([503])) as http, pytest.raises(library.ours.AllTargetsFailed):
        http.get(ORIGIN)


async def test_a_limit_of_a_target_learns_from_its_answers(library: Any, clock: FakeClock, declare: Declare) -> None:
    limit, fields = RateLimit(100), {"x-ratelimit-limit": "100", "x-ratelimit-remaining": "0", "x-ratelimit-reset": "7"}
    inner = FaultyTransport([lambda request: library.Response(200, headers=fields)])
    async with client(library, declare(Failover(Target("first", limit), Target("second")), origin=ORIGIN), inner) as http:
        assert (await http.get(f"{ORIGIN}/items")).extensions["target"] == "first"
    assert limit._bucket.when(1, clock.now()) - clock.now() == pytest.approx(7) and limit.garbage == 0
