"""The body of an answer that is read for everybody who asks, and kept if it is all there."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ..body import Body
from ..policies.flight import SHARED
from ..tape import Tape, copied
from .response import close_stream
from .stepping import told_of_waiting
from .taped import Pump
from .wire import finish

if TYPE_CHECKING:
    from ..core.entry import Entry
    from .fetching import Fetched

__all__ = ["Intake"]

HELD = 64 * 1024  # bytes that come without a wait before anybody is told; more is handed on as it comes


class Intake:
    """The body of one answer.

    A short answer mostly comes in one piece with its head. So what is here without waiting is read before those who wait
    are told of the answer, and if that is all, they get it as it will be stored. As soon as anything has to be waited for,
    they are told, and the body goes over a tape, which each reads at a pace of his own.

    Args:
        fetched: the answer.
        entry: what is stored of it, but for its body.
        length: of the body, where it was said.
    """

    __slots__ = ("_body", "_chunks", "_entry", "_fetched", "_flight", "_length", "_limit", "_size", "_tape")

    def __init__(self, fetched: Fetched, entry: Entry, length: int | None) -> None:
        self._fetched = fetched
        self._flight = fetched.flight
        self._entry = entry
        self._length = length
        self._limit: int = fetched.cache.max_body if length is None else length
        self._chunks: list[bytes] = []
        self._size = 0
        self._tape: Tape | None = None
        branch = fetched.branch
        self._body = Body(branch, branch.outcome_of(fetched.response))
        if fetched.flight.background:
            self._body.end_by(fetched.flight.ends)
        if branch.timed:
            branch.read_limit = self._body.read_limit
        branch.response = None
        self._flight.kept = True

    # -- from an event loop ---------------------------------------------------------------------------------------

    def read(self) -> Awaitable[None]:
        """Read it all, in the task of its flight."""
        return told_of_waiting(self._reading(), self._waits)

    async def _reading(self) -> None:
        branch, stream, body = self._fetched.branch, self._fetched.response.stream, self._body
        if body.bounded:
            stream = branch.library.async_guard(stream, body, self._length)
        chunks = aiter(stream)
        try:
            async for chunk in chunks:
                tape = self._tape
                if tape is not None:
                    tape.write(chunk)
                elif self._holds(chunk):
                    continue
                else:
                    tape = self._hand_on()
                if tape.spilled:
                    self._flight.keep_to_owner()
                    await tape.room(branch.runtime)
        except Exception as error:  # noqa: BLE001 - raised again for everybody who reads
            body.fail(error)
            self._hand_on().fail(error)
        except BaseException as error:
            body.fail(error)
            self._hand_on().fail(branch.library.module.ReadError("the answer was given up while it came in"))
            raise
        else:
            body.end()
            if self._tape is None and self._length in (None, self._size):
                await self._complete_at_once()
            else:
                await self._complete(self._hand_on())
        finally:
            task: Any = self._flight.task
            with task:
                await close_stream(stream, sync=False)
                await finish(chunks)

    def _holds(self, chunk: bytes) -> bool:
        """Keep a chunk of which nobody has been told yet. False if that has become too much."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        return self._size <= HELD and self._size <= self._limit

    def _hand_on(self) -> Tape:
        """Tell everybody: what came so far and what is to come is on the tape."""
        if self._tape is not None:
            return self._tape
        tape = self._open()
        for chunk in self._chunks:
            tape.write(chunk)
        if tape.spilled:
            self._flight.keep_to_owner()
        self._flight.land(SHARED)
        return tape

    def _waits(self) -> None:
        if self._flight.body is None:  # else it waits for no more than the store
            self._hand_on()

    async def _complete_at_once(self) -> None:
        flight, entry, chunks = self._flight, self._entry, self._chunks
        flight.body = entry.body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        entry.size += self._size
        if self._fetched.cache.store.blocking:
            flight.land(SHARED)  # nobody waits for a store on a network
        if not flight.doomed:
            await self._fetched.keep(entry)
        flight.land(SHARED)

    # -- on the caller's own thread -------------------------------------------------------------------------------

    async def read_here(self) -> None:
        """Read it at once where it is short or nobody waits for it, else as it is read."""
        flight, branch, response, tape = self._flight, self._fetched.branch, self._fetched.response, self._open()
        guard = branch.library.sync_guard(response.stream, self._body, self._length)
        pump = Pump(guard, tape, lambda: self._complete(tape))
        if self._length is None and not response.is_closed and flight.attended(pump):
            tape.source, pump.over = pump, flight.finish
        else:
            pump.drain()
        flight.land(SHARED)

    # -- the tape -------------------------------------------------------------------------------------------------

    def _open(self) -> Tape:
        self._tape = tape = Tape(self._limit, copied)
        self._flight.take_in(tape, self._limit)
        return tape

    async def _complete(self, tape: Tape) -> None:
        """The body has come to its end: it is kept if it is all there."""
        flight, entry, length = self._flight, self._entry, self._length
        if tape.spilled or (length is not None and tape.size != length):
            tape.end()
            return
        entry.body = tape.body()
        entry.size += tape.size
        if self._fetched.cache.store.blocking:
            tape.end()  # nobody waits for a store on a network
        if not flight.doomed:
            await self._fetched.keep(entry)
        tape.end()
