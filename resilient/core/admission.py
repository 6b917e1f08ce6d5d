"""Which requests a server takes on, which wait, and which it turns away: by what it bears, and by what they matter.

Rules of this file: no clock, no lock, no waiting, no waking; `now` is an argument. The caller holds one lock around each
method of `Admission`, and wakes who was granted or refused once the lock is let go.

Requests have a rank, 0 for what matters least. Three rules shed the lower ranks first:

- each rank may fill a share of the limit only, so that what matters more finds a free slot (priority load shedding as in
  Netflix, "Keeping Netflix Reliable Using Prioritized Load Shedding", 2020);
- who waits is let in by rank, whoever came first, and gives way in a full queue (DAGOR, Zhou et al., "Overload Control for
  Scaling WeChat Microservices", SoCC 2018; the four classes are those of the SRE book, chapter 21);
- each rank has a line of its own, so that the one which starves is the one that is cut short.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from .bounds import whole
from .codel import Line
from .limiter import Samples, Seen, seen
from .steering import SteadyGradient

__all__ = ["SHARES", "Admission", "OwnLimit"]

SHARES = (0.7, 0.8, 0.9, 1.0)
"""How much of the limit each rank may fill."""
STANDING, FULL, DISPLACED = "standing", "full", "displaced"
SHORT = 0.02
"""Seconds, less than which it is no use to wait in a line behind others."""


class OwnLimit(SteadyGradient):
    """How many requests a server bears at a time: `SteadyGradient`, which is told as well whether the event loop is late.

    A server knows more of itself than a client knows of it. While its event loop is on time it is not out of CPU,
    so the limit may double in every window in which it is needed: slowness then is that of a dependency. While the loop is
    late and requests take longer than usual, the limit falls at once to what Little's law says that is needed for the
    throughput there is; no smoothing, for the requests that are let in meanwhile all come late.
    """

    __slots__ = ()

    def weigh(self, window: Seen, late: bool) -> int:
        """The limit after a window."""
        usual = self.usual.value
        if not late:
            self._proven = self.most
        elif window.rtt is not None and 0 < self.tolerance * usual < window.rtt:
            needed = max(2 * self.queue, self.tolerance * window.peak * usual / window.rtt)
            self._keep(min(self.estimate, needed))
            self._proven = self.estimate
            return self.limit
        return self.decide(window)


class Admission:
    """The slots of a server and who waits for one.

    Args:
        law: says how many slots there are.
        lines: where each rank waits; the last one is that of the highest.
        shares: how much of the limit each rank may fill.
        queue: how many may wait in all.
        streams: how many streams there may be, which are not counted in flight.

    Attributes:
        in_flight: slots taken.
        queued: how many wait.
        open_streams: streams there are.
        served: slots that were given back.
    """

    __slots__ = ("_bounds", "_lines", "_shares", "in_flight", "law", "most_streams", "open_streams", "queue", "queued", "samples", "served")

    def __init__(self, law: OwnLimit, lines: Sequence[Line], shares: Sequence[float] = SHARES, *, queue: int, streams: int) -> None:
        whole("queue", queue, least=0)
        whole("max_streams", streams, least=0)
        if len(lines) != len(shares):
            raise ValueError(f"lines: expected {len(shares)} of them, one for each share, not {len(lines)}")
        self.law = law
        self.queue = queue
        self.most_streams = streams
        self.samples = Samples()
        self._lines = tuple(lines)
        self._shares = tuple(shares)
        self.in_flight = self.queued = self.open_streams = self.served = 0
        self._set_bounds()

    def _set_bounds(self) -> None:
        limit = self.law.limit
        self._bounds = tuple(math.ceil(limit * share) for share in self._shares)

    # -- who comes ------------------------------------------------------------------------------------------------

    def enter(self, rank: int) -> bool:
        """Take a slot. False if there is none for this rank, or one that matters as much waits."""
        if self.in_flight >= self._bounds[rank] or (self.queued and any(self._lines[rank:])):
            return False
        self.in_flight += 1
        return True

    def join(self, entry: object, rank: int, now: float) -> tuple[str, Any] | None:
        """Wait for a slot.

        Returns:
            None where it waits. Else the reason and who is turned away for it: the entry itself, or one of a lower rank that
            had to make room for it.
        """
        line = self._lines[rank]
        # What may wait a few milliseconds only is told at once, while there is somebody to take the next slot.
        if line.standing_patience < SHORT and line.standing(now):
            return STANDING, entry
        refusal = None
        if self.queued >= self.queue:
            lowest = next((low for low in self._lines[:rank] if low), None)
            if lowest is None:
                return FULL, entry
            self.queued -= 1
            refusal = DISPLACED, lowest.last()
        line.join(entry, now)
        self.queued += 1
        return refusal

    def patience(self, rank: int, now: float) -> float:
        """Seconds that a request of this rank may wait."""
        return self._lines[rank].limit(now)

    def leave(self, entry: object, rank: int) -> bool:
        """Wait no more. False if it does not: it was granted a slot, or turned away."""
        left = self._lines[rank].leave(entry)
        self.queued -= left
        return left

    # -- who is let in --------------------------------------------------------------------------------------------

    def grant(self, most: int) -> list[Any]:
        """Give free slots to up to `most` who wait, the highest rank first, and in a rank who came first."""
        granted: list[Any] = []
        for line, bound in zip(reversed(self._lines), reversed(self._bounds), strict=True):
            while line and len(granted) < most and self.in_flight < bound:
                self.in_flight += 1
                self.queued -= 1
                granted.append(line.first())
            if line:
                break
        return granted

    def sweep(self, now: float) -> list[Any]:
        """Turn away who has waited for too long."""
        if not self.queued:
            return []
        overdue = [entry for line in self._lines for entry in line.overdue(now)]
        self.queued -= len(overdue)
        return overdue

    def release(self) -> None:
        """Give a slot back.

        Raises:
            RuntimeError: none is taken.
        """
        if self.in_flight <= 0:
            raise RuntimeError("a slot was released that nobody had taken")
        self.in_flight -= 1
        self.served += 1

    def forget(self, slots: int, streams: int) -> None:
        """Take back slots and places of streams whose holders are gone and will not give them back."""
        self.in_flight -= slots
        self.open_streams -= streams

    # -- streams --------------------------------------------------------------------------------------------------

    def open_stream(self) -> bool:
        """Take one of the places of streams. False if there is none."""
        if self.open_streams >= self.most_streams:
            return False
        self.open_streams += 1
        return True

    def close_stream(self) -> None:
        """Give it back.

        Raises:
            RuntimeError: none is taken.
        """
        if self.open_streams <= 0:
            raise RuntimeError("a stream was closed that nobody had opened")
        self.open_streams -= 1

    # -- the limit ------------------------------------------------------------------------------------------------

    @property
    def limit(self) -> int:
        """Slots there are."""
        return self.law.limit

    def steer(self, now: float, late: bool) -> None:
        """Move the limit, if a window of samples is over."""
        if not self.samples.over(now):
            return
        window = seen(*self.samples.turn(now))
        if window.rtt is not None:
            self.samples.lengthen(window.mean)
        self.law.weigh(window, late)
        self._set_bounds()

    def clear(self) -> None:
        """Begin anew with the limit. Slots that are taken are given back by those who have them."""
        self.law.clear()
        self.samples.clear()
        self._set_bounds()
