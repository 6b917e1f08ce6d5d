"""Where the good answers of a service are put, and how long they are believed.

What blocks is done beside the requests, and a bounded number at a time: what comes on top is not kept, and counted.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from ..background import begin_task
from ..core.asked import Asked
from ..core.caching import CachingRules
from ..core.entry import Entry
from ..core.freshness import seconds_of_use
from ..policies.stock import Stock
from ..protocols import Runtime
from ..runtime import drive

__all__ = ["NEWS", "Shelf"]

WRITES = 16  # answers that are on their way to a store that blocks
REMEMBERED = 1024  # URIs that were written to lately, and answers that were kept lately
KNOWN = 20_000  # URIs of which something is or was kept; beyond it, it is no longer known of which
NEWS = frozenset({301, 302, 303, 307, 308, 401, 403, 404, 410, 451})
"""Statuses that say of a resource that it is not there any more, or not for this caller."""
SAME = 1.0  # seconds for which an answer that was kept is not replaced by one that is the same


class Shelf:
    """The answers of one service.

    Args:
        stock: where they are found again.
        rules: the operator's.
        room: bytes that are held at a time of answers that are not complete yet.

    Attributes:
        writes: how many requests have changed something so far.
        dropped: answers that were not kept since too many were on their way already.
    """

    def __init__(self, stock: Stock, rules: CachingRules, *, room: int) -> None:
        self.stock = stock
        self.store = stock.store
        self.writes: int = 0
        self.dropped: int = 0
        self._rules = rules
        self._room = room
        self._held = self._writing = 0
        self._written: OrderedDict[str, int] = OrderedDict()
        self._written_before = 0
        self._kept: OrderedDict[int, tuple[float, int, int]] = OrderedDict()
        self._known: set[int] = set()
        self._lock = threading.Lock()

    # -- what is held ---------------------------------------------------------------------------------------------

    def hold(self, size: int) -> bool:
        """Make room for so many bytes of an answer that is coming along. False if there is none."""
        with self._lock:
            if self._held + size > self._room:
                self.dropped += 1
                return False
            self._held += size
            return True

    def release(self, size: int) -> None:
        """They are not needed any more."""
        with self._lock:
            self._held -= size

    # -- keeping and forgetting -----------------------------------------------------------------------------------

    def put(self, asked: Asked, entry: Entry, writes: int, runtime: Runtime) -> None:
        """Keep an answer, for requests like `asked`; beside the request if the store blocks.

        Args:
            asked: the request that it answers.
            entry: the answer.
            writes: how many there had been when the request came.
            runtime: the request's.
        """
        if not (self.store.blocking and self._is_kept(asked, entry)):
            self._run(lambda: self._put(asked, entry, writes, runtime))

    async def _put(self, asked: Asked, entry: Entry, writes: int, runtime: Runtime) -> None:
        if not self.store.blocking and len(self._known) <= KNOWN:
            with self._lock:
                self._known.add(hash(asked.uri))
        found = await self.stock.find(asked, runtime)
        # Asked for before a write and answered after it: nobody knows which of the two it saw.
        if self._last_write(asked.uri) > writes or (self.store.blocking and self.stock.changed(found, entry.requested_at)):
            return
        await self.stock.keep(asked, found, entry, seconds_of_use(entry, runtime.now(), self._rules), runtime)
        if self._last_write(asked.uri) > writes:
            await self.stock.forget((asked.uri,), (), (), runtime)  # meanwhile; its mark may have been saved over
        elif self.store.blocking:
            place, content = _place(asked, entry), _content(entry)
            with self._lock:
                self._kept[place] = entry.arrived, content, writes
                if len(self._kept) > REMEMBERED:
                    self._kept.popitem(last=False)

    def _is_kept(self, asked: Asked, entry: Entry) -> bool:
        """Whether the very same was kept a moment ago: a page that many ask for need not be written each time."""
        at, content, writes = self._kept.get(_place(asked, entry), (-SAME, 0, -1))
        return entry.arrived - at < SAME and self._last_write(asked.uri) <= writes and content == _content(entry)

    def _last_write(self, uri: str) -> int:
        """The number of the last write to a URI, or a higher one where that is not remembered."""
        return self._written.get(uri, self._written_before)

    def retire(self, asked: Asked, status: int, runtime: Runtime) -> None:
        """Let what is kept for requests like `asked` be used no more: what they are answered now is news."""
        self._run(lambda: self._retire(asked, status, runtime))

    async def _retire(self, asked: Asked, status: int, runtime: Runtime) -> None:
        found = await self.stock.find(asked, runtime)
        old, now = found.entry, runtime.now()
        if old is None or old.needs_validation:
            return
        # Nearer to this caller stands what nothing permits to serve, for as long as the other would have been.
        news = Entry(
            status=status, requested_at=old.requested_at, received_at=old.received_at, arrived=now,
            date=max(old.date, old.received_at), vary=old.vary, selected=old.selected, needs_validation=True,
        )  # fmt: skip
        with self._lock:
            self._kept.clear()
        await self.stock.keep(asked, found, news, seconds_of_use(old, now, self._rules), runtime)

    async def forget(self, uris: Iterable[str], groups: Iterable[tuple[str, str]], runtime: Runtime) -> None:
        """Let what is kept of URIs, and in groups of an origin that a URI stands for, be used no more, whosever it is."""
        marked = [*uris]
        with self._lock:
            self.writes += 1
            for one in marked:
                self._written[one] = self.writes
                self._written.move_to_end(one)
            while len(self._written) > REMEMBERED:
                self._written_before = self._written.popitem(last=False)[1]
            if not self.store.blocking and len(self._known) <= KNOWN:
                # A mark in memory costs the oldest one; where nothing was kept there is nothing to mark.
                marked = [one for one in marked if hash(one) in self._known]
        named = [*groups]
        if marked or named:
            await self.stock.forget(marked, (), named, runtime)

    def _run(self, job: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Do what may take input and output beside the request, unless too much of that is going on."""
        if not self.store.blocking:
            drive(job())
            return
        with self._lock:
            if self._writing >= WRITES:
                self.dropped += 1
                return
            self._writing += 1

        async def work() -> None:
            try:
                await job()
            finally:
                with self._lock:
                    self._writing -= 1

        begin_task(work)


def _place(asked: Asked, entry: Entry) -> int:
    return hash((asked.uri, asked.partition, entry.vary, entry.selected))


def _content(entry: Entry) -> int:
    return hash((entry.status, tuple([line for line in entry.fields if line[0].lower() != b"date"]), entry.body))
