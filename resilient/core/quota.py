"""A quota: so much in any stretch of a long period, and not a unit more.

Rules of this file: no clock, no lock. Nobody waits for a quota.

A token bucket would let twice as much go in the first period, its burst and its refill. Here what went is remembered for
`per` seconds; what went within a sixtieth of the period is remembered together, until the last of it is that old. So in
any stretch of `per` seconds (half open) no more goes than the quota, and the memory is bounded.
"""

from __future__ import annotations

import math
from collections import deque

from .bounds import positive

__all__ = ["Quota"]

_GRAINS = 60
_DUST = 1e-9  # ten times 0.1 is not quite 1


class Group:
    """What went at about the same time: a ticket of the quota."""

    __slots__ = ("amount", "began", "last")

    def __init__(self, now: float) -> None:
        self.began = self.last = now
        self.amount = 0.0


class Quota:
    """So many units in any `per` seconds.

    Args:
        amount: units.
        per: seconds.

    Attributes:
        used: units that went in the last `per` seconds.
    """

    __slots__ = ("_full", "_groups", "amount", "per", "used")

    def __init__(self, amount: float, per: float) -> None:
        positive("rate", amount)
        positive("per", per)
        self.amount = amount
        self.per = per
        self.used = 0.0
        self._full = amount * (1 + _DUST)
        self._groups: deque[Group] = deque()

    @property
    def capacity(self) -> float:
        """The largest cost that can ever go."""
        return self.amount

    def try_take(self, cost: float, now: float) -> Group | None:
        """Spend `cost`. Returns its ticket, or None if it is not there. What costs nothing needs something left, too."""
        self._expire(now)
        if self.used + cost > self._full or self.used >= self.amount:
            return None
        return self.take(cost, now)

    def take(self, cost: float, now: float) -> Group:
        """Spend `cost`, whether it is there or not. Returns its ticket."""
        self._expire(now)
        groups = self._groups
        if not groups or now - groups[-1].began >= self.per / _GRAINS:
            groups.append(Group(now))
        group = groups[-1]
        group.last = max(group.last, now)
        group.amount += cost
        self.used += cost
        return group

    charge = take

    def _expire(self, now: float) -> None:
        groups = self._groups
        while groups and groups[0].last + self.per <= now:
            self.used -= groups.popleft().amount
        if not groups:
            self.used = 0.0

    def when(self, cost: float, now: float) -> float:
        """When so much will be there, if nothing else is spent until then; infinity if never."""
        if cost > self._full:
            return math.inf
        self._expire(now)
        at, left = now, self.used
        for group in self._groups:
            if left + cost <= self._full and left < self.amount:
                break
            left -= group.amount
            at = group.last + self.per
        return at

    def give_back(self, ticket: Group, cost: float, now: float, *, unsent: bool = False) -> None:
        """Take `cost` off what was spent: it was not, after all."""
        self._expire(now)
        if self._groups and ticket.last >= self._groups[0].last:
            back = min(cost, ticket.amount)
            ticket.amount -= back
            self.used -= back

    def at_rest(self, now: float) -> bool:
        """Whether a new one would do as well as this."""
        self._expire(now)
        return not self._groups

    def reset(self) -> None:
        """Forget what was spent."""
        self._groups.clear()
        self.used = 0.0
