"""What a server is asked through: connections of one's own, or somebody else's client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

__all__ = ["Client", "Line", "Lines"]

Command: TypeAlias = Sequence[str | bytes | int]


class Line(Protocol):
    """A way to a server, for any number of threads at a time."""

    def request(self, names: Sequence[str]) -> Any:
        """What `mget` is to be given for these names, which may be made once and asked often."""
        ...

    def mget(self, request: Any) -> list[Any]:
        """What is kept under each name: bytes, or None."""
        ...

    def send(self, commands: Sequence[Command]) -> list[Any]:
        """The answers to commands that go there together; none of them may do harm if it comes twice.

        Raises:
            Exception: the first refusal, once all of them are answered.
        """
        ...

    def renew(self) -> None:
        """Begin anew in a forked child."""
        ...

    def close(self) -> None:
        """Let go of what is open; it is opened again where it is needed."""
        ...


class Lines:
    """Connections of redis-py's, each for one thread at a time, without its client.

    The client takes longer than the way to the server and back, of which there is one for each hit. What it does for a
    command is done here: a connection that was closed while nobody used it is opened anew, one on which anything failed is
    closed, so that no answer can be taken for another's, and nothing else is tried again.

    Args:
        connect: makes the pool that makes the connections; at first use.
    """

    def __init__(self, connect: Callable[[], Any]) -> None:
        from redis import exceptions  # an extra, as in `RedisStore`

        self._connect = connect
        self._lost, self._refused = exceptions.ConnectionError, exceptions.ResponseError
        self.renew()

    def renew(self) -> None:
        # A parent's connections may be closed by its child: redis-py sees to it that the parent goes on having them.
        self._pool: Any = None
        # Those of which every answer was read, and those that are closed. What is taken out and put back needs no lock.
        self._open: list[Any] = []
        self._closed: list[Any] = []

    def request(self, names: Sequence[str]) -> bytes:
        return _packed(("MGET", *names))

    def mget(self, request: bytes) -> list[Any]:
        (values,) = self._ask(request, 1)
        return values  # type: ignore[no-any-return]

    def send(self, commands: Sequence[Command]) -> list[Any]:
        return self._ask(b"".join(map(_packed, commands)), len(commands))

    def _ask(self, packed: bytes, answers: int) -> list[Any]:
        try:
            connection = self._open.pop()
        except IndexError:
            return self._asked(self._another(), packed, answers)
        try:
            return self._asked(connection, packed, answers)
        except self._lost:  # the server has closed it since it was used, as it may do
            return self._asked(self._another(), packed, answers)

    def _asked(self, connection: Any, packed: bytes, answers: int) -> list[Any]:
        told: list[Any] = []
        refusal: Exception | None = None
        try:
            connection.send_packed_command((packed,))
            for _ in range(answers):
                try:
                    told.append(connection.read_response(disable_decoding=True))
                except self._refused as error:
                    refusal = refusal or error
        except BaseException:
            connection.disconnect()
            self._closed.append(connection)
            raise
        self._open.append(connection)
        if refusal is not None:
            raise refusal
        return told

    def _another(self) -> Any:
        try:
            return self._closed.pop()
        except IndexError:
            if self._pool is None:
                self._pool = self._connect()
            return self._pool.make_connection()

    def close(self) -> None:
        kept, self._open = self._open, []
        for connection in kept:
            connection.disconnect()
            self._closed.append(connection)


class Client:
    """A client of redis-py or valkey-py that somebody else has made, for his own reasons, and closes.

    Args:
        client: has `mget` and `pipeline`.
    """

    def __init__(self, client: Any) -> None:
        self._client = client

    def request(self, names: Sequence[str]) -> list[str]:
        return [*names]

    def mget(self, request: list[str]) -> list[Any]:
        return self._client.mget(request)  # type: ignore[no-any-return]

    def send(self, commands: Sequence[Command]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for command in commands:
            pipeline.execute_command(*command)
        return pipeline.execute()  # type: ignore[no-any-return]

    def renew(self) -> None: ...

    def close(self) -> None: ...


def _packed(command: Command) -> bytes:
    """A command as it goes over the wire (RESP, https://redis.io/docs/latest/develop/reference/protocol-spec/)."""
    words = [word if isinstance(word, bytes) else str(word).encode() for word in command]
    return b"*%d\r\n" % len(words) + b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words])
