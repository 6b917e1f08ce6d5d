"""How large a part of the requests a dependency refuses, and so how many are not worth sending.

Rules of this file: no clock, no chance, no lock; `now` and the random number are arguments. O(1) a request, memory does
not grow with traffic, and time that goes back stands still.

Client-side throttling of "Site Reliability Engineering" (Beyer and others, O'Reilly 2016, chapter 21): of `requests` in
the last two minutes `accepts` were accepted; a request is rejected without being sent with the probability

    p = max(0, (requests - k * accepts) / (requests + 1))

so that a dependency is sent up to `k` times what it accepts without any being rejected, and ever less beyond that.

A request counts in the moment of sending. One that is under way stands as accepted until its end says otherwise, or a
burst into a fresh window would reject itself. One that was rejected here was never sent and does not count: the book
counts those too, and then, all but a hundredth being rejected, a dependency that is well again is sent twice as much
every two minutes, and has all of its traffic back after a quarter of an hour. Counted like this, it takes seconds.
"""

from __future__ import annotations

from .bounds import fraction, positive, whole

__all__ = ["Throttle", "rejection"]

BUCKETS = 60


def rejection(requests: int, accepts: int, k: float = 2.0) -> float:
    """The probability that a request is not worth sending."""
    return max(0.0, (requests - k * accepts) / (requests + 1))


class Throttle:
    """Requests and accepts of the last seconds.

    Args:
        k: requests for each that is accepted, up to which none is rejected.
        window: seconds that are looked back on, in steps of a sixtieth.
        min_requests: requests in the window below which none is rejected.
        max_rejection: the most that are rejected: what is left finds out that the dependency is back.

    Attributes:
        requests, accepts: in the window, as of the last look.
    """

    __slots__ = ("_accepts", "_number", "_requests", "_width", "accepts", "k", "max_rejection", "min_requests", "requests", "window")

    def __init__(self, k: float = 2.0, window: float = 120.0, min_requests: int = 10, max_rejection: float = 0.99) -> None:
        positive("k", k)
        if k < 1:
            raise ValueError(f"k must be at least 1 (less rejects what would be accepted), not {k!r}")
        positive("window", window)
        whole("min_requests", min_requests)
        fraction("max_rejection", max_rejection)
        self.k = k
        self.window = window
        self.min_requests = min_requests
        self.max_rejection = max_rejection
        self._width = window / BUCKETS
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self._requests = [0] * BUCKETS
        self._accepts = [0] * BUCKETS
        self._number: int | None = None
        self.requests = self.accepts = 0

    def _turn(self, now: float) -> int:
        """Drop what is too old; the number of the present bucket."""
        number = int(now // self._width)
        last = self._number
        if last is None:
            self._number = number
        elif number > last:
            for old in range(max(last + 1, number - BUCKETS + 1), number + 1):
                at = old % BUCKETS
                self.requests -= self._requests[at]
                self.accepts -= self._accepts[at]
                self._requests[at] = self._accepts[at] = 0
            self._number = number
        else:
            number = last
        return number

    @property
    def doubtful(self) -> bool:
        """Whether fewer are accepted than `k` makes up for: a request might be rejected."""
        return self.requests > self.k * self.accepts

    def admit(self, now: float, random: float) -> int | None:
        """Count a request that is sent. Returns when it was, for `refused` or `unsent`, or None if it is rejected.

        Args:
            now: the present moment.
            random: a number in [0, 1).
        """
        return None if self.doubtful and random < self.probability(now) else self.send(now)

    def send(self, now: float) -> int:
        """Count a request that is sent, whatever speaks against it."""
        number = self._turn(now)
        self._requests[number % BUCKETS] += 1
        self._accepts[number % BUCKETS] += 1
        self.requests += 1
        self.accepts += 1
        return number

    def probability(self, now: float) -> float:
        """That a request which comes now is rejected."""
        self._turn(now)
        if self.requests < self.min_requests:
            return 0.0
        return min(self.max_rejection, rejection(self.requests, self.accepts, self.k))

    def refused(self, sent: int) -> None:
        """A request was not accepted after all."""
        if self._known(sent):
            self._accepts[sent % BUCKETS] -= 1
            self.accepts -= 1

    def unsent(self, sent: int) -> None:
        """A request says nothing of the dependency: as if it had never been."""
        if self._known(sent):
            self._requests[sent % BUCKETS] -= 1
            self.requests -= 1
            self.refused(sent)

    def _known(self, sent: int) -> bool:
        return self._number is not None and sent > self._number - BUCKETS and self._accepts[sent % BUCKETS] > 0
