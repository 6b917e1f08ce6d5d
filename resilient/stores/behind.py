"""Writes that nobody waits for."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

from ..core.entry import Mark, Record
from .forks import renewed_in_children
from .memory import weight

__all__ = ["Behind"]

IDLE = 10.0
AGAIN = 0.5
# Seconds for which the thread waits for more to write: a transaction or a round trip, and two changes of threads, cost as
# much for many records as for one.
GATHER = 0.02
_BATCH = 64
_BATCH_BYTES = 2**20

Records = dict[str, tuple[Record, float]]
Owed = Mapping[str, tuple[Mark | None, float]]
_GONE = None, 0.0


class Behind:
    """A bounded queue of records, and a daemon thread that writes them; it ends when there was nothing to write for a while.

    Args:
        write: writes a batch, and says whether it could.
        owe: writes marks and removals.
        settle: what is tried again and again while `owing` says so.
        owing: whether there is something to settle.
        records: how many may wait.
        size: how many bytes may wait.

    Attributes:
        drops: records that were not written, since there was no room or they could not be.
    """

    def __init__(
        self,
        write: Callable[[Mapping[str, tuple[Record, float]]], bool],
        owe: Callable[[Owed], bool],
        settle: Callable[[], bool],
        owing: Callable[[], bool],
        *,
        records: int,
        size: int,
    ) -> None:
        self._write = write
        self._owe = owe
        self._settle = settle
        self._owing = owing
        self._limit = records
        self._size_limit = size
        self.drops = 0
        self._begin()
        renewed_in_children(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._change = threading.Condition(self._lock)
        self._waiting: Records = {}
        self._size = 0
        # What the thread is writing, and what has to be there instead once it has.
        self._writing: Records = {}
        self._after: dict[str, tuple[Mark | None, float]] = {}
        self._thread: threading.Thread | None = None
        self._busy = self._closed = False
        # What the thread waits for: anything at all, or for more of it.
        self._resting = self._gathering = False
        self._hurried = 0

    renew = _begin  # in a forked child: the parent writes what waits there

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is being written: `look` would find nothing."""
        # No lock: what goes from one to the next is in both for a moment, in this order.
        return not (self._waiting or self._writing or self._after)

    def put(self, records: Mapping[str, tuple[Record, float]]) -> None:
        """Have records written, in place of older ones that still wait."""
        with self._change:
            for key, kept in records.items():
                if isinstance(kept[0], Mark) and kept[0].first and (key in self._waiting or key in self._writing):
                    continue  # there is one
                self._take_out(key)
                size = weight(key, kept[0])
                if self._closed or len(self._waiting) >= self._limit or self._size + size > self._size_limit:
                    self.drops += 1
                    # An older one of this very key may be under way, and would be what is read from then on.
                    self._regret(key, _GONE)
                    continue
                self._waiting[key] = kept
                self._size += size
            if self._thread is None or self._resting or (self._gathering and self._full()):
                self._wake()

    def look(self, keys: Sequence[str]) -> dict[str, Record | None]:
        """What is going to be written under these keys, or is being written; None for what is going to be removed."""
        with self._lock:  # of the condition, which takes as long again to enter
            pairs = {key: self._waiting.get(key) or self._after.get(key) or self._writing.get(key) for key in keys}
        return {key: pair[0] for key, pair in pairs.items() if pair is not None}

    def drop(self, owed: Owed) -> None:
        """Write nothing where these marks and removals go; where the thread is at it, they are owed once more."""
        with self._change:
            for key, mark in owed.items():
                self._take_out(key)
                self._regret(key, mark)

    def clear(self) -> None:
        """Write nothing of what waits."""
        with self._change:
            self._waiting.clear()
            self._size = 0
            for key in [*self._writing]:
                self._regret(key, _GONE)

    def wake(self) -> None:
        """Have what is owed tried again."""
        with self._change:
            self._wake()

    def flush(self, timeout: float) -> bool:
        """Wait until everything is written and settled, for so many seconds; whether it is."""
        with self._change:
            if self._owing():
                self._wake()
            return self._done(timeout, lambda: not (self._waiting or self._busy or self._owing()))

    def close(self, timeout: float) -> None:
        """Flush, and end the thread; what could not be written by then is dropped."""
        with self._change:
            self._done(timeout, lambda: not (self._waiting or self._busy))
            self._closed = True
            self.drops += len(self._waiting)
            self._waiting.clear()
            self._size = 0
            thread = self._thread
            self._change.notify_all()
        if thread is not None and thread is not threading.current_thread():
            thread.join(timeout)

    def _done(self, timeout: float, done: Callable[[], bool]) -> bool:
        """Wait until it is done, and have nothing wait for more meanwhile."""
        self._hurried += 1
        self._change.notify_all()
        try:
            return self._change.wait_for(done, timeout)
        finally:
            self._hurried -= 1

    def _take_out(self, key: str) -> None:
        kept = self._waiting.pop(key, None)
        if kept is not None:
            self._size -= weight(key, kept[0])

    def _wake(self) -> None:
        if self._thread is None and not self._closed:
            thread = threading.Thread(target=self._work, args=(self._change,), name="resilient-store", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # the system gives no more of them, or the interpreter is about to end
                self.drops += len(self._waiting)
                self._waiting.clear()
                self._size = 0
                return
            self._thread = thread
        self._change.notify_all()

    def _regret(self, key: str, mark: tuple[Mark | None, float]) -> None:
        if self._writing.pop(key, None) is not None or key in self._after:
            self._after[key] = mark

    def _work(self, change: threading.Condition) -> None:
        while (batch := self._next(change)) is not None:
            if batch and not self._write(batch):
                self.drops += len(batch)
            with change:
                self._writing = {}
                after = dict(self._after)
            if after:
                self._owe(after)
            elif self._owing():
                self._settle()
            with change:
                # One that was replaced meanwhile has its turn with the next batch.
                self._after = {key: mark for key, mark in self._after.items() if after.get(key) is not mark}
                self._busy = False
                change.notify_all()

    def _next(self, change: threading.Condition) -> Records | None:
        """What to write next, nothing where something is to be settled; None ends the thread."""
        with change:
            if not (self._waiting or self._after or self._closed):
                self._resting = True
                change.wait(AGAIN if self._owing() else IDLE)
                self._resting = False
            if self._waiting and not (self._full() or self._after or self._closed or self._hurried):
                self._gathering = True
                change.wait(GATHER)
                self._gathering = False
            if self._closed or not (self._waiting or self._after or self._owing()):
                self._thread = None
                change.notify_all()
                return None
            batch = self._next_batch()
            self._writing = dict(batch)
            for key in batch:
                self._take_out(key)
            self._busy = True
            return batch

    def _full(self) -> bool:
        return len(self._waiting) >= _BATCH or self._size >= _BATCH_BYTES

    def _next_batch(self) -> Records:
        batch: Records = {}
        size = 0
        for key, kept in self._waiting.items():
            if len(batch) >= _BATCH or size >= _BATCH_BYTES:
                break
            batch[key] = kept
            size += weight(key, kept[0])
        return batch
