"""A body on its way from one writer to any number of readers, each at a pace of his own, on whatever loop or thread.

Up to its limit a tape keeps all of the body, so that a reader who comes late begins at the beginning. A longer body
spills: from then on only what somebody has yet to read is kept, the writer waits for the slowest, and nobody may join.
"""

from __future__ import annotations

import math
import threading
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable

    from .protocols import Runtime, Waiter

__all__ = ["Reading", "Tape"]


class Tape:
    """What came so far, and whether more is to come.

    Args:
        limit: bytes that are kept.
        copied: makes an error of the writer's into one for a reader; each gets one of his own.

    Attributes:
        size: bytes that came.
        done: whether it came to its end.
        spilled: whether it was too long to be kept.
        error: what ended it before its time.
    """

    __slots__ = ("_chunks", "_copied", "_first", "_kept", "_limit", "_lock", "_readings", "_waiters", "done", "error", "size", "spilled")

    def __init__(self, limit: int, copied: Callable[[Exception], Exception]) -> None:
        # Re-entrant: a reading that the garbage collector finds is closed wherever that happens to be.
        self._lock = threading.RLock()
        self._limit = limit
        self._copied = copied
        self._chunks: list[bytes] = []
        self._first = 0  # the number of the first chunk that is kept
        self._kept = 0  # bytes
        self._readings: list[Reading] = []
        self._waiters: list[Waiter] = []
        self.size = 0
        self.done = self.spilled = False
        self.error: Exception | None = None

    @property
    def over(self) -> bool:
        """Whether nothing more will come."""
        return self.done or self.error is not None

    def body(self) -> bytes:
        """All of it, where it is complete and did not spill."""
        return self._chunks[0] if len(self._chunks) == 1 else b"".join(self._chunks)

    # -- for the writer -------------------------------------------------------------------------------------------

    def write(self, chunk: bytes) -> None:
        with self._lock:
            self._chunks.append(chunk)
            self.size += len(chunk)
            self._kept += len(chunk)
            if self.size > self._limit and not self.spilled:
                self.spilled = True
                self._drop()
            waiters = self._take_waiters()
        _wake(waiters)

    def end(self) -> None:
        self._finish(None)

    def fail(self, error: Exception) -> None:
        self._finish(error)

    def _finish(self, error: Exception | None) -> None:
        with self._lock:
            if self.over:
                return
            self.error = error
            self.done = error is None
            waiters = self._take_waiters()
        _wake(waiters)

    async def room(self, runtime: Runtime) -> None:
        """Wait until the slowest reader has come near enough."""
        while self.spilled and self._kept > self._limit:
            with self._lock:
                waiter = self._wait(runtime)
                full = self._kept > self._limit and bool(self._readings)
            if not full:
                return
            await runtime.wait(waiter, math.inf)

    # -- for readers ----------------------------------------------------------------------------------------------

    def open(self, left: Callable[[], None]) -> Reading | None:
        """A reading from the beginning, or None if that is no longer there; `left` is called once when it is closed."""
        reading = Reading(self, left)
        with self._lock:
            if self._first:
                return None
            self._readings.append(reading)
        return reading

    async def settled(self, runtime: Runtime, until: float) -> bool:
        """Wait until it is over or has spilled. False if that had not come by `until`."""
        while not (self.over or self.spilled):
            with self._lock:
                waiter = self._wait(runtime)
                waits = not (self.over or self.spilled)
            if waits and not await runtime.wait(waiter, until):
                return self.over or self.spilled
        return True

    def _wait(self, runtime: Runtime) -> Waiter:
        waiter = runtime.waiter()
        self._waiters.append(waiter)
        return waiter

    def _take_waiters(self) -> list[Waiter]:
        waiters, self._waiters = self._waiters, []
        return waiters

    def _drop(self) -> None:
        """Forget what nobody has yet to read."""
        needed = min((reading.position for reading in self._readings), default=self._first + len(self._chunks))
        if needed > self._first:
            gone, self._chunks = self._chunks[: needed - self._first], self._chunks[needed - self._first :]
            self._kept -= sum(map(len, gone))
            self._first = needed

    def _advance(self, reading: Reading) -> bytes | None:
        """The next chunk for a reading, if there is one."""
        with self._lock:
            at = reading.position - self._first
            if at >= len(self._chunks):
                return None
            chunk = self._chunks[at]
            reading.position += 1
            waiters: list[Waiter] = []
            if self.spilled:
                self._drop()
                waiters = self._take_waiters()
        _wake(waiters)
        return chunk

    def _close(self, reading: Reading) -> None:
        with self._lock:
            if reading in self._readings:
                self._readings.remove(reading)
            if self.spilled:
                self._drop()
            waiters = self._take_waiters()
        _wake(waiters)


class Reading:
    """One reader's way through a tape.

    Attributes:
        position: the number of the chunk that comes next.
        closed: whether the reader has left.
    """

    __slots__ = ("_left", "_tape", "closed", "position")

    def __init__(self, tape: Tape, left: Callable[[], None]) -> None:
        self._tape = tape
        self._left = left
        self.position = 0
        self.closed = False

    async def next(self, runtime: Runtime, end: Any) -> Any:
        """The next chunk, or `end`.

        Raises:
            Exception: what ended the body before its time.
        """
        tape = self._tape
        while True:
            chunk = tape._advance(self)
            if chunk is not None:
                return chunk
            if tape.over:
                if tape.error is not None:
                    raise tape._copied(tape.error)
                return end
            with tape._lock:
                waiter = tape._wait(runtime)
                waits = not tape.over and self.position - tape._first >= len(tape._chunks)
            if waits:
                await runtime.wait(waiter, math.inf)

    def close(self) -> None:
        """The reader wants no more."""
        if self.closed:
            return
        self.closed = True
        self._tape._close(self)
        self._left()


def _wake(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()
