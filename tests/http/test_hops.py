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
