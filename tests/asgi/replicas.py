"""Replicas of a service in processes of their own, and a load balancer that follows /readyz and repeats nothing."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import anyio
import httpx2

ROOT = Path(__file__).parents[2]
APP = "tests.asgi.leaving_app:app"
COMMANDS = {
    "uvicorn": ["uvicorn", APP, "--log-level", "warning", "--port", "{port}"],
    "uvicorn, 2 workers": ["uvicorn", APP, "--log-level", "warning", "--workers", "2", "--port", "{port}"],
    "hypercorn": ["hypercorn", APP, "-w", "0", "--graceful-timeout", "20", "-b", "127.0.0.1:{port}"],
    "granian": ["granian", "--interface", "asgi", "--loop", "asyncio", "--port", "{port}", APP],
}
BOOT = 60.0  # seconds, on a machine that is busy


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])


class Replica:
    """One server on a port of its own, which it keeps when it is started again."""

    def __init__(self, server: str = "uvicorn", *, delay: float | None, budget: float = 20.0, **environment: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._command = [sys.executable, "-m", *(part.format(port=self.port) for part in COMMANDS[server])]
        settings = {} if delay is None else {"DELAY": str(delay), "BUDGET": str(budget)}
        self._environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **settings, **environment}
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(self._command, cwd=ROOT, env=self._environment, start_new_session=True)

    def ready(self) -> None:
        """Wait until it serves."""
        until = time.monotonic() + BOOT
        with httpx2.Client(trust_env=False, timeout=5) as client:
            while time.monotonic() < until and self.process.poll() is None:
                try:
                    if client.get(f"{self.url}/readyz").status_code == 200:
                        return
                except httpx2.TransportError:
                    pass
                time.sleep(0.05)
        raise AssertionError(f"{self._command} did not start: {self.process.poll()}")

    def terminate(self) -> None:
        self.process.send_signal(signal.SIGTERM)

    def end(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Balancer(httpx2.AsyncBaseTransport):
    """Sends each request to the next replica that was ready when last asked."""

    def __init__(self, replicas: list[Replica], interval: float) -> None:
        self._replicas = replicas
        self._interval = interval
        self._wire = httpx2.AsyncHTTPTransport()
        self._turn = 0
        self.up = list(replicas)

    async def follow(self) -> None:
        """Ask for readiness, each time on a new connection, for ever."""
        while True:
            ready = []
            for replica in self._replicas:
                try:
                    async with httpx2.AsyncClient(trust_env=False, timeout=2) as client:
                        if (await client.get(f"{replica.url}/readyz")).status_code == 200:
                            ready.append(replica)
                except httpx2.TransportError:
                    pass
            self.up = ready
            await anyio.sleep(self._interval)

    async def handle_async_request(self, request: httpx2.Request) -> Any:
        if not self.up:
            raise httpx2.ConnectError("no replica is ready")
        self._turn += 1
        replica = self.up[self._turn % len(self.up)]
        request.url = request.url.copy_with(host="127.0.0.1", port=replica.port)
        return await self._wire.handle_async_request(request)

    async def aclose(self) -> None:
        await self._wire.aclose()
