"""The fetches of one cache that are under way, and who may join them."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable

from ..stores.forks import renewed_in_children
from .flight import SHARED, Flight

__all__ = ["Flights"]

PASSED_SECONDS = 3.0  # for which requests like one whose answer could not be shared do not wait for each other
PASSED_LIMIT = 1000  # such requests that are remembered; beyond it all are forgotten
BYTES_LIMIT = 64 * 1024 * 1024  # of bodies that are coming in; beyond it they are handed on as they come, to nobody else
RECENT = 256  # stored answers that are remembered for those who were about to ask when they came
REFRESHES = 16  # entries that are refreshed behind their readers at a time


class Flights:
    """The fetches of one cache that are under way.

    Args:
        now: the time.
        limit: fetches at a time that others may join; beyond it everybody fetches for himself.
    """

    __slots__ = ("__weakref__", "_limit", "_now", "_out", "_passed", "_recent", "bytes", "kept", "lock", "refreshing")

    def __init__(self, now: Callable[[], float], limit: int = 10_000) -> None:
        self._now = now
        self._limit = limit
        self.renew()
        renewed_in_children(self)

    def renew(self) -> None:
        """Begin with nothing: in a forked child nobody flies what its parent had begun."""
        # Re-entrant: whoever lands or leaves ends a flight under it.
        self.lock = threading.RLock()
        self._out: dict[Hashable, Flight] = {}
        self._passed: dict[Hashable, float] = {}
        self._recent: OrderedDict[Hashable, int] = OrderedDict()
        self.kept = 0  # flights whose answer was stored, so far
        self.refreshing: set[Flight] = set()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._out)

    def join(self, key: Hashable, uri: str, *, alone: bool = False) -> tuple[Flight, bool]:
        """The flight for `key`, and whether the caller has to fly it. One that is `alone` is nobody else's."""
        with self.lock:
            if self._passed and self._is_passed(key):
                alone = True
            if not alone:
                flight = self._out.get(key)
                if flight is not None and not flight.lost:
                    flight.interest += 1
                    return flight, False
            if len(self._out) >= self._limit and not alone:
                alone = self._full()
            flight = Flight(self, object() if alone else key, uri, solo=alone, background=False)
            self._out[flight.key] = flight
            return flight, True

    def _full(self) -> bool:
        for flight in [flight for flight in self._out.values() if flight.lost]:
            self.end(flight)
        return len(self._out) >= self._limit

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

    @property
    def crowded(self) -> bool:
        """Whether so much is coming in that nothing more is taken in for several."""
        return self.bytes >= BYTES_LIMIT

    def refresh(self, key: Hashable, uri: str) -> Flight | None:
        """A flight for `key` that nobody waits for; None where there is one already, or where there are too many of them."""
        with self.lock:
            if len(self.refreshing) >= REFRESHES:
                self.refreshing = {flight for flight in self.refreshing if not flight.lost}
            under_way = self._out.get(key)
            if len(self.refreshing) >= REFRESHES or (under_way is not None and not under_way.lost):
                return None
            flight = self._out[key] = Flight(self, key, uri, solo=False, background=True)
            self.refreshing.add(flight)
            return flight

    def end(self, flight: Flight) -> None:
        """Nobody can join it any more."""
        with self.lock:
            if self._out.get(flight.key) is flight:
                del self._out[flight.key]

    def joinable(self, flight: Flight) -> bool:
        """Whether somebody who asks now would get it too."""
        return self._out.get(flight.key) is flight

    def over(self, flight: Flight, size: int) -> None:
        """Nothing more comes of it, nor of the bytes that it was taking in; what it has brought is in the store."""
        with self.lock:
            key, recent = flight.key, self._recent
            if flight.landing is SHARED and not flight.doomed and not flight.solo:
                self.kept += 1
                recent[key] = self.kept
                recent.move_to_end(key)
                if len(recent) > RECENT:
                    recent.popitem(last=False)
            self.end(flight)
            if flight.background:
                self.refreshing.discard(flight)
            self.bytes -= size

    def overtaken(self, key: Hashable, kept: int) -> bool:
        """Whether an answer for `key` was stored since so many were: after one looked there, and before he joined."""
        return self.kept != kept and self._recent.get(key, 0) > kept

    def doom(self, concerned: Callable[[Flight], bool]) -> None:
        """What those flights bring is not to be kept, and nobody who asks from now on is to get it."""
        with self.lock:
            for flight in [flight for flight in self._out.values() if concerned(flight)]:
                flight.doomed = True
                self.end(flight)

    def forget(self) -> None:
        """What is on its way now is not kept, and nothing is remembered of what was."""
        self.doom(lambda flight: True)
        with self.lock:
            self._passed.clear()
