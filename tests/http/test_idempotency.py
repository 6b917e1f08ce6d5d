"""Idempotency-Key and X-Retry-Attempt: what attempts of one call share, and what tells them apart."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

from resilient import Constant, Retry
from resilient.events import RetryDecided
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .conftest import Declare
from .test_retry import pieces

pytestmark = pytest.mark.anyio
KEY = "idempotency-key"


def keyed(**settings: Any) -> Retry:
    return Retry(**{"idempotency": "auto", "backoff": Constant(0.01), **settings})


def client_of(library: Any, declare: Declare, inner: FaultyTransport, retry: Retry, **settings: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(retry), inner), **settings)


@pytest.mark.parametrize("failure", [503, "broken"])
async def test_a_post_is_repeated_under_one_key(library: Any, clock: FakeClock, declare: Declare, failure: Any) -> None:
    inner = FaultyTransport([library.ReadError("broken") if failure == "broken" else failure, 503, 201])
    async with client_of(library, declare, inner, keyed()) as client:
        assert (await client.post("http://dep/", json={"amount": 7})).status_code == 201
        assert (await client.post("http://dep/", json={"amount": 7})).status_code == 201
    first, second, third, other = (request.headers[KEY] for request in inner.requests)
    assert first == second == third != other
    assert first[0] == first[-1] == '"'
    assert uuid.UUID(first.strip('"')).version == 4


async def test_bare_is_without_quotes(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503, 201])
    async with client_of(library, declare, inner, keyed(idempotency="bare")) as client:
        assert (await client.post("http://dep/")).status_code == 201
    first, second = (request.headers[KEY] for request in inner.requests)
    assert first == second == str(uuid.UUID(first))


@pytest.mark.parametrize(("method", "own"), [("GET", None), ("PUT", None), ("POST", '"mine"'), ("PATCH", "mine")])
async def test_what_may_be_repeated_anyway_is_given_none(
    library: Any, clock: FakeClock, declare: Declare, method: str, own: str | None
) -> None:
    inner = FaultyTransport([503, 200])
    async with client_of(library, declare, inner, keyed()) as client:
        assert (await client.request(method, "http://dep/", headers={KEY: own} if own else None)).status_code == 200
    assert [request.headers.get(KEY) for request in inner.requests] == [own, own]


async def test_it_is_not_asked_for(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503, 201])
    async with client_of(library, declare, inner, Retry(backoff=Constant(0.01))) as client:
        assert (await client.post("http://dep/")).status_code == 503
    assert [(KEY in request.headers, "x-retry-attempt" in request.headers) for request in inner.requests] == [(False, False)]


async def test_a_body_that_is_gone_is_not_repeated_by_a_key(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503, 201])
    async with client_of(library, declare, inner, keyed()) as client:
        assert (await client.post("http://dep/", content=pieces())).status_code == 503
    assert KEY not in inner.requests[0].headers


async def test_the_request_of_the_program_stays_as_it_was(library: Any, clock: FakeClock, declare: Declare) -> None:
    """So that sending it again is another operation."""
    inner = FaultyTransport([201])
    async with client_of(library, declare, inner, keyed()) as client:
        request = client.build_request("POST", "http://dep/")
        await client.send(request)
        await client.send(request)
    assert KEY not in request.headers
    assert len({sent.headers[KEY] for sent in inner.requests}) == 2


async def test_a_redirect_that_keeps_the_method_keeps_the_key(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([lambda request: library.Response(307, headers={"location": "/elsewhere"}), 503, 201])
    async with client_of(library, declare, inner, keyed(), follow_redirects=True) as client:
        assert (await client.post("http://dep/", json=1)).status_code == 201
    assert [request.url.path for request in inner.requests] == ["/", "/elsewhere", "/elsewhere"]
    assert len({request.headers[KEY] for request in inner.requests}) == 1


async def test_a_redirect_to_something_else_drops_it(library: Any, clock: FakeClock, declare: Declare) -> None:
    """A look at what the POST has made is another operation, and one that needs no key."""
    inner = FaultyTransport([lambda request: library.Response(303, headers={"location": "/made"}), 200])
    async with client_of(library, declare, inner, keyed(), follow_redirects=True) as client:
        assert (await client.post("http://dep/", json=1)).status_code == 200
    assert [(request.method, KEY in request.headers) for request in inner.requests] == [("POST", True), ("GET", False)]


async def test_a_challenge_keeps_it(library: Any, clock: FakeClock, declare: Declare) -> None:
    def challenge(request: Any) -> Any:
        return library.Response(401, headers={"www-authenticate": 'Digest realm="r", nonce="n", qop="auth"'})

    inner = FaultyTransport([challenge, 201])
    async with client_of(library, declare, inner, keyed(), auth=library.DigestAuth("user", "secret")) as client:
        assert (await client.post("http://dep/", json=1)).status_code == 201
    assert len({request.headers[KEY] for request in inner.requests}) == 1


async def test_a_409_after_an_attempt_of_ours_is_waited_out(
    library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    """The first one is still running: the server says so, and will soon have its result."""
    inner = FaultyTransport([library.ReadTimeout("slow"), 409, 201])
    async with client_of(library, declare, inner, keyed()) as client:
        assert (await client.post("http://dep/")).status_code == 201
    assert [(event.result, event.cause) for event in listener.of(RetryDecided)] == [("retried", "ReadTimeout"), ("retried", "status_409")]


@pytest.mark.parametrize("status", [409, 422])
async def test_a_first_409_and_any_422_is_an_answer(library: Any, clock: FakeClock, declare: Declare, status: int) -> None:
    inner = FaultyTransport([status])
    async with client_of(library, declare, inner, keyed()) as client:
        assert (await client.post("http://dep/")).status_code == status
        assert len(inner.requests) == 1
    inner = FaultyTransport([503, 422])
    async with client_of(library, declare, inner, keyed()) as client:
        assert (await client.post("http://dep/")).status_code == 422
    assert len(inner.requests) == 2


async def test_attempts_tell_their_number(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503, 503, 200])
    async with client_of(library, declare, inner, Retry(attempt_header=True, backoff=Constant(0.01))) as client:
        assert (await client.get("http://dep/")).status_code == 200
    assert [request.headers["x-retry-attempt"] for request in inner.requests] == ["1", "2", "3"]


def test_ground_14_sync(library: Any, declare: Declare) -> None:
    inner = FaultyTransport([503, 201])
    transport = library.ours.ResilientTransport(declare(keyed(backoff=Constant(0.0, jitter="none"))), inner)
    with library.Client(transport=transport) as client:
        assert client.post("http://dep/").status_code == 201
    assert len({request.headers[KEY] for request in inner.requests}) == 1


async def test_one_that_is_to_be_made_once_is_given_none(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([503, 201])
    async with client_of(library, declare, inner, keyed()) as client:
        assert (await client.post("http://dep/", extensions={"resilient": {"retry": False}})).status_code == 503
    assert KEY not in inner.requests[0].headers


async def test_an_answer_that_the_program_wants_again(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([202, 200])
    retry = Retry(on_result=lambda response: response.status_code == 202, backoff=Constant(0.01))
    async with client_of(library, declare, inner, retry) as client:
        assert (await client.get("http://dep/")).status_code == 200
        assert (await client.post("http://dep/")).status_code == 200  # the script's last step again
    inner = FaultyTransport([202, 200])
    async with client_of(library, declare, inner, retry) as client:
        assert (await client.post("http://dep/")).status_code == 202  # which may not be repeated


@pytest.mark.parametrize(
    ("settings", "kind", "said"),
    [
        ({"idempotency": "yes"}, ValueError, "idempotency"),
        ({"idempotency": True}, ValueError, "idempotency"),
        ({"attempt_header": 1}, TypeError, "attempt_header"),
        ({"on_result": "late"}, TypeError, "on_result"),
    ],
)
def test_wrong_settings_are_named(settings: dict[str, Any], kind: type[Exception], said: str) -> None:
    with pytest.raises(kind, match=said):
        Retry(**settings)
