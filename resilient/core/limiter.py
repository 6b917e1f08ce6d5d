"""How many calls a dependency bears at a time: two published control laws, and the windows of samples they are fed with.

Rules of this file: no clock, no lock, no waiting; durations, calls in flight and `now` are arguments. A law changes its
limit only when it is told of a window; collecting a sample is an append.

Both laws are those of Netflix's concurrency-limits, number for number: `Gradient2Limit` (the latency of now against that
of the long run) and `AIMDLimit` (one more for each good window, a tenth less for each bad one). What their authors leave
to whoever uses them, cold starts, outages and latencies that changed for good, is in `steering`.
"""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from .bounds import fraction, positive, whole

__all__ = ["AIMD", "DROPPED", "FAILED", "Gradient2", "LongTerm", "Samples", "Seen", "seen"]

DROPPED = math.inf
"""What stands for a call that nobody answered, in the place of its duration."""
FAILED = 0.0
"""What stands for a call whose answer was a failure: how quick it was says nothing of the load."""

ENOUGH = 128  # samples of one window; the mean of more is hardly better
KEPT = 256  # of those that were begun while there were not enough, the latest ones
SHORTEST = 0.1  # seconds; a window takes some tens of microseconds to be judged
BAD_SHARE = 0.1  # of a window's calls that may be dropped before AIMD takes the window for a bad one


@dataclass(frozen=True, slots=True)
class Seen:
    """One window of samples.

    Attributes:
        rtt: seconds, the geometric mean of what was answered; None if nothing was. Each call's latency counts by its
            order of magnitude: one slow endpoint among many fast ones hides neither their delay nor makes up for it.
        peak: the most calls that were in flight.
        dropped: the share of calls that nobody answered.
        mean: seconds, the plain mean of what was answered; it is what a change of the limit takes to show.
    """

    rtt: float | None
    peak: int
    dropped: float = 0.0
    mean: float = 0.0


class Samples:
    """Collects samples until a window is over: `least` of them or `seconds`, and never less than two round trips.

    A change of the limit shows in latencies one round trip later. To judge it sooner is to overshoot.

    Args:
        least: samples after which a window may end.
        seconds: after which it ends with fewer.

    Attributes:
        durations: of the present window: `DROPPED`, `FAILED` or seconds.
        peak: the most calls that were in flight.
        due: until then the window is not over, whatever it holds.
        wanted: whether calls that begin now are to be measured. It is decided when they begin, and not by how long they
            took, or the quick ones would be measured more often than the slow ones.
    """

    __slots__ = ("_latest", "due", "durations", "least", "peak", "seconds", "wanted")

    def __init__(self, least: int = 10, seconds: float = 1.0) -> None:
        whole("least", least)
        positive("seconds", seconds)
        self.least = least
        self.seconds = seconds
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.durations: deque[float] = deque(maxlen=KEPT)
        self.peak = 0
        self.wanted = True
        self.due = -math.inf
        self._latest = math.inf

    def add(self, duration: float, inflight: int) -> None:
        """Take a sample."""
        self.durations.append(duration)
        self.wanted = len(self.durations) < ENOUGH
        self.peak = max(self.peak, inflight)

    def over(self, now: float) -> bool:
        """Whether the window is over."""
        if self._latest == math.inf:
            self._latest = now + self.seconds
        return now >= self.due and (len(self.durations) >= self.least or now >= self._latest)

    def turn(self, now: float) -> tuple[deque[float], int]:
        """Begin a window. Returns the durations and the peak of the one that is over, for `seen`."""
        durations, peak = self.durations, self.peak
        self.durations, self.peak, self.wanted = deque(maxlen=KEPT), 0, True
        self.due = now + SHORTEST
        self._latest = now + self.seconds
        return durations, peak

    def lengthen(self, rtt: float) -> None:
        """Let the window that has just begun last for two round trips."""
        self.due = max(self.due, self.due - SHORTEST + 2 * rtt)
        self._latest = max(self.due, self._latest)


def seen(durations: deque[float], peak: int) -> Seen:
    """What a window comes to."""
    answered = [duration for duration in durations if FAILED < duration < DROPPED]
    dropped = durations.count(DROPPED) / len(durations) if durations else 0.0
    if not answered:
        return Seen(None, peak, dropped)
    rtt = math.exp(math.fsum(map(math.log, answered)) / len(answered))
    return Seen(rtt, peak, dropped, math.fsum(answered) / len(answered))


class LongTerm:
    """An exponential average that begins as the plain mean of its first samples.

    Args:
        window: samples that it looks back on, about.
        warmup: how many the plain mean is of.
    """

    __slots__ = ("_count", "_factor", "_sum", "_warmup", "value")

    def __init__(self, window: int = 600, warmup: int = 10) -> None:
        whole("window", window)
        whole("warmup", warmup)
        self._factor = 2.0 / (window + 1)
        self._warmup = warmup
        self.clear()

    def clear(self) -> None:
        """Forget everything."""
        self.value = self._sum = 0.0
        self._count = 0

    def add(self, sample: float) -> float:
        """Take a sample; the average from now on."""
        if self._count < self._warmup:
            self._count += 1
            self._sum += sample
            self.value = self._sum / self._count
        else:
            self.value = self.value * (1 - self._factor) + sample * self._factor
        return self.value


class _Law:
    """What both laws have: a limit between two others."""

    __slots__ = ("estimate", "initial", "least", "most")

    def __init__(self, initial: int, least: int, most: int) -> None:
        whole("least", least)
        whole("most", most)
        if most < least:
            raise ValueError(f"most must be at least {least}, as least is, not {most!r}")
        whole("initial", initial, least=least)
        if initial > most:
            raise ValueError(f"initial must be at most {most}, as most is, not {initial!r}")
        self.initial = initial
        self.least = least
        self.most = most
        self.estimate: float = initial

    @property
    def limit(self) -> int:
        """Calls that may be in flight."""
        return int(self.estimate)

    def bound(self, least: int, most: int) -> None:
        """Other limits never to leave, from now on; what was learnt is kept as far as it lies between them."""
        whole("least", least)
        whole("most", most, least=least)
        self.least, self.most = least, most
        self.initial = max(least, min(most, self.initial))
        self._keep(self.estimate)

    def _keep(self, estimate: float) -> None:
        self.estimate = max(self.least, min(self.most, estimate))


class AIMD(_Law):
    """Additive increase, multiplicative decrease: Netflix's `AIMDLimit`.

    Args:
        initial, least, most: limits to begin with, and never to leave.
        backoff: what a limit is multiplied by when calls are dropped.
        timeout: seconds; what takes longer counts as dropped.
    """

    __slots__ = ("backoff", "timeout")

    def __init__(self, *, initial: int = 20, least: int = 1, most: int = 1000, backoff: float = 0.9, timeout: float = 5.0) -> None:
        super().__init__(initial, least, most)
        fraction("backoff", backoff)
        positive("timeout", timeout)
        self.backoff = backoff
        self.timeout = timeout

    def update(self, rtt: float, inflight: int, dropped: bool = False) -> int:
        """The limit after a sample."""
        limit = self.limit
        if dropped or rtt > self.timeout:
            limit = int(limit * self.backoff)
        elif 2 * inflight >= limit:
            limit += 1
        self._keep(limit)
        return self.limit

    def decide(self, window: Seen) -> int:
        """The limit after a window. It is a bad one if a tenth of its calls were dropped."""
        if window.rtt is None and not window.dropped:
            return self.limit
        return self.update(window.rtt or 0.0, window.peak, window.dropped >= BAD_SHARE)

    def clear(self) -> None:
        """Begin anew."""
        self.estimate = self.initial


class Gradient2(_Law):
    """The latency of now against that of the long run: Netflix's `Gradient2Limit`.

    While calls take no longer than `tolerance` times what they usually take, the limit grows; beyond that it shrinks in
    proportion, to a half at the most, and `smoothing` says how much of that is done at a time:

        gradient = clamp(tolerance * usual / rtt, 0.5, 1)
        limit    = (1 - smoothing) * limit + smoothing * (limit * gradient + queue)

    It stays as it is while fewer than a half of it are in flight: then nothing tells how many more there could be. Even
    under the worst gradient it comes to rest at `2 * queue`.

    Args:
        initial, least, most: limits to begin with, and never to leave.
        smoothing: share of the way that one update goes.
        queue: calls beyond what is needed, which keep the limit growing while it can.
        tolerance: how many times as long as usual is no sign of load.
        long_window, warmup: of the usual latency, an exponential average; in samples.
    """

    __slots__ = ("queue", "smoothing", "tolerance", "usual")

    def __init__(
        self,
        *,
        initial: int = 20,
        least: int = 1,
        most: int = 1000,
        smoothing: float = 0.2,
        queue: int = 4,
        tolerance: float = 1.5,
        long_window: int = 600,
        warmup: int = 10,
    ) -> None:
        super().__init__(initial, least, most)
        fraction("smoothing", smoothing)
        whole("queue", queue)
        positive("tolerance", tolerance)
        if tolerance < 1:
            raise ValueError(f"tolerance must be at least 1 (as long as usual is no sign of load), not {tolerance!r}")
        self.smoothing = smoothing
        self.queue = queue
        self.tolerance = tolerance
        self.usual = LongTerm(long_window, warmup)

    def update(self, rtt: float, inflight: int, *, learn: bool = True) -> int:
        """The limit after a sample; without `learn` what is usual stays as it is."""
        usual = self.usual.add(rtt) if learn or not self.usual.value else self.usual.value
        # After a long time of load the average is far above what is usual again, and would take long to come down.
        if learn and usual / rtt > 2:
            self.usual.value *= 0.95
        if inflight >= self.estimate / 2:
            gradient = max(0.5, min(1.0, self.tolerance * usual / rtt))
            self._keep(self.estimate * (1 - self.smoothing) + self.smoothing * (self.estimate * gradient + self.queue))
        return self.limit

    def clear(self) -> None:
        """Begin anew."""
        self.estimate = self.initial
        self.usual.clear()
