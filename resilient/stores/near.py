"""The first level: what is known in this process of what another place keeps."""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping, Sequence

from ..core.entry import Mark, Record
from ..core.segmented import Segmented
from .forks import renewed_in_children
from .memory import weight

__all__ = ["Near"]


class _Held:
    """A record, or that there is none, and what is known of that."""

    __slots__ = ("asked", "assumed", "number", "record", "until")

    def __init__(self, record: Record | None, number: int, asked: float, *, until: float = math.inf, assumed: bool = False) -> None:
        self.record = record
        # Orders what was written here, learnt and assumed.
        self.number = number
        # When it was known to be so.
        self.asked = asked
        self.until = until
        # There was nobody to ask: it is only held to be absent, from now on.
        self.assumed = assumed


class Near:
    """What this process has read and written, believed for a while, and for as long as nobody can be asked.

    Args:
        limit: bytes, what is known to be absent included; 0 holds nothing.
        trust: seconds for which it is believed without being asked for again.
    """

    def __init__(self, limit: int, trust: float) -> None:
        self.limit = limit
        self.trust = trust
        self._lock = threading.Lock()
        self._held: Segmented[str, _Held] = Segmented(max(limit, 1))
        # The number of the latest write here.
        self.number = 0
        renewed_in_children(self)

    @property
    def size(self) -> int:
        """Bytes that are held."""
        return self._held.size

    @property
    def count(self) -> int:
        """Records that are held, and absences."""
        return len(self._held)

    @property
    def evictions(self) -> int:
        """How much was let go for want of room."""
        return self._held.evictions

    def look(self, keys: Sequence[str], now: float) -> tuple[list[Record | None], list[int]]:
        """What can be believed of each key, and the places of those of which nothing can."""
        if not self.limit:
            return [None] * len(keys), [*range(len(keys))]
        answers: list[Record | None] = []
        unknown: list[int] = []
        since = now - self.trust
        with self._lock:
            for place, key in enumerate(keys):
                held = self._held.get(key)
                if held is None or held.asked <= since:
                    unknown.append(place)
                    answers.append(None)
                else:
                    answers.append(held.record if held.until > now else None)
        return answers, unknown

    def learn(self, found: dict[str, Record | None], since: int, now: float) -> dict[str, Record | None]:
        """Take what the other place has said; what was written here after number `since` is newer, and stays.

        Returns:
            What is now believed of each key.
        """
        if not self.limit:
            return found
        believed = dict(found)
        with self._lock:
            for key, record in found.items():
                held = self._held.peek(key)
                if held is not None and held.number > since:
                    believed[key] = held.record
                else:
                    self._put(key, _Held(record, since, now))
        return believed

    def alone(self, keys: Sequence[str], now: float) -> list[Record | None]:
        """What is held of each key, however long ago it was asked for: the other place cannot be reached.

        What is not known is assumed to be absent from now on. A mark may be among it, so no entry that is older than an
        assumption is given together with it.
        """
        with self._lock:
            self.number += 1
            found = [self._held_or_assumed(key, now) for key in keys]
        floor = max((held.number for held in found if held.assumed), default=-1)
        return [held.record if isinstance(held.record, Mark) or held.number >= floor else None for held in found]

    def _held_or_assumed(self, key: str, now: float) -> _Held:
        held = self._held.get(key)
        if held is None or held.until <= now:
            held = _Held(None, self.number, -math.inf, assumed=True)
            self._put(key, held)
        return held

    def keep(self, records: Mapping[str, tuple[Record, float]], now: float) -> None:
        """Hold what is being written."""
        with self._lock:
            self.number += 1
            for key, (record, keep) in records.items():
                self._put(key, _Held(record, self.number, now, until=now + keep))

    def unlearn(self, keys: Sequence[str]) -> None:
        """Hold nothing of these, so that they are asked for."""
        with self._lock:
            self.number += 1
            for key in keys:
                self._held.remove(key)

    def forget(self, keys: Sequence[str], now: float) -> None:
        """Hold that there is nothing."""
        with self._lock:
            self.number += 1
            for key in keys:
                self._put(key, _Held(None, self.number, now))

    def _put(self, key: str, held: _Held) -> None:
        self._held.put(key, held, weight(key, held.record), worthless_at=held.until, now=held.asked)

    def clear(self) -> None:
        """Hold nothing."""
        with self._lock:
            self._held.clear()

    def renew(self) -> None:
        """Begin anew in a forked child, if a thread of the parent was just at work on the maps."""
        torn = self._lock.locked()
        self._lock = threading.Lock()
        if torn:
            self._held.clear()
