"""Streams of responses that several callers read from one tape, and the source of a tape that is filled as it is read."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self

from ..body import END
from ..runtime import drive
from .abandoned import home

if TYPE_CHECKING:
    from ..call import Call
    from ..tape import Reading, Tape

__all__ = ["AsyncTaped", "Pump", "SyncTaped"]


class AsyncTaped:
    """A reading as the body of a response; bound to a library by inheriting its AsyncByteStream as well."""

    def __init__(self, reading: Reading, call: Call) -> None:
        self._reading = reading
        self._runtime = call.runtime
        self._owner = call.owner
        self._home = home()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._reading.next(self._runtime, END)
        if chunk is END:
            self._reading.close()
            raise StopAsyncIteration
        return chunk  # type: ignore[no-any-return]

    async def aclose(self) -> None:
        self._reading.close()

    def __del__(self) -> None:
        # A finalizer may run inside any lock, one of ours included: it only leaves word.
        if self._reading.closed:
            return
        self._owner.abandoned.append(self._reading.close)
        with contextlib.suppress(RuntimeError):  # the loop is closed, or trio's run has ended
            if isinstance(self._home, asyncio.AbstractEventLoop):
                self._home.call_soon_threadsafe(self._owner.reclaim)
            elif self._home is not None:
                self._home.run_sync_soon(self._owner.reclaim)


class SyncTaped:
    """The same for synchronous clients; bound to a library by inheriting its SyncByteStream as well."""

    def __init__(self, reading: Reading, call: Call) -> None:
        self._reading = reading
        self._runtime = call.runtime
        self._owner = call.owner

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        chunk = drive(self._reading.next(self._runtime, END))
        if chunk is END:
            self._reading.close()
            raise StopIteration
        return chunk  # type: ignore[no-any-return]

    def close(self) -> None:
        self._reading.close()

    def __del__(self) -> None:
        if not self._reading.closed:
            self._owner.abandoned.append(self._reading.close)


class Pump:
    """A stream that is written to a tape by whichever thread needs more of it.

    So nobody has to wait for a reader who takes his time, not even one who holds the answer unread and asks again.

    Args:
        stream: where the body comes from.
        tape: where it goes.
        complete: what to do at its end, before the tape ends.

    Attributes:
        over: called when nothing more comes, however that ends.
    """

    def __init__(self, stream: Any, tape: Tape, complete: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._stream = stream
        self._chunks: Any = None
        self._tape = tape
        self._complete = complete
        self.over: Callable[[], None] | None = None
        # Held while a chunk is read: two threads cannot read from one stream. Re-entrant for a stream that asks for itself.
        self._lock = threading.RLock()
        self._closed = False

    def pull(self, written: int) -> None:
        tape = self._tape
        with self._lock:
            if tape.over or tape.written != written:
                return
            try:
                if self._chunks is None:
                    self._chunks = iter(self._stream)
                chunk = next(self._chunks, END)
                if chunk is not END:
                    tape.write(chunk)
                    return
                drive(self._complete())
            except Exception as error:  # noqa: BLE001 - raised for everybody who reads
                tape.fail(error)
            except BaseException:
                tape.fail(ConnectionError("reading the answer was interrupted"))
                raise
            finally:
                if tape.over:
                    self.close()

    def drain(self) -> None:
        """Read all that is left."""
        while not self._tape.over:
            self.pull(self._tape.written)

    def close(self) -> None:
        """Nobody wants more of it."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if not self._tape.over:
                self._tape.fail(ConnectionError("its readers left before the end"))
            try:
                self._stream.close()
            finally:
                if self.over is not None:
                    self.over()
