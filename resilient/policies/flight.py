"""One fetch for everybody who asks for the same thing at the same time.

The fetch runs in a task of its own, so that a caller who leaves takes nothing away from the others; with the last of them
it ends, unless it was begun for nobody. What it came to is decided as soon as the answer begins: all are served from it, or
all but the first are let go at once, to ask for themselves.

A synchronous caller is the fetch himself. Where his own deadline ends it, those who wait begin anew, one of them first.
"""

from __future__ import annotations

import enum
import math
import threading
from collections.abc import Callable, Coroutine, Hashable
from typing import TYPE_CHECKING, Any

from ..background import Task
from ..core.outcome import Outcome
from ..errors import cause_of
from ..tape import Tape, copied

if TYPE_CHECKING:
    from ..core.entry import Entry
    from ..protocols import Runtime, Waiter
    from .flights import Flights

__all__ = ["FAILED", "LOST", "OUT", "PASSED", "SHARED", "Flight", "Landing"]

NEARLY_DONE = 64 * 1024  # bytes that are read to their end although nobody waits for them
GLANCE = 1.0  # seconds after which one who waits for another event loop looks whether it still runs


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


# Looking a member up on its class costs more than reading a global.
OUT, SHARED, FAILED, PASSED, LOST = Landing


class Flight:
    """A fetch.

    Attributes:
        landing: what it came to.
        entry: the stored answer that it brought or confirmed.
        tape: the body, while it is coming in.
        body: the body, where all of it was here before anybody had to wait for it.
        head: the answer itself, whose body is on the tape, or that was handed to the first caller, or that is a failure.
        error: what it failed with.
        doomed: something was written meanwhile that its answer does not know of, so that it must not be kept.
        background: whether it goes on although nobody waits for it.
        owned: whether the one for whom it was begun still waits for it.
        length: of the body, where that was said.
        validated: whether the origin only confirmed the entry.
        relayed: whether the answer says what a cache before this one did.
        kept: whether the answer goes into the store.
        for_all: whether it may serve others than the first caller.
        fetching: the call that is made for everybody.
        until: when the time of the one who makes it on his own thread is over, if it has a limit.
        ends: when it is given up where nobody has to wait for it.
        source: what the body comes from where no task reads it, but whoever wants more of it.
        outcome, cause: what a failure says of the dependency, and in a word; no word where nothing may stand in for it.
    """

    # On the class, for most flights never come to set them.
    entry: Entry | None = None
    tape: Tape | None = None
    body: bytes | None = None
    head: Any = None
    error: Exception | None = None
    outcome = Outcome.IGNORED
    cause = ""
    doomed = validated = kept = relayed = False
    for_all = True
    fetching: Any = None
    reading: Any = None
    source: Any = None
    groups: tuple[str, ...] = ()
    length: int | None = None
    task: Task | None = None
    until = ends = math.inf
    _size = 0

    def __init__(self, flights: Flights, key: Hashable, uri: str, *, solo: bool, background: bool) -> None:
        self._flights = flights
        self._lock = threading.Lock()
        self._waiters: dict[Waiter, None] = {}
        self.key = key
        self.uri = uri
        self.solo = solo
        self.background = background
        self.owned = not background
        self.interest = int(self.owned)
        self.landing = OUT

    # -- for those who wait ---------------------------------------------------------------------------------------

    async def wait(self, runtime: Runtime, until: float) -> bool:
        """Wait until it has landed, or is `lost`. False if it had not by `until`."""
        task = self.task
        # Whoever waits on the loop that the fetch runs on is gone with it. Elsewhere nobody would tell him.
        apart = task is not None and task.apart
        while self.landing is OUT and not (apart and self.lost):
            waiter = runtime.waiter()
            with self._lock:
                if self.landing is not OUT:
                    break
                self._waiters[waiter] = None
            try:
                woken = await runtime.wait(waiter, min(until, runtime.now() + GLANCE) if apart else until)
            finally:
                with self._lock:
                    self._waiters.pop(waiter, None)
            if not woken and (not apart or runtime.now() >= until):
                return self.landing is not OUT
        return True

    @property
    def lost(self) -> bool:
        """Whether it says nothing to those who wait: it was cut short, or the event loop that it ran on runs no more."""
        return self.landing is LOST or (self.landing is OUT and self.task is not None and self.task.stuck)

    def leave(self) -> None:
        """One of those who waited or read wants no more of it. From any thread."""
        flights, source = self._flights, self.source
        with flights.lock:
            self.interest -= 1
            # What only its readers bring on goes no further without them.
            if self.interest > 0 or self.body is not None or (self.background and source is None) or self._nearly_done():
                return
            flights.end(self)  # under the same lock as those who join: nobody joins what is about to end
        if source is not None:
            source.close()
        elif self.task is not None:
            self.task.cancel()

    def _nearly_done(self) -> bool:
        tape = self.tape
        if tape is None or self.task is None:
            return False
        return tape.over or (self.length is not None and self.length - tape.size <= NEARLY_DONE)

    def disown(self) -> bool:
        """The one for whom it was begun leaves. True if an answer for him alone is there, which he then has to close."""
        with self._lock:
            passed, self.owned = self.owned and self.landing is PASSED, False
            reading, self.reading = self.reading, None
        if reading is None:
            self.leave()
        else:
            reading.close()
        return passed

    def take_reading(self) -> Any:
        """The body from its beginning: for the first caller the one that was kept for him. None if it has begun to be dropped."""
        with self._lock:
            reading, self.reading = self.reading, None
        return reading if reading is not None or self.tape is None else self.tape.open(self.leave)

    @property
    def forsaken(self) -> bool:
        """Whether nobody has it, waits for it or may join any more, now that the last one has left."""
        return self.interest <= 0 and not self._flights.joinable(self)

    def take_error(self) -> Any:
        """What it failed with, for the first caller: as it is, and no longer held here, where its own traceback leads."""
        error = self.error
        self.error = None if error is None else copied(error)
        return error

    # -- for the fetch --------------------------------------------------------------------------------------------

    def flown_by(self, task: Task) -> None:
        """The task that makes the fetch is about to begin."""
        self.task = task

    def land(self, landing: Landing) -> bool:
        """Tell everybody what it came to. False if that is for the first caller alone, and he has left."""
        with self._lock:
            if self.landing is not OUT:
                return False
            self.landing = landing
            waiters = self._waiters
            if waiters:
                self._waiters = {}
            wanted = self.owned or landing is not PASSED
        if landing is not SHARED:
            if landing is PASSED and not (self.solo or self.cause):
                self._flights.passed(self.key)  # of a failure everybody is told
            self._flights.end(self)
        for waiter in waiters:
            waiter.wake()
        return wanted

    def end_within(self, seconds: float) -> None:
        """Have the fetch end so many seconds after it began."""
        self.ends = self.fetching.started + seconds
        self.fetching.lower(self.ends, "total")

    def take_in(self, tape: Tape, size: int) -> None:
        """A body begins to come in, of so many bytes at the most."""
        self.tape, self.kept = tape, True
        self._size = size
        tape.writer = self.task
        with self._flights.lock:
            self._flights.bytes += size
        with self._lock:
            if self.owned:
                self.reading = tape.open(self.leave)

    def attended(self, source: Any) -> bool:
        """Whether somebody will read the body as it comes, from `source`; he then has to bring it to its end, or leave."""
        with self._lock:
            if self.owned:
                self.source = source
            return self.owned

    def close(self) -> None:
        """Nobody who asks from now on may join."""
        self._flights.end(self)

    def keep_to_owner(self) -> None:
        """The answer may be stored, but served to nobody else as it is."""
        if not self.for_all:
            return
        self.for_all = False
        self._flights.end(self)
        if not self.solo:
            self._flights.passed(self.key)

    async def run(self, fetch: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Fetch, and see that nobody waits for ever however that ends."""
        try:
            await fetch()
        except Exception as error:
            if self.landing is not OUT:
                raise
            self.error, self.cause = error, cause_of(error)
            self.land(FAILED)
        finally:
            if self.source is None:
                self.finish()

    def finish(self) -> None:
        """Nothing more comes of it."""
        size, self._size, tape = self._size, 0, self.tape
        self._flights.over(self, size)
        if self.landing is OUT:
            self.land(LOST)
        if tape is not None and not tape.over:
            tape.fail(ConnectionError("the answer was given up"))
