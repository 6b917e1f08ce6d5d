"""How many of the requests that come too late may be refused for it.

Rules of this file: no clock, no lock; `now` is an argument.

A caller's clock, a proxy that counts in other units, a header that somebody froze: any of them makes every request look as
if its time were over, and a service that believes it serves nobody. So only a share of all requests is refused for that,
over a sliding window; the others are served as if nothing had been said. This is the guard of Finagle's `DeadlineFilter`
(finagle-core, com.twitter.finagle.service: `maxRejectFraction` 0.2, `rejectPeriod` 10 seconds in a leaky token bucket of
ten steps). There each request that is served puts in a token and a refusal takes out 1 / share of them, so that at most
`share` refusals come on one request served; here `share` is that of all requests that come, and 1 refuses whatever is late.
Its older tolerance of 170 ms for the skew of clocks has nothing to do here: what is sent is time left, and no moment.
"""

from __future__ import annotations

from .bounds import fraction, positive
from .window import TimeWindow

__all__ = ["ExpiredShare"]

_DUST = 1e-9  # 0.29 x 100 is not quite 29


class ExpiredShare:
    """Of the requests of the last seconds, those that were refused because their time was over.

    Args:
        share: the most that are, of all that came; 0 refuses none, 1 all that are late.
        window: seconds over which that holds, in ten steps: what is seen is between nine tenths of them and all.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    __slots__ = ("_window", "share")

    def __init__(self, share: float = 0.2, window: float = 10.0) -> None:
        fraction("max_expired", share, zero=True)
        positive("window", window)
        self.share = share
        self._window = TimeWindow(window)

    def count(self, now: float) -> None:
        """A request came, late or not."""
        window = self._window
        if now >= window.ends:
            window.turn(now)
        window.calls += 1

    def refuse(self, now: float) -> bool:
        """Whether a request that has come, and is late, is refused; that counts it as refused."""
        came, refused, _ = self._window.totals(now)
        if refused + 1 > self.share * came + _DUST:
            return False
        self._window.failures += 1
        return True
