"""Streams of responses that several callers read from one tape, and the one that fills a tape while it is read."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import TYPE_CHECKING, Any, Self

from ..body import END
from ..runtime import drive

if TYPE_CHECKING:
    from ..protocols import Runtime
    from ..tape import Reading, Tape

__all__ = ["AsyncTaped", "SyncTaped", "Tee", "tee"]


class AsyncTaped:
    """A reading as the body of a response; bound to a library by inheriting its AsyncByteStream as well."""

    def __init__(self, reading: Reading, runtime: Runtime) -> None:
        self._reading = reading
        self._runtime = runtime

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
        self._reading.close()


class SyncTaped:
    """The same for synchronous clients; bound to a library by inheriting its SyncByteStream as well."""

    def __init__(self, reading: Reading | Tee, runtime: Runtime) -> None:
        self._reading = reading
        self._runtime = runtime

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
        self._reading.close()


class Tee:
    """A stream that is written to a tape as it is read, on one thread."""

    def __init__(self, stream: Any, tape: Tape, complete: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._stream = stream
        self._chunks: Any = None
        self._tape = tape
        self._complete = complete

    def read(self) -> None:
        """Read all of it. What goes wrong is told to whoever reads the tape."""
        try:
            while drive(self.next(None, END)) is not END:
                pass
        except Exception:
            if self._tape.error is None:
                raise
        finally:
            self.close()

    async def next(self, runtime: Any, end: Any) -> Any:
        tape = self._tape
        if tape.over:
            return end
        if self._chunks is None:
            self._chunks = iter(self._stream)
        try:
            chunk = next(self._chunks, END)
        except Exception as error:
            tape.fail(error)
            raise
        if chunk is END:
            await self._complete()
            return end
        tape.write(chunk)
        return chunk

    def close(self) -> None:
        if not self._tape.over:
            self._tape.fail(ConnectionError("its reader left before the end"))
        self._stream.close()


def tee(stream: Any, tape: Tape, complete: Callable[[], Coroutine[Any, Any, None]]) -> Tee:
    """A stream that fills `tape` as it is read, and calls `complete` at its end."""
    return Tee(stream, tape, complete)
