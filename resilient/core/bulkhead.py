"""A number of slots and a line of waiters in front of them.

Rules of this file: no waiting, no waking, no lock. The caller holds one lock around each method, and wakes the waiter
that it is handed after the lock is let go. A slot is in use from `try_acquire` or from being handed over until
`release`. Nobody waits in front of a free slot, so nobody can overtake: first come, first served. Every operation is
O(1), leaving from the middle included.

The line is the controlled-delay queue of Maurer, "Fail at Scale" (ACM Queue 13:8, 2015), with wider constants: how long
a waiter may wait is fixed when it joins. Joining a line that was empty a moment ago it may wait long, so that a burst is
served; joining one that has not been empty for `standing_after` it may wait `standing_wait`, because a line that never
empties only adds delay. Those who joined early keep their word: a burst of slow calls is still a burst.
"""

from __future__ import annotations

from collections import OrderedDict

from .bounds import not_negative, whole

__all__ = ["Slots"]


class Slots:
    """Slots that are either in use or free, and who waits for one.

    Args:
        limit: how many may be in use at a time.
        queue: how many may wait.
        standing_after: seconds without an empty line after which the line is a standing one.
        standing_wait: seconds that whoever joins a standing line may wait.

    Attributes:
        limit: as given, or as resized.
        in_use: slots taken; above `limit` only after `resize` to fewer than were taken.
        queued: how many wait.
    """

    __slots__ = ("_line", "_since", "in_use", "limit", "queue", "queued", "standing_after", "standing_wait")

    def __init__(self, limit: int = 100, queue: int = 1000, standing_after: float = 1.0, standing_wait: float = 0.05) -> None:
        whole("limit", limit)
        whole("queue", queue, least=0)
        not_negative("standing_after", standing_after)
        not_negative("standing_wait", standing_wait)
        self.limit = limit
        self.queue = queue
        self.standing_after = standing_after
        self.standing_wait = standing_wait
        self.in_use = 0
        self.queued = 0
        # Keyed by identity, so that any object can wait; ordered, and cheap to leave at either end or in the middle
        # (a plain dict slows down when its oldest entries are the ones taken away).
        self._line: OrderedDict[int, object] = OrderedDict()
        self._since = 0.0

    def try_acquire(self) -> bool:
        """Take a free slot. False if there is none; there is none while somebody waits for one."""
        if self.in_use < self.limit:
            self.in_use += 1
            return True
        return False

    def enqueue(self, waiter: object, now: float) -> bool:
        """Join the line after `try_acquire` said no, under the same lock. False if the line is full.

        Raises:
            RuntimeError: if a slot is free (nobody would ever hand it over) or the waiter is in the line already.
        """
        if self.in_use < self.limit:
            raise RuntimeError("a slot is free: acquire it instead of waiting")
        if self.queued >= self.queue:
            return False
        if id(waiter) in self._line:
            raise RuntimeError("this waiter is in the line already")
        if not self.queued:
            self._since = now
        self._line[id(waiter)] = waiter
        self.queued += 1
        return True

    def standing(self, now: float) -> bool:
        """Whether the line has not been empty for `standing_after`."""
        return self.queued > 0 and now - self._since >= self.standing_after

    def wait_limit(self, now: float, max_wait: float) -> float:
        """Seconds that a waiter which joins now may wait. It is fixed by joining, so nobody needs to look again."""
        return min(max_wait, self.standing_wait) if self.standing(now) else max_wait

    def leave(self, waiter: object) -> bool:
        """Leave the line. False if the waiter is not in it: it was handed a slot, and must use or release it."""
        if id(waiter) not in self._line:
            return False
        del self._line[id(waiter)]
        self.queued -= 1
        return True

    def release(self, now: float) -> object | None:
        """Give a slot back. Returns the waiter that has it from now on, to be woken, or None.

        `now` changes nothing today: waits are fixed at joining. It is taken as by every other state object.

        Raises:
            RuntimeError: if no slot is in use.
        """
        if self.in_use <= 0:
            raise RuntimeError("a slot was released that nobody had acquired")
        if self.queued and self.in_use <= self.limit:
            self.queued -= 1
            return self._line.popitem(last=False)[1]
        self.in_use -= 1
        return None

    def resize(self, limit: int) -> list[object]:
        """Change the limit. Returns the waiters that have a slot from now on, oldest first, to be woken.

        With a lower limit nobody loses a slot; releases hand nothing over until fewer are in use than allowed.
        """
        whole("limit", limit)
        self.limit = limit
        granted = []
        while self.queued and self.in_use < limit:
            self.in_use += 1
            self.queued -= 1
            granted.append(self._line.popitem(last=False)[1])
        return granted
