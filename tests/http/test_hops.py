"""Redirects and authentication: several requests, one call of the client's, one deadline."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import anyio
import pytest

from resilient import Timeout
from resilient.testing import FakeClock, FaultyTransport

from .bodies import scripted
from .conftest import Declare

pytestmark = pytest.mark.anyio


def after(library: Any, seconds: float, status: int, **fields: str) -> Any:
    """An answer that takes its time."""

    async def respond(request: Any) -> Any:
        await anyio.sleep(seconds)
        return library.Response(status, headers={name.replace("_", "-"): value for name, value in fields.items()})

    return respond


def going_round(library: Any, seconds: float) -> Any:
    return after(library, seconds, 302, location="/round")


async def test_ground_18_redirects_share_one_deadline(library: Any, clock: FakeClock, declare: Declare) -> None:
    transport = library.ours.AsyncResilientTransport(declare(timeout=1), FaultyTransport([going_round(library, 0.3)]))
    async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
        began = clock.now()
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.get("http://dep/")
        assert clock.now() - began == pytest.approx(1)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_ground_18_each_kind_of_redirect(library: Any, clock: FakeClock, declare: Declare, status: int) -> None:
    inner = FaultyTransport([after(library, 0.6, status, location="http://other/"), after(library, 0.6, 200)])
    transport = library.ours.AsyncResilientTransport(declare(timeout=1), inner)
    async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.post("http://dep/", content=b"x")
    assert len(inner.requests) == 2


async def test_ground_18_the_next_call_has_a_deadline_of_its_own(library: Any, clock: FakeClock, declare: Declare) -> None:
    script = [going_round(library, 0.6), after(library, 0.3, 200)]
    transport = library.ours.AsyncResilientTransport(declare(timeout=1), FaultyTransport(script * 3))
    async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
        for _ in range(3):
            assert (await client.get("http://dep/")).status_code == 200


class Tokens:
    """Answers a challenge by sending the same request again, as both libraries' digest authentication does."""

    @staticmethod
    def of(library: Any, rounds: int = 3) -> Any:
        class Flow(library.Auth):  # type: ignore[misc, name-defined]
            def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
                for _ in range(rounds):
                    if (yield request).status_code != 401:
                        return

        return Flow()


async def test_ground_18_authentication_shares_one_deadline(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([after(library, 0.4, 401)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        began = clock.now()
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.get("http://dep/", auth=Tokens.of(library))
    assert clock.now() - began == pytest.approx(1)
    assert len(inner.requests) == 3


async def test_ground_18_digest_authentication(library: Any, clock: FakeClock, declare: Declare) -> None:
    challenge = 'Digest realm="r", nonce="n", qop="auth"'
    inner = FaultyTransport([after(library, 0.6, 401, www_authenticate=challenge), after(library, 0.6, 200)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.get("http://dep/", auth=library.DigestAuth("u", "p"))
    assert inner.requests[1].headers["authorization"].startswith("Digest ")


@pytest.mark.parametrize("status", [200, 301, 302, 304, 401, 404, 503])
async def test_ground_18_sending_the_same_request_later_begins_anew(library: Any, clock: FakeClock, declare: Declare, status: int) -> None:
    fields = {"location": "/x"} if status in (301, 302) else {}
    inner = FaultyTransport([after(library, 0.5, status, **fields)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        request = client.build_request("POST", "http://dep/")
        for _ in range(3):
            assert (await client.send(request)).status_code == status
            await anyio.sleep(3600)


async def test_ground_18_following_a_redirect_by_hand_later_begins_anew(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([going_round(library, 0.5), after(library, 0.6, 200)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        response = await client.get("http://dep/")
        await anyio.sleep(60)
        assert (await client.send(response.next_request)).status_code == 200


async def test_ground_18_a_redirect_that_trickles_does_not_buy_time(library: Any, clock: FakeClock, declare: Declare) -> None:
    """Its body is no answer yet: the deadline of the call holds for it, though bodies have only idle limits else."""
    trickle = [step for _ in range(100) for step in (b".", 0.3)]
    respond = scripted(library, *trickle, status=302, location="/next")
    transport = library.ours.AsyncResilientTransport(declare(Timeout(total=1)), FaultyTransport([respond]))
    async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
        began = clock.now()
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.get("http://dep/")
    assert clock.now() - began == pytest.approx(1)


def test_ground_18_sync_redirects_share_one_deadline(library: Any, clock: FakeClock, declare: Declare) -> None:
    def redirect(request: Any) -> Any:
        clock.advance(0.3)
        return library.Response(302, headers={"location": "/round"})

    inner = FaultyTransport([redirect])
    with library.Client(transport=library.ours.ResilientTransport(declare(timeout=1), inner), follow_redirects=True) as client:
        with pytest.raises(library.ours.DeadlineExceeded):
            client.get("http://dep/")
    assert len(inner.requests) == 4, "the fourth one ended after the deadline; a fifth was not begun"


# -- a send of its own, however soon after ------------------------------------------------------------------------


@pytest.mark.parametrize("status", [401, 407, 302, 307, 304])
async def test_sending_the_same_request_again_at_once_begins_anew(library: Any, clock: FakeClock, declare: Declare, status: int) -> None:
    """A program that answers a challenge by itself: it sends again, well within what the first send was given."""
    fields = {"location": "/x"} if status in (302, 307) else {}
    inner = FaultyTransport([after(library, 0.6, status, **fields)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        request = client.build_request("POST", "http://dep/")
        for _ in range(4):
            assert (await client.send(request)).status_code == status
            request.headers["authorization"] = "Bearer fresh"


async def test_sending_again_what_was_streamed_begins_anew(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([after(library, 0.6, 401)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        request = client.build_request("GET", "http://dep/")
        for _ in range(3):
            response = await client.send(request, stream=True)
            await response.aclose()


@pytest.mark.parametrize("status", [302, 303, 308])
async def test_following_a_redirect_by_hand_at_once_begins_anew(library: Any, clock: FakeClock, declare: Declare, status: int) -> None:
    inner = FaultyTransport([after(library, 0.6, status, location="/next")])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        response = await client.get("http://dep/")
        for _ in range(3):
            response = await client.send(response.next_request)
            assert response.status_code == status


@pytest.mark.parametrize("rounds", [1, 3])
async def test_a_send_with_authentication_that_gives_up_leaves_the_next_one_its_time(
    library: Any, clock: FakeClock, declare: Declare, rounds: int
) -> None:
    """Hops of one send share its deadline; the next send of the same request, by the same flow, has another."""
    inner = FaultyTransport([after(library, 0.3, 401)])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        request = client.build_request("GET", "http://dep/")
        for _ in range(3):
            began = clock.now()
            assert (await client.send(request, auth=Tokens.of(library, rounds))).status_code == 401
            assert clock.now() - began == pytest.approx(0.3 * rounds)
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.send(request, auth=Tokens.of(library, 4))
        assert clock.now() - began == pytest.approx(0.3 * rounds + 1)


async def test_a_challenge_after_a_redirect_is_of_the_same_call(library: Any, clock: FakeClock, declare: Declare) -> None:
    """The flow then sends the first request again, not the one that was challenged."""
    challenge = after(library, 0.4, 401, www_authenticate='Digest realm="r", nonce="n", qop="auth"')
    inner = FaultyTransport([after(library, 0.4, 302, location="/next"), challenge])
    transport = library.ours.AsyncResilientTransport(declare(timeout=1), inner)
    async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
        began = clock.now()
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.get("http://dep/", auth=library.DigestAuth("u", "p"))
    assert clock.now() - began == pytest.approx(1)
    assert [request.url.path for request in inner.requests] == ["/", "/next", "/"]


class Between:
    """Transports between the client and ours."""

    @staticmethod
    def rebuilding(library: Any, ours: Any) -> Any:
        """Hands out answers of its own making."""

        class Rebuilding(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
            async def handle_async_request(self, request: Any) -> Any:
                response = await ours.handle_async_request(request)
                return library.Response(response.status_code, headers=response.headers, stream=response.stream)

        return Rebuilding()

    @staticmethod
    def in_a_task(library: Any, ours: Any) -> Any:
        """Sends in a task of its own, from where the client cannot be seen."""

        class Tasks(library.AsyncBaseTransport):  # type: ignore[misc, name-defined]
            async def handle_async_request(self, request: Any) -> Any:
                answers: list[Any] = []

                async def send() -> None:
                    try:
                        answers.append(await ours.handle_async_request(request))
                    except Exception as error:  # noqa: BLE001 - raised below, without a group around it
                        answers.append(error)

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(send)
                if isinstance(answers[0], Exception):
                    raise answers[0]
                return answers[0]

        return Tasks()


@pytest.mark.parametrize("status", [302, 401])
@pytest.mark.parametrize("between", [Between.rebuilding, Between.in_a_task], ids=["rebuilding", "in a task"])
async def test_hops_share_a_deadline_through_other_transports(
    library: Any, clock: FakeClock, declare: Declare, between: Any, status: int
) -> None:
    inner = FaultyTransport([after(library, 0.3, status, location="/next")])
    transport = between(library, library.ours.AsyncResilientTransport(declare(timeout=1), inner))
    async with library.AsyncClient(transport=transport, follow_redirects=True) as client:
        began = clock.now()
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.get("http://dep/", auth=Tokens.of(library, 4))
    assert clock.now() - began == pytest.approx(1)


async def test_a_token_that_is_fetched_on_the_way(library: Any, clock: FakeClock, declare: Declare) -> None:
    """A flow may send other requests in between. They are calls of their own; what comes after them is still the same one."""

    class Fetching(library.Auth):  # type: ignore[misc, name-defined]
        def auth_flow(self, request: Any) -> Generator[Any, Any, None]:
            yield library.Request("POST", "http://dep/token")
            if (yield request).status_code == 401:
                yield library.Request("POST", "http://dep/token")
                yield request

    seconds = 0.25

    async def respond(request: Any) -> Any:
        await anyio.sleep(seconds)
        return library.Response(200 if request.url.path == "/token" else 401)

    inner = FaultyTransport([respond])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(timeout=1), inner)) as client:
        request = client.build_request("GET", "http://dep/")
        for _ in range(3):
            assert (await client.send(request, auth=Fetching())).status_code == 401
        seconds, began = 0.4, clock.now()
        with pytest.raises(library.ours.DeadlineExceeded):
            await client.send(request, auth=Fetching())
    assert clock.now() - began == pytest.approx(0.4 + 1)


def test_sync_sends_at_once_begin_anew(library: Any, clock: FakeClock, declare: Declare) -> None:
    answers = [(401, {}), (302, {"location": "/next"}), (307, {"location": "/next"}), (407, {})] * 2

    def respond(request: Any) -> Any:
        clock.advance(0.6)
        status, headers = answers.pop(0)
        return library.Response(status, headers=headers)

    with library.Client(transport=library.ours.ResilientTransport(declare(timeout=1), FaultyTransport([respond]))) as client:
        request = client.build_request("GET", "http://dep/")
        while answers:
            response = client.send(request)
            request = response.next_request or request


def test_sync_authentication_shares_one_deadline(library: Any, clock: FakeClock, declare: Declare) -> None:
    def respond(request: Any) -> Any:
        clock.advance(0.4)
        return library.Response(401)

    inner = FaultyTransport([respond])
    with library.Client(transport=library.ours.ResilientTransport(declare(timeout=1), inner)) as client:
        with pytest.raises(library.ours.DeadlineExceeded):
            client.get("http://dep/", auth=Tokens.of(library, 9))
    assert len(inner.requests) == 3, "the third one ended after the deadline; a fourth was not begun"
