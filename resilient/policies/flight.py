"""One fetch for everybody who asks for the same thing at the same time.

The fetch runs in a task of its own, so that a caller who leaves takes nothing away from the others; with the last of them
it ends, unless it was begun for nobody. What it came to is decided as soon as the answer begins: all are served from it, or
all but the first are let go at once, to ask for themselves.

A synchronous caller is the fetch himself. Where his own deadline ends it, those who wait begin anew, one of them first.
"""

from __future__ import annotations

import copy
import enum
import logging
import threading
from collections.abc import Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any

from ..background import Task
from ..core.outcome import Outcome

if TYPE_CHECKING:
    from ..core.entry import Entry
    from ..protocols import Runtime, Waiter
    from ..tape import Tape

__all__ = ["Flight", "Flights", "Landing", "copied"]

logger = logging.getLogger("resilient")

PASSED_SECONDS = 3.0  # for which requests like one whose answer could not be shared do not wait for each other
PASSED_LIMIT = 1000  # such requests that are remembered; beyond it all are forgotten
BYTES_LIMIT = 64 * 1024 * 1024  # of bodies that are coming in; beyond it they are handed on as they come, to nobody else
NEARLY_DONE = 64 * 1024  # bytes that are read to their end although nobody waits for them


class Landing(enum.Enum):
    """What a fetch came to."""

    OUT = "out"
    SHARED = "shared"
    """An answer for everybody: an entry, or the tape that it is being read to."""
    FAILED = "failed"
    """An error, or an answer that is a failure, for everybody."""
    PASSED = "passed"
    """An answer for the first caller alone."""
    LOST = "lost"
    """It was cut short by something that says nothing to those who wait."""


class Flight:
    """A fetch.

    Attributes:
        landing: what it came to.
        entry: the stored answer that it brought or confirmed.
        tape: the body, while it is coming in.
        head: the answer itself, whose body is on the tape, or that was handed to the first caller, or that is a failure.
        error: what it failed with.
        doomed: something was written meanwhile that its answer does not know of, so that it must not be kept.
        background: whether it goes on although nobody waits for it.
        owned: whether the one for whom it was begun still waits for it.
        length: of the body, where that was said.
        validated: whether the origin only confirmed the entry.
        kept: whether the answer goes into the store.
        for_all: whether it may serve others than the first caller.
        fetching: the call that is made for everybody.
        outcome, cause: what a failure says of the dependency, and in a word; no word where nothing may stand in for it.
    """

    __slots__ = (
        "_flights",
        "_lock",
        "_size",
        "_waiters",
        "background",
        "cause",
        "doomed",
        "entry",
        "error",
        "fetching",
        "for_all",
        "groups",
        "head",
        "interest",
        "kept",
        "key",
        "landing",
        "length",
        "live",
        "outcome",
        "owned",
        "reading",
        "solo",
        "tape",
        "task",
        "uri",
        "validated",
    )

    def __init__(self, flights: Flights, key: Hashable, uri: str, *, solo: bool, background: bool) -> None:
        self._flights = flights
        self._lock = threading.Lock()
        self._waiters: list[Waiter] = []
        self._size = 0
        self.key = key
        self.uri = uri
        self.solo = solo
        self.background = background
        self.owned = not background
        self.interest = int(self.owned)
        self.landing = Landing.OUT
        self.entry: Entry | None = None
        self.tape: Tape | None = None
        self.head: Any = None
        self.error: Exception | None = None
        self.outcome = Outcome.IGNORED
        self.cause = ""
        self.doomed = self.validated = self.kept = False
        self.for_all = True
        self.fetching: Any = None
        self.reading: Any = None
        self.live: Any = None
        self.groups: tuple[str, ...] = ()
        self.length: int | None = None
        self.task: Task | None = None

    # -- for those who wait ---------------------------------------------------------------------------------------

    async def wait(self, runtime: Runtime, until: float) -> bool:
        """Wait until it has landed. False if it had not by `until`."""
        while self.landing is Landing.OUT:
            waiter = runtime.waiter()
            with self._lock:
                if self.landing is not Landing.OUT:
                    break
                self._waiters.append(waiter)
            if not await runtime.wait(waiter, until):
                return self.landing is not Landing.OUT
        return True

    def leave(self) -> None:
        """One of those who waited or read wants no more of it. From any thread."""
        with self._flights.lock:
            self.interest -= 1
            idle = self.interest <= 0 and not self.background
        if not idle or self.task is None:
            return
        tape = self.tape
        if tape is not None and (tape.over or (self.length is not None and self.length - tape.size <= NEARLY_DONE)):
            return
        self._flights.end(self)
        self.task.cancel()

    def disown(self) -> bool:
        """The one for whom it was begun leaves. True if an answer for him alone is there, which he then has to close."""
        with self._lock:
            passed, self.owned = self.owned and self.landing is Landing.PASSED, False
            reading, self.reading = self.reading, None
        if reading is None:
            self.leave()
        else:
            reading.close()
        return passed

    def take_reading(self) -> Any:
        """The body from its beginning: for the first caller the one that was kept for him. None if it has begun to be dropped."""
        with self._lock:
            reading = self.reading or self.live
            self.reading = self.live = None
        return reading if reading is not None or self.tape is None else self.tape.open(self.leave)

    # -- for the fetch --------------------------------------------------------------------------------------------

    def land(self, landing: Landing) -> bool:
        """Tell everybody what it came to. False if that is for the first caller alone, and he has left."""
        with self._lock:
            if self.landing is not Landing.OUT:
                return True
            self.landing = landing
            waiters, self._waiters = self._waiters, []
            wanted = self.owned or landing is not Landing.PASSED
        if landing is Landing.PASSED and not self.solo:
            self._flights.passed(self.key)
        if landing is not Landing.SHARED:
            self._flights.end(self)
        for waiter in waiters:
            waiter.wake()
        return wanted

    def take_in(self, tape: Tape, size: int) -> None:
        """A body begins to come in, of so many bytes at the most."""
        self.tape, self.kept = tape, True
        self._size = size
        with self._flights.lock:
            self._flights.bytes += size
        with self._lock:
            if self.owned:
                self.reading = tape.open(self.leave)

    def keep_to_owner(self) -> None:
        """The answer may be stored, but served to nobody else as it is."""
        self.for_all = False
        self._flights.end(self)
        if not self.solo:
            self._flights.passed(self.key)

    @property
    def crowded(self) -> bool:
        """Whether so much is coming in that this answer has to pass by."""
        return self._flights.bytes >= BYTES_LIMIT

    async def run(self, fetch: Callable[[Flight], Coroutine[Any, Any, None]]) -> None:
        """Fetch, and see that nobody waits for ever however that ends."""
        try:
            await fetch(self)
        finally:
            self._flights.end(self)
            with self._flights.lock:
                self._flights.bytes -= self._size
            if self.landing is Landing.OUT:
                self.land(Landing.LOST)
            tape = self.tape
            if tape is not None and not tape.over and self.task is not None:
                tape.fail(ConnectionError("the answer was given up"))


class Flights:
    """The fetches of one cache that are under way.

    Args:
        now: the time.
        limit: fetches at a time that others may join; beyond it everybody fetches for himself.
    """

    __slots__ = ("_limit", "_now", "_out", "_passed", "background", "bytes", "lock")

    def __init__(self, now: Callable[[], float], limit: int = 10_000) -> None:
        self._now = now
        self._limit = limit
        self.lock = threading.RLock()
        self._out: dict[Hashable, Flight] = {}
        self._passed: dict[Hashable, float] = {}
        self.background = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._out)

    def join(self, key: Hashable, uri: str, *, alone: bool = False, background: bool = False) -> tuple[Flight, bool]:
        """The flight for `key`, and whether the caller has to fly it. One that is `alone` is nobody else's."""
        with self.lock:
            flight = None if alone or self._is_passed(key) else self._out.get(key)
            if flight is not None and flight.task is not None and flight.task.gone:
                flight = None
            if flight is not None:
                flight.interest += 0 if background else 1
                return flight, False
            solo = alone or key in self._passed or len(self._out) >= self._limit
            flight = Flight(self, object() if solo else key, uri, solo=solo, background=background)
            self._out[flight.key] = flight
            return flight, True

    def _is_passed(self, key: Hashable) -> bool:
        until = self._passed.get(key)
        if until is None:
            return False
        if self._now() < until:
            return True
        del self._passed[key]
        return False

    def passed(self, key: Hashable) -> None:
        """What `key` was answered with could not be shared."""
        with self.lock:
            if len(self._passed) >= PASSED_LIMIT:
                self._passed.clear()
            self._passed[key] = self._now() + PASSED_SECONDS

    def end(self, flight: Flight) -> None:
        """Nobody can join it any more."""
        with self.lock:
            if self._out.get(flight.key) is flight:
                del self._out[flight.key]

    def doom(self, concerned: Callable[[Flight], bool]) -> None:
        """What those flights bring is not to be kept, and nobody who asks from now on is to get it."""
        with self.lock:
            for flight in [flight for flight in self._out.values() if concerned(flight)]:
                flight.doomed = True
                self._out.pop(flight.key, None)


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
