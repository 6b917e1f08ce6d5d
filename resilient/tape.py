"""A body on its way from one writer to any number of readers, each at a pace of his own, on whatever loop or thread.

Up to its limit a tape keeps all of the body, so that a reader who comes late begins at the beginning. A longer body
spills: from then on only what somebody has yet to read is kept, the writer waits for the slowest, and nobody may join.
"""

from __future__ import annotations

import copy
import math
import threading
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable

    from .protocols import Runtime, Waiter

__all__ = ["Reading", "Source", "Tape", "Writer", "copied"]

GLANCE = 1.0  # seconds after which one who reads what another event loop writes looks whether that still runs


class Writer(Protocol):
    """Whose work it is to write."""

    @property
    def apart(self) -> bool:
        """Whether it may get stuck while the caller goes on."""
        ...

    @property
    def stuck(self) -> bool:
        """Whether it goes no further."""
        ...


class Source(Protocol):
    """What a tape is written from as it is read, by the threads of its readers."""

    def pull(self, written: int) -> None:
        """Write one more chunk, or the end, unless that has happened since `written` chunks were there."""
        ...


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
        writer: the task that writes it, where there is one.
        source: what it is written from by its readers, where there is no such task.
    """

    __slots__ = (
        "_chunks",
        "_copied",
        "_first",
        "_kept",
        "_limit",
        "_lock",
        "_readings",
        "_waiters",
        "done",
        "error",
        "size",
        "source",
        "spilled",
        "writer",
    )

    def __init__(self, limit: int, copied: Callable[[Exception], Exception]) -> None:
        # Re-entrant: a reading that the garbage collector finds is closed wherever that happens to be.
        self._lock = threading.RLock()
        self._limit = limit
        self._copied = copied
        self._chunks: list[bytes] = []
        self._first = 0  # the number of the first chunk that is kept
        self._kept = 0  # bytes
        self._readings: list[Reading] = []
        self._waiters: dict[Waiter, None] = {}
        self.size = 0
        self.done = self.spilled = False
        self.error: Exception | None = None
        self.writer: Writer | None = None
        self.source: Source | None = None

    @property
    def written(self) -> int:
        """Chunks that came."""
        return self._first + len(self._chunks)

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
        await self._until(runtime, math.inf, lambda: not (self.spilled and self._kept > self._limit and self._readings))

    async def _until(self, runtime: Runtime, until: float, met: Callable[[], bool]) -> bool:
        """Wait for a condition. Returns whether it was met by `until`."""
        while not met():
            waiter = runtime.waiter()
            with self._lock:
                self._waiters[waiter] = None
            try:
                # Looked at again only now that whoever changes it will wake us.
                if not met() and not await runtime.wait(waiter, until):
                    return met()
            finally:
                with self._lock:
                    self._waiters.pop(waiter, None)
        return True

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
        """Wait until it is over or has spilled. False if that had not come by `until`, or comes only as others read."""
        while self.source is not None and not self._settled():
            if not runtime.sync or runtime.now() >= until:
                return False
            self.source.pull(self.written)
        return await self._more(runtime, until, self._settled)

    def _settled(self) -> bool:
        return self.over or self.spilled

    async def _more(self, runtime: Runtime, until: float, met: Callable[[], bool]) -> bool:
        """Wait for what the writer brings, and no longer than there is one."""
        writer = self.writer
        if writer is None or not writer.apart:
            return await self._until(runtime, until, met)
        while not await self._until(runtime, min(until, runtime.now() + GLANCE), met):
            if writer.stuck:
                self.fail(ConnectionError("the event loop that an answer came in on has ended"))
            elif runtime.now() >= until:
                return False
        return True

    def _take_waiters(self) -> list[Waiter]:
        waiters, self._waiters = list(self._waiters), {}
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
        self._tape: Tape | None = tape
        self._left = left
        self.position = 0
        self.closed = False

    async def next(self, runtime: Runtime, end: Any) -> Any:
        """The next chunk, or `end`.

        Raises:
            Exception: what ended the body before its time.
        """
        tape = self._tape
        if tape is None:
            return end
        while True:
            over = tape.over  # before the look at what came: another thread may write and end in between
            chunk = tape._advance(self)
            if chunk is not None:
                return chunk
            if over:
                if tape.error is not None:
                    raise tape._copied(tape.error)
                return end
            if tape.source is not None:
                tape.source.pull(self.position)
            else:
                await tape._more(runtime, math.inf, lambda: tape.over or tape.written > self.position)

    def close(self) -> None:
        """The reader wants no more."""
        if self.closed:
            return
        self.closed = True
        # A response and its stream hold each other; all that was read need not wait for the collector with them.
        tape, self._tape = self._tape, None
        left, self._left = self._left, _nothing
        if tape is not None:
            tape._close(self)
        left()


def _nothing() -> None: ...


def _wake(waiters: list[Waiter]) -> None:
    for waiter in waiters:
        waiter.wake()


def copied(error: Exception) -> Exception:
    """An error of one's own: raised again and again, the same one would hold the frames of everybody who had it."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - whatever a foreign class does on copying, the error itself is the better one to have
        return error
    if type(twin) is not type(error):
        return error
    twin.__cause__ = error.__cause__
    twin.__suppress_context__ = True
    return twin
