"""hishel, in RFC mode: its storages, and its core over a dict, which it leaves to its users."""

from __future__ import annotations

import importlib
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

from hishel import AsyncBaseStorage, AsyncRedisStorage, AsyncSqliteStorage, BaseStorage, Entry, Headers, Request, Response, SqliteStorage

from caching.cases import Case, Place, Subject, asked, origin_of

__all__ = ["hishels"]


class Kept:
    """Entries in a dict, without any bound: the least that a storage of hishel's can be."""

    def __init__(self) -> None:
        self.entries: dict[str, dict[uuid.UUID, tuple[Entry, bytes]]] = {}
        self.keys: dict[uuid.UUID, str] = {}

    def keep(self, entry: Entry, body: bytes, key: str) -> None:
        """Keep an entry whose body has come to its end."""
        self.entries.setdefault(key, {})[entry.id] = entry, body
        self.keys[entry.id] = key

    def update(self, number: uuid.UUID, headers: Headers) -> None:
        """Replace an entry's fields."""
        if (key := self.keys.get(number)) is not None:
            entry, body = self.entries[key][number]
            self.entries[key][number] = replace(entry, response=replace(entry.response, headers=headers)), body

    def remove(self, number: uuid.UUID) -> None:
        """Forget an entry."""
        if (key := self.keys.pop(number, None)) is not None:
            del self.entries[key][number]


class AsyncDictStorage(AsyncBaseStorage):
    """Hishel's interface over a dict."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Kept()

    async def create_entry(
        self, request: Request, response: Response, key: str, *, ttl: float | None = None, tti: float | None = None
    ) -> Entry:
        entry = Entry(uuid.uuid4(), request, response)
        return replace(entry, response=replace(response, stream=self._saved(entry, response.stream, key)))

    async def _saved(self, entry: Entry, stream: Any, key: str) -> AsyncIterator[bytes]:
        chunks = []
        async for chunk in stream:
            chunks.append(chunk)
            yield chunk
        self.kept.keep(entry, b"".join(chunks), key)

    async def get_entries(self, key: str) -> list[Entry]:
        found = self.kept.entries.get(key, {}).values()
        return [replace(entry, response=replace(entry.response, stream=_stream(body))) for entry, body in found]

    async def update_headers(self, id: uuid.UUID, headers: Headers) -> None:  # noqa: A002 - its name there
        self.kept.update(id, headers)

    async def remove_entry(self, id: uuid.UUID) -> None:  # noqa: A002
        self.kept.remove(id)


class DictStorage(BaseStorage):
    """The same for the sync client."""

    def __init__(self) -> None:
        super().__init__()
        self.kept = Kept()

    def create_entry(self, request: Request, response: Response, key: str, *, ttl: float | None = None, tti: float | None = None) -> Entry:
        entry = Entry(uuid.uuid4(), request, response)
        return replace(entry, response=replace(response, stream=self._saved(entry, response.stream, key)))

    def _saved(self, entry: Entry, stream: Any, key: str) -> Iterator[bytes]:
        chunks = []
        for chunk in stream:
            chunks.append(chunk)
            yield chunk
        self.kept.keep(entry, b"".join(chunks), key)

    def get_entries(self, key: str) -> list[Entry]:
        found = self.kept.entries.get(key, {}).values()
        return [replace(entry, response=replace(entry.response, stream=iter([body]))) for entry, body in found]

    def update_headers(self, id: uuid.UUID, headers: Headers) -> None:  # noqa: A002 - its name there
        self.kept.update(id, headers)

    def remove_entry(self, id: uuid.UUID) -> None:  # noqa: A002
        self.kept.remove(id)


async def _stream(body: bytes) -> AsyncIterator[bytes]:
    yield body


def hishels(case: Case, place: Place) -> Iterator[Subject]:
    """Hishel's transport on each storage; not where it cannot do what the case asks for."""
    if case.refreshed or case.entries:
        return
    door = importlib.import_module(f"hishel.{case.library}")
    transport = door.CacheTransport if case.sync else door.AsyncCacheTransport
    for name, storage in _storages(case, place):
        origin, inner = origin_of(case)
        yield Subject(name, asked(case, transport(inner, storage=storage, rfc=True)), origin)


def _storages(case: Case, place: Place) -> list[tuple[str, Any]]:
    if case.sync:
        return [("hishel, dict", DictStorage()), ("hishel, sqlite", SqliteStorage(database_path=place.file(f"hishel-{case.name}")))]
    found: list[tuple[str, Any]] = [("hishel, dict", AsyncDictStorage())]
    if case.library == "httpx":
        return found
    found.append(("hishel, sqlite", AsyncSqliteStorage(database_path=place.file(f"hishel-{case.name}"))))
    if place.server is not None:
        from redis.asyncio import Redis

        client: Any = Redis.from_url(place.server)
        place.stack.push_async_callback(client.aclose)
        found.append(("hishel, redis", AsyncRedisStorage(client, key_prefix=f"hishel:{case.name}")))
    return found
