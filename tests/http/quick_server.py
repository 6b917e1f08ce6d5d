"""A server in a process of its own, so that it does not share the interpreter with those who put a pool under stress.

Run as a program it listens on as many ports as its argument says, prints them, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n" + b"x" * 1000


class Quick(asyncio.Protocol):
    """Answers each request as soon as its head is there."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.head = b""

    def data_received(self, data: bytes) -> None:
        self.head += data
        while b"\r\n\r\n" in self.head:
            self.head = self.head.partition(b"\r\n\r\n")[2]
            self.transport.write(ANSWER)  # type: ignore[attr-defined]


async def main(number: int) -> None:
    loop = asyncio.get_running_loop()
    servers = [await loop.create_server(Quick, "127.0.0.1", 0, backlog=1000) for _ in range(number)]
    print(*[server.sockets[0].getsockname()[1] for server in servers], flush=True)
    await loop.run_in_executor(None, sys.stdin.read)


@contextmanager
def quick_servers(number: int) -> Iterator[list[str]]:
    """URLs of so many of them."""
    process = subprocess.Popen([sys.executable, __file__, str(number)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdin is not None
    assert process.stdout is not None
    with process:
        yield [f"http://127.0.0.1:{port}" for port in process.stdout.readline().split()]
        process.stdin.close()
        assert process.wait(10) == 0


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
