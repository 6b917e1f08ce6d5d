"""How many retries a dependency can bear.

Rules of this file: no clock, no lock; `now` never needs to be exact, and a clock that goes back stands still.

A retry that is granted is a debt of 1. Calls repay `ratio` each, the newest debt first; what is still owed after
`window` seconds (and at most a tenth more) is forgiven, and that is the reserve: `reserve * window` may be owed at a
time. The sum owed is then the largest excess of retries over `ratio` times calls in any interval that ends now and is
no longer than the window, so for *any* interval of `window` seconds (half open), wherever it begins,

    retries <= ratio * calls + reserve * window

holds exactly, and amplification is at most 1 + ratio + reserve / rate. (A plain token bucket with a refill breaks it:
its burst and its refill come on top of each other.)

`saved` bounds the burst, as in Finagle's RetryBudget: tokens come back at `reserve` a second and `ratio` a call, and no
more than `saved` are kept, so that any interval of t seconds has at most saved + reserve * t + ratio * calls. With
saved >= reserve * window, as by default, the window is always the tighter bound.

A retry that was granted and then not made, for a policy of ours refused it, may be paid back. Only so much is as is not
forgiven yet nor made up for by time and calls, and it is taken from the oldest debts, so that both bounds hold for the
retries that were made.

Nothing owed is nothing to remember: a dependency that needs no retries pays one comparison a call.
"""

from __future__ import annotations

from typing import NamedTuple

from .bounds import fraction, positive

__all__ = ["Budget", "Grant"]

# Debts of a tenth of a window are remembered together and forgiven when the newest of them may be: at most 12 entries.
_GRAINS = 10
# Five repayments of 0.2 leave 5e-17 of a debt of 1.
_DUST = 1e-9


class Grant(NamedTuple):
    """A retry that was granted: the moment, and what calls had repaid by then."""

    at: float
    grain: int
    repaid: float


class Budget:
    """A share of the calls, plus a little for dependencies that are called seldom.

    Args:
        ratio: retries allowed per call.
        reserve: retries a second that are allowed whatever the number of calls; at least one a window.
        window: seconds over any stretch of which the bound holds.
        saved: the most retries that may come at once without calls to pay for them.

    Attributes:
        owed: the debts, oldest first; while there is none a deposit has nothing to do.
    """

    __slots__ = ("_cap", "_drawn", "_drawn_at", "_grain", "_grains", "_repaid", "owed", "ratio", "reserve", "saved", "window")

    def __init__(self, ratio: float = 0.2, reserve: float = 3.0, window: float = 10.0, saved: float = 30) -> None:
        fraction("ratio", ratio, zero=True)
        positive("reserve", reserve)
        positive("window", window)
        positive("saved", saved)
        if reserve * window < 1:
            raise ValueError(f"reserve must be at least 1 / window = {1 / window!r} (less never grants a retry), not {reserve!r}")
        if saved < 1:
            raise ValueError(f"saved must be at least 1 (less never grants a retry), not {saved!r}")
        self.ratio = ratio
        self.reserve = reserve
        self.window = window
        self.saved = saved
        self._cap = reserve * window
        self._grain = window / _GRAINS
        # Debts, oldest first, each with the number of its tenth of a window: calls repay at the end of the list, time
        # forgives at its beginning.
        self.owed: list[float] = []
        self._grains: list[int] = []
        # Tokens missing from the bucket, as of `_drawn_at`: never more than what is owed in all.
        self._drawn = 0.0
        self._drawn_at = 0.0
        self._repaid = 0.0

    def deposit(self) -> None:
        """Count a call (not its retries)."""
        if self.owed:
            self._repay()

    def _repay(self) -> None:
        owed = self.owed
        left = self.ratio
        while owed and left > 0:
            if owed[-1] - left > _DUST:
                owed[-1] -= left
                break
            left -= owed.pop()
            self._grains.pop()
        self._drawn = max(0.0, self._drawn - self.ratio)
        self._repaid += self.ratio

    def _settle(self, now: float) -> int:
        """Forgive what is older than the window, put back what time has earned; the number of the present grain."""
        grain = int(now // self._grain)
        grains = self._grains
        old = 0
        while old < len(grains) and grain - grains[old] > _GRAINS:
            old += 1
        if old:
            del grains[:old], self.owed[:old]
        if now > self._drawn_at:
            self._drawn = max(0.0, self._drawn - self.reserve * (now - self._drawn_at))
            self._drawn_at = now
        return grain

    def withdraw(self, now: float) -> Grant | None:
        """Ask for a retry. A grant counts it as made; None refuses it."""
        grain = self._settle(now)
        if sum(self.owed) + 1 > self._cap + _DUST or self._drawn + 1 > self.saved + _DUST:
            return None
        self._drawn += 1
        if self._grains and grain <= self._grains[-1]:
            self.owed[-1] += 1
        else:
            self.owed.append(1.0)
            self._grains.append(grain)
        return Grant(self._drawn_at, grain, self._repaid)

    def refund(self, grant: Grant, now: float) -> None:
        """Pay back a retry that was not made; once for each grant."""
        if self._settle(now) - grant.grain > _GRAINS:
            return  # it is forgiven already
        owed, left = self.owed, 1.0
        while owed and left > 0:
            if owed[0] - left > _DUST:
                owed[0] -= left
                break
            left -= owed.pop(0)
            self._grains.pop(0)
        made_up_for = self.reserve * (self._drawn_at - grant.at) + self._repaid - grant.repaid
        self._drawn = max(0.0, self._drawn - max(0.0, 1.0 - made_up_for))

    def remaining_ratio(self, now: float) -> float:
        """The part of the budget that is left, from 0 to 1."""
        self._settle(now)
        left = min((self._cap - sum(self.owed)) / self._cap, (self.saved - self._drawn) / self.saved)
        return max(0.0, left)
