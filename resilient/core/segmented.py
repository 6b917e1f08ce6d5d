"""What is kept and what goes, in a memory of so many bytes.

Rules of this file: no clock, no lock; `now` is an argument. O(1) a call, but for the number of things that it drops; the
bound holds after every call.

A segmented LRU (Karedla, Love and Wherry, "Caching strategies to improve disk system performance", IEEE Computer 27/3,
1994): what is new is on probation, what is asked for again is protected, and what falls out of the protected part goes on
probation once more. So a scan over many keys that nobody asks for twice drops nothing that is in use. What is worthless,
being too old for any use, goes before anything that is not.
"""

from __future__ import annotations

import heapq
import math
from collections import OrderedDict
from collections.abc import Iterator
from typing import Generic, TypeVar

from .bounds import fraction, whole

__all__ = ["Segmented"]

K = TypeVar("K")
V = TypeVar("V")
Kept = tuple[V, int, float]

# Moments that are not worth telling from "never".
_NEVER = 2**53


class Segmented(Generic[K, V]):
    """A map that holds so many bytes, and drops what is worth least.

    Args:
        max_bytes: the bound of the sizes' sum.
        max_entries: the bound of their number.
        protected: part of the bytes that what was asked for again may take.

    Attributes:
        size: bytes in it.
        evictions: things dropped to make room while they were still worth something.
        expired: things dropped because they were worthless.
    """

    __slots__ = (
        "_heap",
        "_moments",
        "_probation",
        "_protected",
        "_protected_bytes",
        "_protected_size",
        "evictions",
        "expired",
        "max_bytes",
        "max_entries",
        "size",
    )

    def __init__(self, max_bytes: int, max_entries: int = 100_000, *, protected: float = 0.8) -> None:
        whole("max_bytes", max_bytes)
        whole("max_entries", max_entries)
        fraction("protected", protected)
        self.max_bytes = max_bytes
        self.max_entries = max_entries
        self._protected_bytes = int(max_bytes * protected)
        self.evictions = self.expired = 0
        self.clear()

    def clear(self) -> None:
        """Drop everything."""
        self._probation: OrderedDict[K, Kept[V]] = OrderedDict()
        self._protected: OrderedDict[K, Kept[V]] = OrderedDict()
        self._protected_size = 0
        self.size = 0
        # The keys that become worthless within a second, by its number, and the numbers in order.
        self._moments: dict[int, dict[K, None]] = {}
        self._heap: list[int] = []

    def __len__(self) -> int:
        return len(self._probation) + len(self._protected)

    def __contains__(self, key: K) -> bool:
        return key in self._protected or key in self._probation

    def __iter__(self) -> Iterator[K]:
        """Its keys, what would be dropped first first, worthless or not."""
        yield from self._probation
        yield from self._protected

    def get(self, key: K) -> V | None:
        """What is kept under a key, which protects it; None for nothing."""
        kept = self._protected.get(key)
        if kept is not None:
            self._protected.move_to_end(key)
            return kept[0]
        kept = self._probation.get(key)
        if kept is None:
            return None
        if kept[1] > self._protected_bytes:  # it would push out everything else, and itself
            self._probation.move_to_end(key)
            return kept[0]
        del self._probation[key]
        self._protected[key] = kept
        self._protected_size += kept[1]
        while self._protected_size > self._protected_bytes:
            demoted, other = self._protected.popitem(last=False)
            self._protected_size -= other[1]
            self._probation[demoted] = other
        return kept[0]

    def peek(self, key: K) -> V | None:
        """What is kept under a key, which changes nothing; None for nothing."""
        kept = self._protected.get(key) or self._probation.get(key)
        return None if kept is None else kept[0]

    def put(self, key: K, value: V, size: int, *, worthless_at: float = math.inf, now: float = -math.inf) -> bool:
        """Keep something, in place of what was there; False if it is larger than all there is room for.

        Args:
            key: where.
            value: what.
            size: its bytes.
            worthless_at: the moment from which on it is of no use.
            now: the present moment: what is worthless by now is dropped before anything else.
        """
        protect = key in self._protected
        if protect or key in self._probation:
            self.remove(key)
        if size > self.max_bytes:
            return False
        if self.size + size > self.max_bytes or len(self._probation) + len(self._protected) >= self.max_entries:
            self.pop_expired(now)
            while self.size + size > self.max_bytes or len(self) >= self.max_entries:
                self._evict()
        self._probation[key] = value, size, worthless_at
        self.size += size
        if worthless_at < _NEVER:
            second = _second(worthless_at)
            moment = self._moments.get(second)
            if moment is None:
                moment = self._new_moment(second)
            moment[key] = None
        if protect:  # a newer answer to what is asked for again and again
            self.get(key)
        return True

    def remove(self, key: K) -> V | None:
        """Drop what is kept under a key, and return it; None for nothing."""
        kept = self._probation.pop(key, None)
        if kept is None:
            kept = self._protected.pop(key, None)
            if kept is None:
                return None
            self._protected_size -= kept[1]
        self.size -= kept[1]
        moment = self._moments.get(_second(kept[2]))
        if moment is not None:
            del moment[key]
        return kept[0]

    def pop_expired(self, now: float) -> int:
        """Drop what is worthless by now; how many that were. What became so within the last second may be left."""
        dropped = 0
        heap, moments = self._heap, self._moments
        while heap and heap[0] <= now:
            for key in tuple(moments.pop(heapq.heappop(heap))):
                self.remove(key)
                dropped += 1
        self.expired += dropped
        return dropped

    def _evict(self) -> None:
        self.remove(next(iter(self)))
        self.evictions += 1

    def _new_moment(self, second: int) -> dict[K, None]:
        # Moments of which every key is gone are thrown out before they can outnumber the others.
        if len(self._heap) > 2 * len(self) + 64:
            self._moments = {number: keys for number, keys in self._moments.items() if keys}
            self._heap = sorted(self._moments)
        moment: dict[K, None] = {}
        self._moments[second] = moment
        heapq.heappush(self._heap, second)
        return moment


def _second(moment: float) -> int:
    """The whole second at or after a moment."""
    return math.ceil(max(moment, -_NEVER)) if moment < _NEVER else _NEVER
