"""Records in Redis or Valkey. What it raises is for `Guarded` to catch."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache, partial
from hashlib import blake2b
from queue import Empty, SimpleQueue
from typing import Any

from ..core.entry import Entry, Mark, Record
from .codec import check_value, encode, recover
from .forks import renewed_in_children
from .guarded import Busy
from .known import Kept, Known
from .lines import Command, Line

__all__ = ["Server"]

# Part of every name: a release that writes other records does not read these.
FORMAT = "1:"
_EPOCH = 16
# Marks belong to no epoch: they are what outlives one.
_ALWAYS = bytes(_EPOCH)
_LONGEST = 2**31
ASKINGS = 1024  # look-ups that are kept ready


class Server:
    """Records under hashed names, each with its time to live; `load` is one MGET, `save` one pipeline.

    Entries carry the epoch that they were written in, a random word under a name of its own that each `load` reads too:
    `clear` begins another one, and what was written in an earlier one is not read any more, and forgotten in its time.

    Args:
        line: to the server.
        prefix: of every name.
        secret: keys the hashes and seals; b"" for none.
        timeout: seconds to wait for a connection.
        connections: at the most at a time.
        max_record: bytes of the largest record.

    Attributes:
        corrupt: records that could not be read.
        refused: records that were too large.
    """

    blocking = True

    def __init__(self, line: Line, *, prefix: str, secret: bytes, timeout: float, connections: int, max_record: int) -> None:
        self._line = line
        self._prefix = prefix + FORMAT
        self._names = blake2b(secret, digest_size=32, person=b"resilient-names").digest() if secret else b""
        self._seals = blake2b(secret, digest_size=32, person=b"resilient-seals").digest() if secret else b""
        self._timeout = timeout
        self._connections = connections
        self._max_record = max_record
        self._epoch: bytes | None = None
        self._known = Known()
        # The same keys are asked for again and again.
        self._asking = lru_cache(ASKINGS)(partial(_asking, line, self._prefix, self._names))
        self.corrupt = self.refused = 0
        self._begin()
        renewed_in_children(self)

    def _begin(self) -> None:
        # A token for each connection that there may be: on the way of each hit, where a semaphore costs ten times as much.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._connections):
            self._places.put(None)

    def renew(self) -> None:
        """Begin anew in a forked child."""
        self._begin()
        self._line.renew()

    def check(self, record: Record) -> None:
        """Raise TypeError for a value that cannot be kept on a server."""
        if isinstance(record, Entry) and record.value is not None:
            check_value(record.value)

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        epoch, *values = self._ask(self._line.mget, self._asking(tuple(keys)))
        if type(epoch) is not bytes or len(epoch) != _EPOCH:
            epoch = None
        self._epoch = epoch
        return [None if value is None else self._read(key, value, epoch) for key, value in zip(keys, values, strict=True)]

    def _read(self, key: str, value: bytes, epoch: bytes | None) -> Record | None:
        written = value[:_EPOCH]
        kept = self._known.get(key, value)
        if kept is not None:
            record: Record | None = kept.record()
        else:
            record, whole = recover(value[_EPOCH:], key=key, secret=self._seals)
            if not whole:
                self.corrupt += 1
            elif record is not None:
                kept = Kept(value, record)
                self._known.put(key, kept, 2 * len(value))
                record = kept.record()
        # The epoch is not sealed: a mark is one in any, and nothing else is one without.
        return record if isinstance(record, Mark) or (written == epoch and written != _ALWAYS) else None

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        epoch = self._epoch or self._begun()
        commands: list[Command] = []
        for key, (record, keep) in records.items():
            data = self._written(key, record)
            if data is None:  # what it would have replaced is out of date
                commands.append(("DEL", self._name(key)))
                continue
            written = _ALWAYS if isinstance(record, Mark) else epoch
            command: Command = ("SET", self._name(key), written + data, "PX", max(1, int(min(keep, _LONGEST) * 1000)))
            commands.append((*command, "NX") if isinstance(record, Mark) and record.first else command)
        self._ask(self._line.send, commands)

    def _written(self, key: str, record: Record) -> bytes | None:
        try:
            data = encode(record, key=key, secret=self._seals)
            if len(data) <= self._max_record or isinstance(record, Mark):
                return data
        except (ValueError, TypeError):
            pass
        self.refused += 1
        return None

    def _begun(self) -> bytes:
        """The epoch of the server; the first one to write begins it."""
        name = self._prefix + "epoch"
        _, epoch = self._ask(self._line.send, [("SET", name, secrets.token_bytes(_EPOCH), "NX"), ("GET", name)])
        self._epoch = epoch = bytes(epoch)
        return epoch

    def remove(self, keys: Sequence[str]) -> None:
        self._ask(self._line.send, [("DEL", *map(self._name, keys))])

    def clear(self) -> None:
        """Begin another epoch."""
        self._known.renew()
        epoch = secrets.token_bytes(_EPOCH)
        self._ask(self._line.send, [("SET", self._prefix + "epoch", epoch)])
        self._epoch = epoch

    def close(self) -> None:
        self._known.renew()
        self._asking.cache_clear()
        self._line.close()

    def _name(self, key: str) -> str:
        return _name(self._prefix, self._names, key)

    def _ask(self, act: Callable[[Any], list[Any]], what: Any) -> list[Any]:
        """The answers to `act(what)`, for which there has to be a place among the connections.

        Raises:
            Busy: there was none in time.
        """
        places = self._places
        try:
            places.get(timeout=self._timeout)
        except Empty:
            raise Busy from None
        try:
            return act(what)
        finally:
            places.put(None)


def _name(prefix: str, secret: bytes, key: str) -> str:
    return prefix + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16, key=secret).hexdigest()


def _asking(line: Line, prefix: str, secret: bytes, keys: tuple[str, ...]) -> Any:
    """What reads the epoch and these keys."""
    return line.request([prefix + "epoch", *(_name(prefix, secret, key) for key in keys)])
