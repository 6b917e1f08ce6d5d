"""How the last calls went: those of the last seconds, or the last so many.

Rules of this file: O(1) a record and nothing allocated by one; memory does not grow with traffic. Time that goes back
stands still. Nothing is kept that idle objects would have to carry: the ring is made when it is first needed.

The two windows share one small contract, so that a breaker can record a success in line: if `now >= ends`, call
`turn(now)`; then add one to `calls`.
"""

from __future__ import annotations

import math
from array import array

from .bounds import positive, whole

__all__ = ["CountWindow", "TimeWindow"]

Totals = tuple[int, int, int]
# Four bytes a count halve what an idle window weighs; a bucket with more calls than that forgets the rest.
_MOST = 2**32 - 1
_NOTHING: array[int] = array("I")


class TimeWindow:
    """Calls, failures and slow calls of the last `seconds`, in steps of one bucket.

    The bucket that `now` lies in is always a partial one: between `seconds` less one bucket and `seconds` are seen.

    Args:
        seconds: length of the window.
        buckets: in how many parts it moves on.

    Attributes:
        ends: when the present bucket is over.
        calls, failures, slow: counts of the present bucket.
    """

    __slots__ = ("_number", "_past", "_ring", "_width", "buckets", "calls", "ends", "failures", "seconds", "slow")

    def __init__(self, seconds: float = 10.0, buckets: int = 10) -> None:
        positive("seconds", seconds)
        whole("buckets", buckets)
        self.seconds = seconds
        self.buckets = buckets
        self._width = seconds / buckets
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        # Three counts for each bucket that is over, and their sums.
        self._ring = _NOTHING
        self._past: Totals = (0, 0, 0)
        self._number: int | None = None
        self.ends = -math.inf
        self.calls = self.failures = self.slow = 0

    def turn(self, now: float) -> None:
        """Begin the bucket that `now` lies in, and drop those that are too old. Only for `now >= ends`."""
        number = int(now // self._width)
        last = self._number
        if last is not None:
            number = max(number, last + 1)
            if number - last < self.buckets:
                self._move(last, number)
            else:
                self._ring, self._past = _NOTHING, (0, 0, 0)
        self.calls = self.failures = self.slow = 0
        self._number = number
        self.ends = (number + 1) * self._width

    def _move(self, last: int, number: int) -> None:
        if not self._ring:
            self._ring = array("I", [0]) * (3 * self.buckets)
        ring, buckets = self._ring, self.buckets
        calls, failures, slow = self._past
        at = last % buckets * 3
        for place, count in enumerate((self.calls, self.failures, self.slow), at):
            ring[place] = min(count, _MOST)
        calls, failures, slow = calls + ring[at], failures + ring[at + 1], slow + ring[at + 2]
        for old in range(last + 1, number + 1):
            at = old % buckets * 3
            calls, failures, slow = calls - ring[at], failures - ring[at + 1], slow - ring[at + 2]
            ring[at] = ring[at + 1] = ring[at + 2] = 0
        self._past = calls, failures, slow

    def record(self, now: float, failed: bool, slow: bool) -> None:
        """Record a call."""
        if now >= self.ends:
            self.turn(now)
        self.calls += 1
        if failed:
            self.failures += 1
        if slow:
            self.slow += 1

    def totals(self, now: float) -> Totals:
        """Calls, failures and slow calls in the window."""
        if now >= self.ends:
            self.turn(now)
        calls, failures, slow = self._past
        return calls + self.calls, failures + self.failures, slow + self.slow


class CountWindow:
    """Calls, failures and slow calls among the last `size` calls.

    Args:
        size: how many calls are remembered, a byte each.

    Attributes:
        ends: in the past, since every call moves this window on.
        calls: how many were ever recorded; failures, slow: how many among those remembered.
    """

    __slots__ = ("_ring", "calls", "failures", "size", "slow")
    ends = -math.inf

    def __init__(self, size: int) -> None:
        whole("size", size)
        self.size = size
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._ring = bytearray()
        self.calls = self.failures = self.slow = 0

    def turn(self, now: float) -> None:
        """Make room for one more call, which is a quick success until somebody says otherwise."""
        ring = self._ring
        if len(ring) < self.size:
            ring.append(0)
            return
        at = self.calls % self.size
        if ring[at]:
            self.failures -= ring[at] & 1
            self.slow -= ring[at] >> 1
            ring[at] = 0

    def record(self, now: float, failed: bool, slow: bool) -> None:
        """Record a call."""
        self.turn(now)
        self._ring[self.calls % self.size] = failed | slow << 1
        self.failures += failed
        self.slow += slow
        self.calls += 1

    def totals(self, now: float) -> Totals:
        """Calls, failures and slow calls in the window."""
        return min(self.calls, self.size), self.failures, self.slow
