"""The upstreams' faults, in memory: an ASGI transport and no server."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import httpx2
import pytest

from resilient.demo.upstreams import CONTENTS, MAX_CLIENTS, TRICKLE_GAP, Upstream

Scenario = Callable[["Watched", httpx2.AsyncClient], Coroutine[Any, Any, None]]


class Watched:
    """An upstream, and whether a request for its content has arrived."""

    def __init__(self, name: str) -> None:
        self.upstream = Upstream(name)
        self.called = asyncio.Event()

    async def app(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["path"].startswith("/item"):
            self.called.set()
        await self.upstream.app(scope, receive, send)


def play(scenario: Scenario, name: str = "catalog") -> None:
    async def main() -> None:
        upstream = Watched(name)
        async with httpx2.AsyncClient(transport=httpx2.ASGITransport(upstream.app), base_url="http://upstream") as client:
            await scenario(upstream, client)

    asyncio.run(asyncio.wait_for(main(), 10))


@pytest.mark.parametrize("name", CONTENTS)
def test_a_healthy_upstream_answers_with_its_content(name: str) -> None:
    async def scenario(upstream: Watched, client: httpx2.AsyncClient) -> None:
        response = await client.get("/item/7")
        assert response.status_code == 200
        assert "7" in response.text

    play(scenario, name)


def test_flaky_spoils_about_half_and_down_all() -> None:
    async def scenario(upstream: Watched, client: httpx2.AsyncClient) -> None:
        await client.post("/fault?mode=flaky")
        statuses = [(await client.get("/item/7")).status_code for _ in range(200)]
        assert set(statuses) == {200, 503}
        assert 80 <= statuses.count(503) <= 120
        await client.post("/fault?mode=down")
        assert {(await client.get("/item/7")).status_code for _ in range(10)} == {503}

    play(scenario)


def test_hang_holds_every_request_until_the_switch_moves() -> None:
    async def scenario(upstream: Watched, client: httpx2.AsyncClient) -> None:
        await client.post("/fault?mode=hang")
        request = asyncio.create_task(client.get("/item/7"))
        await upstream.called.wait()
        done, _ = await asyncio.wait([request], timeout=0.1)
        assert not done
        await client.post("/fault?mode=none")
        assert (await request).status_code == 200

    play(scenario)


def test_hang_lets_go_of_a_caller_who_hung_up() -> None:
    sent: list[str] = []

    async def main() -> None:
        upstream = Upstream("catalog")
        await upstream.app(
            {"type": "http", "method": "POST", "path": "/fault", "query_string": b"mode=hang", "headers": []}, _never, _ignore
        )
        messages = iter([{"type": "http.request", "body": b""}, {"type": "http.disconnect"}])

        async def receive() -> Any:
            return next(messages)

        async def send(message: Any) -> None:
            sent.append(message["type"])

        await upstream.app({"type": "http", "method": "GET", "path": "/item/7", "query_string": b"", "headers": []}, receive, send)

    asyncio.run(asyncio.wait_for(main(), 5))
    assert sent[0] == "http.response.start"  # the server drops what is sent to nobody; what counts is that it ended


def test_trickle_sends_its_body_byte_by_byte_and_the_rest_when_it_is_over() -> None:
    async def scenario(upstream: Watched, client: httpx2.AsyncClient) -> None:
        await client.post("/fault?mode=trickle")
        request = asyncio.create_task(client.get("/item/7"))
        await upstream.called.wait()
        done, _ = await asyncio.wait([request], timeout=3 * TRICKLE_GAP)
        assert not done
        await client.post("/fault?mode=none")
        response = await asyncio.wait_for(request, 20 * TRICKLE_GAP)  # the whole body would take more than twice as long
        assert response.json() == CONTENTS["catalog"]("7")

    play(scenario)


def test_calls_are_counted_by_client_and_the_names_are_bounded() -> None:
    async def scenario(upstream: Watched, client: httpx2.AsyncClient) -> None:
        for _ in range(3):
            await client.get("/item/7", headers={"User-Agent": "bare python"})
        for number in range(MAX_CLIENTS * 2):
            await client.get("/item/7", headers={"User-Agent": f"stranger-{number}"})
        calls = (await client.get("/calls")).json()
        assert calls["bare"] == 3
        assert len(calls) == MAX_CLIENTS + 1
        assert calls["other"] == MAX_CLIENTS + 1

    play(scenario)


def test_an_unknown_fault_is_refused_and_changes_nothing() -> None:
    async def scenario(upstream: Watched, client: httpx2.AsyncClient) -> None:
        response = await client.post("/fault?mode=banana")
        assert response.status_code == 422
        assert "hang" in response.json()["modes"]
        assert (await client.post("/fault")).status_code == 422
        assert (await client.get("/item/7")).status_code == 200

    play(scenario)


def test_an_unknown_service_names_the_parameter() -> None:
    with pytest.raises(ValueError, match="name must be one of"):
        Upstream("billing")


async def _never() -> Any:
    await asyncio.Event().wait()


async def _ignore(message: Any) -> None:
    return None
