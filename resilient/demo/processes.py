"""The parent's side of the demo's processes: start them, find their ports, be sure that they end."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import tempfile
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING

from .client import Origin

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

UPSTREAMS = ("catalog", "recommendations", "reviews")
SHOPS = ("bare", "protected")

_START = 60.0  # seconds for a cold start on a slow, busy machine
_END = 3.0


class StartError(Exception):
    """A process of the demo did not come up; the text says which, and what it said last."""


@dataclass(frozen=True)
class Stage:
    """The running processes: name -> where it listens, and name -> process id."""

    upstreams: dict[str, Origin]
    shops: dict[str, Origin]
    pids: dict[str, int]


@contextlib.asynccontextmanager
async def stage() -> AsyncIterator[Stage]:
    """Three upstreams and two shops on loopback, up while the block runs.

    Raises:
        StartError: one of them did not come up.
    """
    async with contextlib.AsyncExitStack() as stack:
        starts = {name: await _started(stack, "resilient.demo.upstreams", name) for name in UPSTREAMS}
        upstreams = {name: Origin(await start.port()) for name, start in starts.items()}
        urls = [upstreams[name].url for name in UPSTREAMS]
        starts |= {name: await _started(stack, "resilient.demo.shop", name, *urls) for name in SHOPS}
        shops = {name: Origin(await starts[name].port()) for name in SHOPS}
        for origin in (*upstreams.values(), *shops.values()):
            stack.callback(origin.close)
        yield Stage(upstreams, shops, {name: start.process.pid for name, start in starts.items()})


@dataclass(frozen=True)
class _Start:
    name: str
    process: asyncio.subprocess.Process
    stderr: IO[bytes]

    async def port(self) -> int:
        assert self.process.stdout is not None
        try:
            async with asyncio.timeout(_START):
                line = await self.process.stdout.readline()
        except TimeoutError:
            line = b""
        if not line.strip().isdigit():
            self.stderr.seek(0)
            raise StartError(f"{self.name} did not start:\n{self.stderr.read().decode(errors='replace')[-2000:]}")
        return int(line)


async def _started(stack: contextlib.AsyncExitStack, module: str, name: str, *arguments: str) -> _Start:
    stderr = stack.enter_context(tempfile.TemporaryFile())  # noqa: SIM115 - the stack closes it
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-P", "-m", module, name, *arguments),  # -P: a module in the working directory is not ours
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=stderr,
        env={**os.environ, "NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1"},
        start_new_session=True,  # Ctrl-C is for the parent alone, which then ends them in order
    )
    stack.push_async_callback(_end, process)
    return _Start(name, process, stderr)


async def _end(process: asyncio.subprocess.Process) -> None:
    assert process.stdin is not None
    process.stdin.close()
    try:
        async with asyncio.timeout(_END):
            await process.wait()
    except TimeoutError:
        process.kill()
        await process.wait()
