"""An open-loop load: requests are sent when they are due, however many are unanswered. Cheap, so that it does not limit."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from dataclasses import dataclass, field

CLASSES = ("critical", "sheddable_plus", "sheddable", "sheddable")
"""A quarter of the requests is critical, a half sheddable."""
PATIENCE = 2.0
"""Seconds after which a client has gone."""
GONE = 0
"""The status of a request that was not answered in time."""


@dataclass(slots=True)
class Answer:
    """What became of a request: when it was due, how many seconds later it was answered, and with which status."""

    criticality: str
    due: float
    seconds: float
    status: int


@dataclass(slots=True)
class Load:
    """A run at one rate."""

    rate: float
    seconds: float
    answers: list[Answer] = field(default_factory=list)
    unsent: int = 0


class Connection(asyncio.Protocol):
    """One connection, one request at a time. It knows no more of HTTP than the answers of this app need."""

    def __init__(self, idle: list[Connection]) -> None:
        self._idle = idle
        self._buffer = b""
        self._left = -1
        self._status = 0
        self._done: Callable[[int], None] | None = None
        self.closed = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport  # type: ignore[assignment]

    def ask(self, request: bytes, done: Callable[[int], None]) -> None:
        self._done = done
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        if self._left < 0:
            head, found, rest = self._buffer.partition(b"\r\n\r\n")
            if not found:
                return
            self._status = int(head[9:12])
            lower = head.lower()
            self._left = int(lower.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            self._buffer = rest
        if len(self._buffer) >= self._left:
            self._buffer, self._left = b"", -1
            self._idle.append(self)
            self._tell(self._status)

    def connection_lost(self, exc: Exception | None) -> None:
        self.closed = True
        self._tell(GONE)

    def give_up(self) -> None:
        self.closed = True
        self.transport.abort()

    def _tell(self, status: int) -> None:
        done, self._done = self._done, None
        if done is not None:
            done(status)


class Generator:
    """Sends requests to one port over as many connections as it takes, up to `most`."""

    def __init__(self, port: int, most: int = 4000, seed: int = 1) -> None:
        self._port = port
        self._most = most
        self._idle: list[Connection] = []
        self._open = 0
        self._random = random.Random(seed)
        self._heads = {word: f"GET / HTTP/1.1\r\nHost: 127.0.0.1\r\nX-Criticality: {word}\r\n\r\n".encode() for word in set(CLASSES)}

    async def run(self, rate: float, seconds: float) -> Load:
        """Poisson arrivals for so many seconds; then wait until all is answered or given up."""
        loop = asyncio.get_running_loop()
        load = Load(rate, seconds)
        tasks = set()
        began = due = loop.time()
        while (due := due + self._random.expovariate(rate)) < began + seconds:
            if due > loop.time():
                await asyncio.sleep(due - loop.time())
            task = loop.create_task(self._one(load, self._random.choice(CLASSES), due, began))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        return load

    async def _one(self, load: Load, criticality: str, due: float, began: float) -> None:
        loop = asyncio.get_running_loop()
        connection = await self._connection()
        if connection is None:
            load.unsent += 1
            return
        future: asyncio.Future[int] = loop.create_future()
        connection.ask(self._heads[criticality], lambda status: future.done() or future.set_result(status))
        timer = loop.call_at(due + PATIENCE, connection.give_up)
        status = await future
        timer.cancel()
        if status == GONE:
            self._open -= 1
        load.answers.append(Answer(criticality, due - began, loop.time() - due, status))

    async def _connection(self) -> Connection | None:
        while self._idle:
            connection = self._idle.pop()
            if not connection.closed:
                return connection
            self._open -= 1
        if self._open >= self._most:
            return None
        self._open += 1
        loop = asyncio.get_running_loop()
        try:
            _, made = await loop.create_connection(lambda: Connection(self._idle), "127.0.0.1", self._port)
        except OSError:
            self._open -= 1
            return None
        return made

    async def capacity(self, seconds: float, callers: int = 4) -> float:
        """Requests a second that are answered while so many callers ask again as soon as they are."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        load = Load(0.0, seconds)

        async def caller() -> None:
            while loop.time() < began + seconds:
                await self._one(load, "critical", loop.time(), began)

        await asyncio.gather(*(caller() for _ in range(callers)))
        return len(load.answers) / (loop.time() - began)
