"""A small HTTP/1.1 client for the load: h11 over asyncio streams, on kept-alive connections.

Neither httpx nor httpx2 on purpose: the yardstick must not share a fault with what it measures, and this one costs
a fraction of a millisecond a request, has no pool to queue in and may be cancelled at any point.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import h11

if TYPE_CHECKING:
    from collections.abc import Mapping

_CHUNK = 65536


@dataclass(frozen=True, slots=True)
class Answer:
    """A whole HTTP answer; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    def json(self) -> Any:
        """The decoded body."""
        return json.loads(self.body)


class BrokenError(Exception):
    """The server closed the connection or spoke something else than HTTP/1.1."""


class Origin:
    """One server on loopback, and the idle connections to it.

    Args:
        port: where it listens on 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._port = port
        self._idle: list[_Connection] = []

    async def request(self, target: str, *, method: str = "GET") -> Answer:
        """The answer to one request. A connection whose exchange did not end well is closed, not reused.

        A kept-alive connection that the server had closed before it sent a byte of the answer is replaced by a new one
        (RFC 9112 section 9.3.1): uvicorn closes it after a 500 without announcing that.

        Raises:
            OSError: the server can't be reached, or has reset the connection.
            BrokenError: it broke the exchange off.
        """
        while self._idle:
            try:
                return await self._exchange(self._idle.pop(), method, target)
            except _StaleError:
                continue
        return await self._exchange(_Connection(*await asyncio.open_connection("127.0.0.1", self._port)), method, target)

    async def _exchange(self, connection: _Connection, method: str, target: str) -> Answer:
        try:
            answer = await connection.exchange(method, target, f"127.0.0.1:{self._port}")
        except BaseException:
            connection.close()
            raise
        if connection.reuse():
            self._idle.append(connection)
        else:
            connection.close()
        return answer

    def close(self) -> None:
        """Closes the idle connections."""
        while self._idle:
            self._idle.pop().close()


class _StaleError(BrokenError):
    """A reused connection ended before the first byte of the answer."""


class _Connection:
    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._h11 = h11.Connection(h11.CLIENT)
        self._used = False

    async def exchange(self, method: str, target: str, host: str) -> Answer:
        request = h11.Request(method=method, target=target, headers=[("Host", host), ("Content-Length", "0")])
        self._writer.write((self._h11.send(request) or b"") + (self._h11.send(h11.EndOfMessage()) or b""))
        await self._first_bytes()
        status, headers, body = 0, {}, bytearray()
        while not isinstance(event := await self._event(), h11.EndOfMessage):
            if isinstance(event, h11.Response):
                status, headers = event.status_code, {name.decode(): value.decode() for name, value in event.headers}
            elif isinstance(event, h11.Data):
                body += event.data
        return Answer(status, headers, bytes(body))

    async def _first_bytes(self) -> None:
        try:
            received = await self._reader.read(_CHUNK)
        except ConnectionError:
            if self._used:
                raise _StaleError from None
            raise
        if self._used and not received:
            raise _StaleError
        self._h11.receive_data(received)

    async def _event(self) -> h11.Event:
        try:
            while not isinstance(event := self._h11.next_event(), h11.Event):
                self._h11.receive_data(await self._reader.read(_CHUNK))
        except h11.RemoteProtocolError as error:
            raise BrokenError(str(error)) from error
        return event

    def reuse(self) -> bool:
        """Readies the connection for the next exchange, if the server keeps it open."""
        if self._h11.our_state is not h11.DONE or self._h11.their_state is not h11.DONE:
            return False
        self._h11.start_next_cycle()
        self._used = True
        return True

    def close(self) -> None:
        self._writer.close()
