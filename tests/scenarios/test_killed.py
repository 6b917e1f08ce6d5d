"""The same story on real servers: each dependency is killed in turn and in pairs, under load, and nothing else notices.

`test_features.py` tells it in virtual time and looks at every moment; here sockets, threads and a real clock take part.
"""

from __future__ import annotations

import asyncio
import itertools
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import anyio
import httpx2
import pytest
import uvicorn
from fastapi import FastAPI

from resilient import CircuitBreaker, Resilience, standard
from resilient.httpx2 import AsyncResilientTransport

from ..http.servers import Peer, Server, answer

DEPENDENCIES = ("recs", "reviews", "prices")
NEEDS = {"recommendations": ("recs",), "opinions": ("reviews",), "offers": ("prices", "recs")}
DEATHS = ("reset", "hangs", "fails")
RATE = 15  # requests a second
NOTICED = 1.0  # seconds after a death in which what needs it degrades


class Upstream:
    """A dependency that dies as it is told."""

    death: str | None = None

    async def __call__(self, peer: Peer) -> None:
        while await peer.request() is not None:
            death = self.death
            if death == "reset":
                peer.reset()
                return
            while death == "hangs" and self.death == death:
                await asyncio.sleep(0.02)
            await peer.send(answer(503 if death == "fails" else 200, b'"own"'))


def shop(origins: dict[str, str]) -> tuple[Resilience, FastAPI]:
    """What users see: a page of three features. They come back sooner than by default, so that the test ends."""
    resilience, app = Resilience(), FastAPI()
    needs = {}
    for name, origin in origins.items():
        policies = standard(timeout=0.4, breaker=CircuitBreaker(break_time=0.3, max_break=0.3))
        needs[name] = resilience.dependency(name, *policies, origin=origin)
    client = httpx2.AsyncClient(transport=AsyncResilientTransport(resilience))

    def feature(name: str) -> Any:
        @resilience.feature(name, needs=[needs[one] for one in NEEDS[name]], fallback="default", dwell=0.2, recover_after=0.5)
        async def use() -> Any:
            for one in NEEDS[name]:
                (await client.get(origins[one])).raise_for_status()
            return "own"

        return use

    features = {name: feature(name) for name in NEEDS}
    resilience.install(app)

    @app.get("/")
    async def page() -> dict[str, Any]:
        return dict(zip(features, await asyncio.gather(*(use() for use in features.values())), strict=True))

    return resilience, app


@contextmanager
def serving(app: Any) -> Iterator[str]:
    server = uvicorn.Server(uvicorn.Config(app, log_level="error"))
    with socket.create_server(("127.0.0.1", 0), backlog=100) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


class Users:
    """Those who come at a steady rate, and what they got."""

    def __init__(self, url: str) -> None:
        self.client = httpx2.AsyncClient(base_url=url, timeout=20)
        self.pages: list[tuple[float, set[str]]] = []  # asked; what was degraded
        self.ready: set[int] = set()

    async def come(self) -> None:
        async with anyio.create_task_group() as group:
            for number in itertools.count():
                group.start_soon(self._look)
                if number % RATE == 0:
                    group.start_soon(self._probe)
                await anyio.sleep(1 / RATE)

    async def _look(self) -> None:
        asked = time.monotonic()
        page = await self.client.get("/")
        assert page.status_code == 200
        told = dict(re.findall(r"([a-z]+);level=(\w+)", page.headers.get("degraded", "")))
        assert {name for name, value in page.json().items() if value == "default"} == set(told), "each response says so, and exactly so"
        self.pages.append((asked, set(told)))

    async def _probe(self) -> None:
        self.ready.add((await self.client.get("/readyz")).status_code)

    async def until(self, degraded: set[str]) -> float:
        """When the next page was asked for that is degraded in just this, as are nine more after it."""
        begun = time.monotonic()
        with anyio.fail_after(30):
            while True:
                later = [page for page in self.pages if page[0] >= begun]
                last = [told for _, told in later[-10:]]
                if last == [degraded] * 10:
                    return later[-10][0]
                await anyio.sleep(0.02)


async def healed(resilience: Resilience) -> None:
    """Until nothing is degraded any more: on a machine that is busy ten pages may come in less time than a feature has to be well."""
    with anyio.fail_after(30):
        while resilience.level != "healthy" or {str(one.level) for one in resilience.features.values()} != {"full"}:
            await anyio.sleep(0.02)


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_each_is_killed_in_turn_and_in_pairs() -> None:
    async def story(users: Users, upstreams: dict[str, Upstream], resilience: Resilience) -> None:
        deaths = itertools.cycle(DEATHS)
        cases = [(name,) for name in DEPENDENCIES] + list(itertools.combinations(DEPENDENCIES, 2))
        async with users.client, anyio.create_task_group() as group:
            group.start_soon(users.come)
            for dead in cases:
                await users.until(set())
                await healed(resilience)
                ill = {name for name, needs in NEEDS.items() if {*needs} & {*dead}}
                killed = time.monotonic()
                for name in dead:
                    upstreams[name].death = next(deaths)
                began = await users.until(ill)
                assert began - killed < NOTICED, (dead, began - killed)
                assert all(told <= ill for asked, told in users.pages if asked >= killed), "nothing else is ever touched"
                for name in dead:
                    upstreams[name].death = None
            await users.until(set())
            await healed(resilience)
            group.cancel_scope.cancel()

    with ExitStack() as stack:
        upstreams = {name: Upstream() for name in DEPENDENCIES}
        origins = {name: stack.enter_context(Server(upstream)).url for name, upstream in upstreams.items()}
        resilience, app = shop(origins)
        users = Users(stack.enter_context(serving(app)))
        asyncio.run(story(users, upstreams, resilience))
    assert users.ready == {200}, "a dependency that all replicas share is no reason to leave the load balancer"
