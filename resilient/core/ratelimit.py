"""A rate: how soon the next call may go, who waits for that, and what a call that cost less gives back.

Rules of this file: no waiting, no waking, no lock. The caller holds one lock around each method and wakes those that it
is handed after the lock is let go.

`Meter` is the Generic Cell Rate Algorithm of ITU-T Recommendation I.371 in its form as virtual scheduling, with weights:
it keeps one number, the moment `tat` at which all that was let go would have gone at an even rate. A call of cost c may
go at `t` if tat + c * interval <= t + burst * interval. So over *any* window of w seconds no more than burst + w /
interval units go.

What a call did not use after all is given back exactly: the meter then stands where it would stand had that call cost
less from the start. Work taken off a queue in the past can only be missed for as long as the queue was never empty
without it (the reflection in Lindley's recursion, 1952), so no more is given back than the lowest level that the queue
has had since. To subtract the whole, as token buckets do, lets too much go wherever the bucket had refilled meanwhile.

`Limiter` adds the line of those who wait, first come, first served, and the word of the server. Nobody in the line has
taken anything yet, so that one who leaves it costs the others nothing.
"""

from __future__ import annotations

import math
from bisect import bisect_right
from collections import OrderedDict
from typing import Any

from .bounds import positive
from .pushback import Allowance

__all__ = ["SLACK", "Limiter", "Meter", "Place"]

SLACK = 1e-6
"""Seconds by which one may be early: timers are no more exact than that, and floats of a large clock neither."""

_MARKS = 64  # low levels that are remembered, an even number; beyond, neighbours are taken together, and a little less is given back


class Meter:
    """GCRA with weights.

    Args:
        rate: units that go in `per` seconds.
        per: seconds.
        burst: units that may go at once after a pause.
    """

    __slots__ = ("_empty", "_marks", "burst", "interval", "tat", "tickets", "tolerance")

    def __init__(self, rate: float, per: float, burst: float) -> None:
        positive("rate", rate)
        positive("per", per)
        positive("burst", burst)
        self.interval = per / rate
        self.burst = burst
        self.tolerance = burst * self.interval
        self.tat = -math.inf
        self.tickets = 0
        # What the level was just before a ticket, oldest first and rising: the lowest since any earlier ticket is the
        # first entry after it.
        self._marks: list[tuple[int, float]] = []
        self._empty = 0  # the first ticket that may have something to give back

    def tune(self, rate: float, per: float, burst: float) -> None:
        """Another rate and burst from now on. What was let go is still paid for in the time that it was then worth."""
        self.interval = per / rate
        self.burst = burst
        self.tolerance = burst * self.interval

    def earliest(self, cost: float, start: float) -> float:
        """When `cost` may go, from `start` on."""
        return max(start, max(self.tat, start) + cost * self.interval - self.tolerance)

    def take(self, cost: float, now: float) -> int:
        """Let `cost` go, whether it may or not. Returns its ticket."""
        self.tickets = ticket = self.tickets + 1
        level, work = self.tat - now, cost * self.interval
        if level <= 0:
            self.tat = now + work
            self._empty = ticket
            if self._marks:
                self._marks.clear()
        else:
            self.tat += work
            self._mark(ticket, level)
        return ticket

    def _mark(self, ticket: int, level: float) -> None:
        marks = self._marks
        while marks and marks[-1][1] >= level:
            marks.pop()
        marks.append((ticket, level))
        if len(marks) > _MARKS:
            # An odd number of them. What was low stays known, and when is told as a little later than it was.
            self._marks = [(later, low) for (_, low), (later, _) in zip(marks[:-1:2], marks[1::2], strict=True)] + marks[-1:]

    def give_back(self, ticket: int, cost: float) -> None:
        """Take `cost` off what a ticket was taken for: it did not go after all."""
        if ticket < self._empty:
            return
        marks, work = self._marks, cost * self.interval
        since = bisect_right(marks, ticket, key=lambda mark: mark[0])
        if since < len(marks):
            work = min(work, marks[since][1])
            lowest = marks[since][1] - work
            kept = since
            while kept and marks[kept - 1][1] >= lowest:
                kept -= 1
            self._marks = marks[:kept] + [(later, low - work) for later, low in marks[since:]]
        # Should that be more than there is left, the queue is empty, and no emptier than that.
        self.tat -= work

    def reset(self) -> None:
        """As new; tickets from before have nothing to give back."""
        self.tat = -math.inf
        self._marks.clear()


class Place:
    """A place in the line.

    Attributes:
        cost: what its owner waits for.
        at: when its turn comes, or a little later than that, if nobody leaves the line.
        ticket: what it was granted; None while it waits.
        owner: who is to be woken.
    """

    __slots__ = ("at", "cost", "dropped", "number", "owner", "ticket", "upto")

    def __init__(self, cost: float, at: float, owner: Any) -> None:
        self.cost = cost
        self.at = at
        self.owner = owner
        self.ticket: int | None = None
        self.dropped = False
        # What has joined the line since it was empty, this place included: less what went since, it is what lies ahead.
        self.upto, self.number = cost, 1


class Limiter:
    """A meter, the line in front of it, and the server's word.

    Args:
        rate, per, burst: as for `Meter`.
    """

    __slots__ = ("_line", "_waiting", "_went", "allowance", "meter", "not_before")

    def __init__(self, rate: float, per: float, burst: float) -> None:
        self.meter = Meter(rate, per, burst)
        self.not_before = -math.inf
        self.allowance: Allowance | None = None
        self._line: OrderedDict[int, Place] = OrderedDict()
        self._waiting = 0.0
        self._went = (0.0, 0)  # cost and number of those who went since the line was empty

    @property
    def capacity(self) -> float:
        """The largest cost that can ever go."""
        return self.meter.burst

    @property
    def queued(self) -> int:
        """How many wait."""
        return len(self._line)

    # -- going ----------------------------------------------------------------------------------------------------

    def try_take(self, cost: float, now: float) -> int | None:
        """Let `cost` go now. Returns its ticket, or None if it has to wait."""
        meter = self.meter
        if meter.tat + cost * meter.interval > now + meter.tolerance + SLACK:
            return None
        if self._line or cost > meter.burst:
            return None
        if self.allowance is None and now >= self.not_before:
            return meter.take(cost, now)
        return None if self._due(cost, now) > now + SLACK else self.take(cost, now)

    def take(self, cost: float, now: float) -> int:
        """Let `cost` go, whether it may or not. Returns its ticket."""
        if self.allowance is not None:
            self.allowance.used += 1
        return self.meter.take(cost, now)

    def _due(self, cost: float, now: float) -> float:
        """When the first in the line may go."""
        at = self.meter.earliest(cost, max(now, self.not_before))
        if self.allowance is not None and now >= self.allowance.until:
            self.allowance = None
        return at if self.allowance is None else max(at, self.allowance.earliest(1))

    def when(self, cost: float, now: float) -> float:
        """When somebody who comes now may go: after all who wait. Infinity if his cost is above the capacity."""
        if cost > self.capacity:
            return math.inf
        start = max(now, self.not_before)
        at = self.meter.earliest(self._waiting + cost, start)
        return at if self.allowance is None else max(at, self.allowance.earliest(len(self._line) + 1))

    def held_back(self, cost: float, now: float) -> bool:
        """Whether it is the server's word that one who comes now has to wait for, and not the rate."""
        return self.when(cost, now) > self.meter.earliest(self._waiting + cost, now) + SLACK

    # -- the line -------------------------------------------------------------------------------------------------

    def join(self, cost: float, now: float, owner: Any) -> Place:
        """Wait, after `when` has said until when. A cost above the capacity must not: it would wait for ever."""
        place = Place(cost, self.when(cost, now), owner)
        if self._line:
            last = next(reversed(self._line.values()))
            place.upto, place.number = last.upto + cost, last.number + 1
        self._line[id(place)] = place
        self._waiting += cost
        return place

    def advance(self, now: float) -> list[Place]:
        """Let all go whose turn has come. Returns who is to be woken: they, and the next whose turn comes sooner than he thinks."""
        woken = []
        while self._line:
            first = next(iter(self._line.values()))
            at = self._due(first.cost, now)
            if at > now + SLACK:
                if at < first.at - SLACK:
                    woken.append(first)
                first.at = at
                break
            self._went = self._went[0] + first.cost, self._went[1] + 1
            self._remove(first)
            first.ticket = self.take(first.cost, now)
            woken.append(first)
        return woken

    def in_time(self, place: Place, now: float, latest: float) -> bool:
        """Whether somebody in the line may still go by `latest`, as far as is known; sets when he should look again."""
        first = next(iter(self._line.values()))  # nobody goes before him, and `advance` has just said when he may
        if first.at > latest + SLACK or now + SLACK >= latest:
            return False
        if first is not place:
            at = self.meter.earliest(place.upto - self._went[0], max(now, self.not_before))
            if self.allowance is not None:
                at = max(at, self.allowance.earliest(place.number - self._went[1]))
            place.at = max(at, first.at)
        return True

    def drop(self, place: Place, now: float) -> None:
        """Leave the line, or give back what was granted. Once is enough, and twice does no harm."""
        if place.dropped:
            return
        place.dropped = True
        if place.ticket is None:
            self._remove(place)
        else:
            self.give_back(place.ticket, place.cost, now, unsent=True)

    def _remove(self, place: Place) -> None:
        del self._line[id(place)]
        if self._line:
            self._waiting -= place.cost
        else:
            self._waiting, self._went = 0.0, (0.0, 0)

    # -- afterwards -----------------------------------------------------------------------------------------------

    def give_back(self, ticket: int, cost: float, now: float, *, unsent: bool = False) -> None:
        """Take `cost` off what was taken; `unsent` if nothing of the call went at all."""
        self.meter.give_back(ticket, cost)
        if unsent and self.allowance is not None and ticket > self.allowance.ticket and self.allowance.used:
            self.allowance.used -= 1

    def charge(self, cost: float, now: float) -> int:
        """Book `cost` on top: a call has cost more than was taken for it. Others wait for it; it waits for nobody."""
        return self.meter.take(cost, now)

    def push_back(self, until: float) -> None:
        """Nothing goes before `until`."""
        self.not_before = max(self.not_before, until)

    def allow(self, remaining: int, reset: float, now: float, longest: float) -> None:
        """No more than `remaining` calls go in the next `reset` seconds; believed for `longest` at the most."""
        if remaining == 0:
            self.push_back(now + min(reset, longest))
        else:
            self.allowance = Allowance(remaining, reset, now, now + min(reset, longest), self.meter.tickets)

    def at_rest(self, now: float) -> bool:
        """Whether a new one would do as well as this."""
        spoken = self.not_before > now or (self.allowance is not None and self.allowance.until > now)
        return not (self._line or spoken or self.meter.tat > now)

    def reset(self) -> None:
        """Forget all that went and what the server has said; who waits, waits on for no longer than he has to."""
        self.meter.reset()
        self.not_before = -math.inf
        self.allowance = None
