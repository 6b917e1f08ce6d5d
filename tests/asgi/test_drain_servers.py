"""Servers that are stopped while they are at work: nothing is lost."""

from __future__ import annotations

import importlib.util
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import httpx2
import pytest

from .replicas import BOOT, COMMANDS, Balancer, Replica

pytestmark = pytest.mark.slow

DELAY = 2.0  # seconds; several times what the tests' own requests take on a machine that is busy
PAUSE = 0.02  # seconds between two requests of one user


@pytest.fixture
def start() -> Iterator[Callable[..., Replica]]:
    """`start(...)` as for `Replica`; all are ended."""
    started: list[Replica] = []

    def start(*args: Any, **settings: Any) -> Replica:
        started.append(Replica(*args, **settings))
        return started[-1]

    yield start
    for replica in started:
        replica.end()


ENDED = {
    "/slow/3.0": (200, "done"),
    "/stream/30": (200, "".join(f"{number}\n" for number in range(30))),
    "/events": (200, "data: hello\n\ndata: bye\n\n"),
}


class Stopped:
    """What users of a server see that is told to stop while they are served."""

    def __init__(self, replica: Replica) -> None:
        self.replica = replica
        self.answers: dict[str, Any] = {}
        self.seen: list[Any] = []

    async def run(self) -> None:
        async with httpx2.AsyncClient(base_url=self.replica.url, trust_env=False, timeout=30) as client:
            async with anyio.create_task_group() as group:
                for path in ENDED:
                    group.start_soon(self._whole, client, path)
                await anyio.sleep(0.5)
                assert (await client.get("/")).headers.get("connection") != "close"
                self.replica.terminate()
                await self._watch(client)
            with anyio.fail_after(30):
                await anyio.to_thread.run_sync(self.replica.process.wait)

    async def _whole(self, client: httpx2.AsyncClient, path: str) -> None:
        answer = await client.get(path)
        self.answers[path] = answer.status_code, answer.text

    async def _watch(self, client: httpx2.AsyncClient) -> None:
        """Until nobody is served any more."""
        try:
            with anyio.fail_after(DELAY + 20):
                while True:
                    ready = (await client.get("/readyz", timeout=2)).status_code
                    answer = await client.get("/", timeout=2)
                    self.seen.append((ready, answer.status_code, answer.headers.get("connection")))
                    await anyio.sleep(0.05)
        except httpx2.TransportError:
            return


def test_readiness_fails_while_all_are_served_and_nobody_is_cut_off(start: Callable[..., Replica]) -> None:
    """Of all servers at once, for most of the time is waiting."""
    servers = [server for server in COMMANDS if importlib.util.find_spec(server.partition(",")[0]) is not None]
    replicas = {server: start(server, delay=DELAY) for server in servers}
    for replica in replicas.values():
        replica.ready()
    stopped = {server: Stopped(replica) for server, replica in replicas.items()}

    async def run() -> None:
        async with anyio.create_task_group() as group:
            for one in stopped.values():
                group.start_soon(one.run)

    anyio.run(run)
    for server, one in stopped.items():
        assert {status for _, status, _ in one.seen} == {200}, server
        assert one.seen[-3:] == [(503, 200, "close")] * 3, server
        assert one.answers == ENDED, server


@pytest.mark.parametrize(("where", "environment"), [("starting", {"STARTS": "2"}), ("waiting", {"GATE": "1"})])
def test_a_signal_during_the_start_ends_it_cleanly_and_soon(
    start: Callable[..., Replica], where: str, environment: dict[str, str], tmp_path: Path
) -> None:
    """In the app's own start-up, and while the service waits for what its readiness needs: nobody was sent there yet."""
    servers = [server for server in ("uvicorn", "hypercorn", "granian") if importlib.util.find_spec(server) is not None]
    marks = {server: tmp_path / server for server in servers}
    replicas = {server: start(server, delay=120.0, MARKS=str(marks[server]), **environment) for server in servers}
    until = time.monotonic() + BOOT
    for server, replica in replicas.items():
        while not (marks[server].exists() and where in marks[server].read_text()):
            assert time.monotonic() < until and replica.process.poll() is None, server
            time.sleep(0.02)
        replica.terminate()
    for server, replica in replicas.items():
        assert replica.process.wait(60) in (0, -signal.SIGTERM), server  # half of the delay, on a machine that is busy
        assert marks[server].read_text().split()[-2:] == ["hook", "stopped"], server


class Rolling:
    """A steady load, and each replica in turn is stopped and started again."""

    def __init__(self, replicas: list[Replica], stopped: list[Replica], *, users: int = 4) -> None:
        self.replicas = replicas
        self.failed: list[str] = []
        self.served: list[str] = []
        self._stopped = stopped
        self._users = users
        self._over = False

    async def run(self) -> None:
        balancer = Balancer(self.replicas, interval=0.1)
        async with httpx2.AsyncClient(transport=balancer, base_url="http://shop", timeout=30) as client:
            async with anyio.create_task_group() as group:
                group.start_soon(balancer.follow)
                async with anyio.create_task_group() as users:
                    for number in range(self._users):
                        users.start_soon(self._use, client, ("GET", "POST")[number % 2])
                    for replica in self._stopped:
                        await anyio.sleep(0.5)
                        replica.terminate()
                        await anyio.to_thread.run_sync(replica.process.wait)
                        replica.start()
                        await anyio.to_thread.run_sync(replica.ready)
                        while replica not in balancer.up:
                            await anyio.sleep(0.05)
                    self._over = True
                group.cancel_scope.cancel()

    async def _use(self, client: httpx2.AsyncClient, method: str) -> None:
        while not self._over:
            try:
                answer = await client.request(method, "/")
                (self.served if answer.status_code == 200 else self.failed).append(answer.text)
            except httpx2.TransportError as error:
                self.failed.append(repr(error))
            await anyio.sleep(PAUSE)


@pytest.mark.parametrize("delay", [DELAY, None], ids=["with a drain", "without"])
def test_a_rolling_restart_under_load_loses_no_request(delay: float | None, start: Callable[..., Replica]) -> None:
    """The users repeat nothing, and neither does the load balancer."""
    replicas = [start(delay=delay) for _ in range(2)]
    for replica in replicas:
        replica.ready()
    rolling = Rolling(replicas, replicas if delay is not None else replicas[:1])
    anyio.run(rolling.run)
    assert len(rolling.served) > 50
    if delay is None:
        assert rolling.failed  # or the other case would show nothing
    else:
        assert rolling.failed == []
        assert len(set(rolling.served)) >= 3  # two processes, and those that took their places
