"""How much optional work a service can afford: less as it slows down, so that what it must do stays fast.

Rules of this file: no clock, no chance. `now` is an argument, and what is measured comes as a plain number: the measured
over the wanted, so that 1 is exactly what is wanted, and 2 twice as slow.

The law is that of Klein, Maggio, Årzén and Hernández-Rodriguez, "Brownout: Building More Robust Cloud Applications"
(ICSE 2014): the share of optional work, there the dimmer θ, is taken to act on the response time as t = alpha θ, with an alpha
that recursive least squares follow with forgetting, and is moved each period by (1 - pole) / alpha times the error. A pole
nearer to 1 is slower and trusts the model less. Added here: a dead band below the target in which nothing changes, a
dwell between a fall and the next rise, and bounds for the estimate while there is little to learn from.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

__all__ = ["Dimmer", "quantile", "shares"]

FORGETTING = 0.95
FIRST_ALPHA = 1.0
FIRST_P = 1000.0
LEAST_ALPHA, MOST_ALPHA = 0.1, 1000.0
NOTHING = 1e-3  # a share below this is none, and one so near to all is all


class Dimmer:
    """The share of optional work, as a controller has it.

    Args:
        pole: from 0 (at once) to below 1 (never): how much of an error is left after a period, if the model is right.
        margin: how far below the target the measured must lie before more is done.
        dwell: seconds after a fall in which the share does not rise.

    Attributes:
        share: of the optional work that is to be done, from 0 to 1.
        alpha: the estimate of what all of it does to the measured.
    """

    __slots__ = ("_fell_at", "_p", "alpha", "dwell", "margin", "pole", "share")

    def __init__(self, pole: float, margin: float, dwell: float) -> None:
        self.pole = pole
        self.margin = margin
        self.dwell = dwell
        self.reset()

    def reset(self) -> None:
        """All of it, with nothing learnt."""
        self.share = 1.0
        self.alpha = FIRST_ALPHA
        self._p = FIRST_P
        self._fell_at = -math.inf

    def update(self, measured: float, now: float) -> float:
        """A period has shown `measured`. Returns the share for the next one."""
        self._learn(measured)
        error = 1.0 - measured
        if error < 0:
            self._move(error)
            self._fell_at = now
        elif error > self.margin and now - self._fell_at >= self.dwell:
            self._move(error)
        return self.share

    def _move(self, error: float) -> None:
        share = self.share + (1 - self.pole) / self.alpha * error
        self.share = 0.0 if share < NOTHING else 1.0 if share > 1 - NOTHING else share

    def _learn(self, measured: float) -> None:
        # A dimmer that is closed shows nothing of what opening it would do, and what is not bounded runs away.
        if not self.share:
            return
        gain = self._p * self.share / (FORGETTING + self.share * self._p * self.share)
        alpha = self.alpha + gain * (measured - self.alpha * self.share)
        self.alpha = min(max(alpha, LEAST_ALPHA), MOST_ALPHA)
        self._p = min((1 - gain * self.share) * self._p / FORGETTING, FIRST_P)


def shares(share: float, count: int) -> list[float]:
    """What each of `count` features may do, the first to be dimmed first, so that all of them do `share` of their work."""
    left = share * count
    return [min(max(left - behind, 0.0), 1.0) for behind in reversed(range(count))]


def quantile(samples: Sequence[float], share: float) -> float:
    """The smallest sample that at least `share` of all do not exceed; of few, the largest."""
    ordered = sorted(samples)
    return ordered[max(math.ceil(share * len(ordered)) - 1, 0)]
