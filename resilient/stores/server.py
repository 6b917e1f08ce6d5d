"""Records in Redis or Valkey. What it raises is for `Guarded` to catch."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from hashlib import blake2b
from queue import Empty, SimpleQueue
from typing import Any

from ..core.entry import Entry, Mark, Record
from .codec import check_value, encode, recover
from .guarded import Busy
from .known import Kept, Known

__all__ = ["Server"]

# Part of every name: a release that writes other records does not read these.
FORMAT = "1:"
_EPOCH = 16
# Marks belong to no epoch: they are what outlives one.
_ALWAYS = bytes(_EPOCH)
_LONGEST = 2**31


class Server:
    """Records under hashed names, each with its time to live; `load` is one MGET, `save` one pipeline.

    Entries carry the epoch that they were written in, a random word under a name of its own that each `load` reads too:
    `clear` begins another one, and what was written in an earlier one is not read any more, and forgotten in its time.

    Args:
        connect: makes the client, at first use.
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

    def __init__(
        self, connect: Callable[[], Any], *, prefix: str, secret: bytes, timeout: float, connections: int, max_record: int
    ) -> None:
        self._connect = connect
        self._prefix = prefix + FORMAT
        self._names = blake2b(secret, digest_size=32, person=b"resilient-names").digest() if secret else b""
        self._seals = blake2b(secret, digest_size=32, person=b"resilient-seals").digest() if secret else b""
        self._timeout = timeout
        self._connections = connections
        self._max_record = max_record
        self._client: Any = None
        self._epoch: bytes | None = None
        self._known = Known()
        self.corrupt = self.refused = 0
        self.renew()

    def renew(self) -> None:
        """Begin anew in a forked child; redis-py's pool does the same of itself."""
        # A token for each connection that there may be: on the way of each hit, where a semaphore costs ten times as much.
        self._places: SimpleQueue[None] = SimpleQueue()
        for _ in range(self._connections):
            self._places.put(None)
        self._client = None

    def check(self, record: Record) -> None:
        """Raise TypeError for a value that cannot be kept on a server."""
        if isinstance(record, Entry) and record.value is not None:
            check_value(record.value)

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        with self._connected() as client:
            epoch, *values = client.mget([self._prefix + "epoch", *map(self._name, keys)])
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
        with self._connected() as client:
            epoch = self._epoch or self._begun(client)
            pipeline = client.pipeline(transaction=False)
            for key, (record, keep) in records.items():
                data = self._written(key, record)
                if data is None:  # what it would have replaced is out of date
                    pipeline.delete(self._name(key))
                else:
                    written = _ALWAYS if isinstance(record, Mark) else epoch
                    first = isinstance(record, Mark) and record.first
                    pipeline.set(self._name(key), written + data, px=max(1, int(min(keep, _LONGEST) * 1000)), nx=first)
            pipeline.execute()

    def _written(self, key: str, record: Record) -> bytes | None:
        try:
            data = encode(record, key=key, secret=self._seals)
            if len(data) <= self._max_record or isinstance(record, Mark):
                return data
        except (ValueError, TypeError):
            pass
        self.refused += 1
        return None

    def _begun(self, client: Any) -> bytes:
        """The epoch of the server; the first one to write begins it."""
        name = self._prefix + "epoch"
        pipeline = client.pipeline(transaction=False)
        pipeline.set(name, secrets.token_bytes(_EPOCH), nx=True)
        pipeline.get(name)
        _, epoch = pipeline.execute()
        self._epoch = epoch
        return bytes(epoch)

    def remove(self, keys: Sequence[str]) -> None:
        with self._connected() as client:
            client.delete(*map(self._name, keys))

    def clear(self) -> None:
        """Begin another epoch."""
        self._known.renew()
        epoch = secrets.token_bytes(_EPOCH)
        with self._connected() as client:
            client.set(self._prefix + "epoch", epoch)
        self._epoch = epoch

    def close(self) -> None:
        self._known.renew()
        client, self._client = self._client, None
        if client is not None:
            client.close()

    def _name(self, key: str) -> str:
        return self._prefix + blake2b(key.encode("utf-8", "surrogatepass"), digest_size=16, key=self._names).hexdigest()

    @contextmanager
    def _connected(self) -> Iterator[Any]:
        """The client, and a place among its connections."""
        places = self._places
        try:
            places.get(timeout=self._timeout)
        except Empty:
            raise Busy from None
        try:
            if self._client is None:
                self._client = self._connect()
            yield self._client
        finally:
            places.put(None)
