"""What belongs to one caller reaches no other, and what one caller does is felt by no other."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilient import Bulkhead, Hedge, Retry, standard
from resilient.testing import FakeClock, FaultyTransport

from .conftest import Declare

pytestmark = pytest.mark.anyio
USERS = [f"Bearer {number}" for number in range(20)]


class Accounts:
    """Answers each request with the token that it came with. Every third one fails, every fifth one is slow."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.asked = 0

    async def __call__(self, request: Any) -> Any:
        self.asked += 1
        number = self.asked
        if number % 5 == 0:
            await anyio.sleep(0.5)
        return self.library.Response(503 if number % 3 == 0 else 200, json=request.headers["authorization"])


def serving(library: Any, upstream: Any) -> Any:
    """An inner transport that awaits `upstream`."""

    class Serving(library.AsyncBaseTransport):
        async def handle_async_request(self, request: Any) -> Any:
            return await upstream(request)

    return Serving()


async def test_pitfall_05_nobody_gets_anothers_answer(library: Any, clock: FakeClock, declare: Declare) -> None:
    """The same URL, at the same time, through retries and hedges: nothing is shared between those who ask."""
    dependency = declare(*standard(hedge=Hedge(delay=0.05), retry=Retry(attempts=3)))
    upstream = Accounts(library)
    got: list[tuple[str, Any]] = []
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, serving(library, upstream))) as client:

        async def ask(user: str) -> None:
            response = await client.get("http://dep/me", headers={"authorization": user})
            got.append((user, response.json()))

        for _ in range(5):
            async with anyio.create_task_group() as group:
                for user in USERS:
                    group.start_soon(ask, user)
    assert upstream.asked > len(got) == 100, "there were retries and hedges"
    assert all(user == answer for user, answer in got)


@pytest.mark.parametrize("cache_control", ["no-store", "private", "public, max-age=3600"])
async def test_pitfall_05_a_fallback_is_nobodys_answer(library: Any, clock: FakeClock, declare: Declare, cache_control: str) -> None:
    """Not the last good one, whoever it was for; and what one reader does to it the next one does not see."""
    good = library.Response(200, json=["Bearer 1"], headers={"cache-control": cache_control})
    dependency = declare(fallback=["nobody"])
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([lambda request: good, library.ReadError("reset")]))
    async with library.AsyncClient(transport=transport) as client:
        assert (await client.post("http://dep/me", headers={"authorization": "Bearer 1"})).json() == ["Bearer 1"]
        for user in ("Bearer 2", "Bearer 1"):
            response = await client.post("http://dep/me", headers={"authorization": user})
            assert response.json() == ["nobody"]
            response.json().append(user)


async def test_pitfall_06_a_caller_who_leaves_neither_multiplies_nor_hangs_the_others(
    library: Any, clock: FakeClock, declare: Declare
) -> None:
    """Two hundred want the same, five at a time; the first five are cancelled. Each other one is answered by one request."""
    dependency = declare(*standard(bulkhead=Bulkhead(max_concurrent=5, max_wait=60, standing_wait=60)))
    asked = at_once = most = 0

    async def upstream(request: Any) -> Any:
        nonlocal asked, at_once, most
        asked += 1
        at_once += 1
        most = max(most, at_once)
        try:
            await anyio.sleep(0.1)
        finally:
            at_once -= 1
        return library.Response(200)

    answered = 0
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, serving(library, upstream))) as client:

        async def ask(number: int) -> None:
            nonlocal answered
            if number < 5:
                with anyio.CancelScope() as mine:
                    scopes.append(mine)
                    await client.get("http://dep/same")
                return
            assert (await client.get("http://dep/same")).status_code == 200
            answered += 1

        scopes: list[anyio.CancelScope] = []
        async with anyio.create_task_group() as group:
            for number in range(5):
                group.start_soon(ask, number)
            await anyio.sleep(0.01)
            for number in range(5, 200):
                group.start_soon(ask, number)
            await anyio.sleep(0.04)
            for scope in scopes:
                scope.cancel()
    assert (asked, answered, most) == (200, 195, 5)
    assert dependency.bulkhead.in_use == dependency.bulkhead.queued == 0
