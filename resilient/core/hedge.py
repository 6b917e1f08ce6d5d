"""When a second attempt is sent beside a first one that is slow, and which of them answers.

Rules of this file: no clock, no chance; what a race holds is a handful of numbers, and `now` comes with each event. The
budget is asked by whoever holds it, for it is spent by asking.

The schedule is that of gRPC's hedging (proposal A6): attempts `delay` apart; a server that asks to be left alone moves
the next one, and where failures are answered by a hedge that one starts at once and the later ones resume at the delay.
"""

from __future__ import annotations

import math

from .outcome import Outcome

__all__ = ["SHORTEST", "Heat", "delay_of", "is_good"]

INFINITY = math.inf

SHORTEST = 0.001
"""Seconds below which nothing is hedged: the second attempt would cost more than the wait."""

# A quantile is interpolated inside a bucket of a histogram, no wider than an eighth; where all answers take the same time,
# so many of them are later than the estimate that a hedge would be sent for a part of them, up to all.
MARGIN = 1.125


def delay_of(p95: float | None) -> float | None:
    """Seconds after which a call counts as slow, by the estimate of what 95 % of its like take; None without one."""
    return None if p95 is None else max(p95 * MARGIN, SHORTEST)


def is_good(outcome: Outcome, *, late: bool, degraded: bool) -> bool:
    """Whether an answer wins its race: one of the dependency's own, and no failure. Late is better than never."""
    return late or not (outcome.failed or outcome is Outcome.THROTTLED or degraded)


class Heat:
    """One race: who is out, and when the next one may start.

    Args:
        now: when the first attempt starts.
        delay: seconds between two starts.
        hedges: how many may follow the first one.
        latest: the moment after which none starts: it could not answer in time.
        after_failure: a failed attempt is followed at once.

    Attributes:
        out: attempts that are under way.
        left: hedges that may still start.
    """

    __slots__ = ("_after_failure", "_delay", "_due", "_latest", "left", "out")

    def __init__(self, now: float, delay: float, hedges: int, *, latest: float = INFINITY, after_failure: bool = False) -> None:
        self._delay = delay
        self._latest = latest
        self._after_failure = after_failure
        self._due = now + delay
        self.left = hedges
        self.out = 1

    @property
    def due(self) -> float:
        """When the next hedge starts; infinity for never."""
        return self._due if self.left and self._due <= self._latest and (self.out or self._after_failure) else INFINITY

    @property
    def over(self) -> bool:
        """Nobody is out, and nobody will be."""
        return self.out == 0 and self.due == INFINITY

    def started(self, now: float) -> None:
        """A hedge has started."""
        self.left -= 1
        self.out += 1
        self._due = now + self._delay

    def failed(self, now: float, *, retry_after: float | None = None, mendable: bool = True) -> None:
        """An attempt has ended without a good answer.

        Args:
            now: when.
            retry_after: seconds that the dependency asked to be left alone. Nothing starts before that.
            mendable: the failure is of a kind that another attempt may mend.
        """
        self.out -= 1
        if retry_after is not None:
            asked = now + retry_after
            self._due = asked if self._after_failure else max(self._due, asked)
        elif self._after_failure and mendable:
            self._due = now
        if not (self.out or mendable):
            self.stop()

    def stop(self) -> None:
        """No hedge starts any more."""
        self.left = 0
