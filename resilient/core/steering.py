"""What a control law leaves open: cold starts, outages, and latencies that have changed for good.

Rules of this file: those of `limiter`.

Gradient2 on its own grows by less than one a window, takes no notice of calls that nobody answered, and believes for
minutes in a latency that is no more. A client that has to use all of a dependency that is back, and nothing of one that
drowns, needs five more rules. They come from TCP, where they have been tried longest:

- **slow start**: as long as nothing has ever shown load at such a limit, or only calls without an answer have (an outage
  is over when it is over), the limit doubles in each good window;
- **drops** lower it by the square of their share, halved: a page that always fails costs next to nothing, a dependency
  that no more answers costs a half of the limit a window (DCTCP, RFC 8257, lowers it by the share, halved);
- **what is usual rises by no more than a quarter under load**, or an overload of ten minutes becomes what is usual;
- **a limit that was halved in vain** is given back: where fewer calls are no quicker, the load is not ours, and what
  they take now is what is usual (the smallest latency seen has to be forgotten some time, as in BBR);
- **nobody concludes anything from calls that are not limited**: fewer than a half of the limit in flight.
"""

from __future__ import annotations

from typing import Any

from .limiter import Gradient2, Seen

__all__ = ["SteadyGradient"]

WARMUP = 100  # windows whose plain mean is what is usual: the slowest calls of a mixture are the last to be known
CREEP = 1.25  # times the latency without load, above which what is usual does not rise under load
RECENT = 0.5  # weight of the latest window in the latency that is looked at for a change
RISE = 1.1  # times as long is a change for the worse, not noise
IN_VAIN = 0.8  # share of its latency that a dependency still has after the limit was halved, if that did not help
DROWNING = 0.1  # share of calls without an answer above which the latency of the others is no evidence


class SteadyGradient(Gradient2):
    """Gradient2 with these rules; the arguments are its own."""

    __slots__ = ("_begun", "_calm", "_mark", "_proven", "_recent", "_start")

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings, warmup=WARMUP)
        self._begin()

    def _begin(self) -> None:
        self._begun = False
        # The limit up to which nothing speaks against doubling it.
        self._proven: float = self.most
        # The latency without load, and that of the last windows, whatever their load.
        self._calm = 0.0
        self._recent = 0.0
        # The limit and latency that a lower limit has to better, and the limit that is given back if it does not.
        self._mark: tuple[float, float] | None = None
        self._start = 0.0

    def bound(self, least: int, most: int) -> None:
        """Other limits never to leave, from now on."""
        unopposed = self._proven >= self.most
        super().bound(least, most)
        self._proven = most if unopposed else min(self._proven, most)
        if self._mark is not None:
            self._mark = (max(least, min(most, self._mark[0])), self._mark[1])

    def clear(self) -> None:
        """Begin anew."""
        super().clear()
        self._begin()

    def decide(self, window: Seen) -> int:
        """The limit after a window."""
        limited = window.peak >= self.estimate / 2
        if window.rtt is None:
            pass
        elif self._begun:
            self._weigh(window.rtt, window.peak, window.dropped, limited)
        else:
            self._begun = True  # the first to come back are the quickest: they tell nothing of the others
        if limited and window.dropped:
            self._keep(self.estimate * (1 - window.dropped**2 / 2))
        return self.limit

    def _weigh(self, rtt: float, peak: int, dropped: float, limited: bool) -> None:
        usual, before = self.usual.value, self.estimate
        self._recent += RECENT * (rtt - self._recent) if self._recent else rtt
        busy = limited and rtt > usual > 0
        if not busy:
            self._calm += RECENT * (rtt - self._calm) if self._calm else rtt
        self.update(rtt, peak, learn=not busy or usual < CREEP * self._calm)
        if not limited:
            self._mark = None
        elif busy and rtt > self.tolerance * usual:
            # Little's law: the throughput that there is needs so many calls at the latency that is usual.
            needed = max(2 * self.queue, self.tolerance * peak * usual / rtt)
            self._proven = min(self._proven, needed)
            self._compare(before, dropped)
        else:
            if not dropped and self.estimate < self._proven:
                self._keep(min(2 * before, self._proven))
            self._proven = max(self._proven, self.estimate)

    def _compare(self, before: float, dropped: float) -> None:
        """Look whether the latency falls with the limit."""
        if dropped > DROWNING:
            self._mark = None
            return
        if self._mark is None or self._recent < IN_VAIN * self._mark[1]:
            self._mark, self._start = (before, self._recent), before
        elif self._recent > RISE * self._mark[1]:
            self._mark = before, self._recent
        if self.estimate <= self._mark[0] / 2:
            self._keep(self._start)
            self._proven = max(self._proven, self.estimate)
            self.usual.clear()
            self._calm = self.usual.add(self._recent)
            self._mark = None
