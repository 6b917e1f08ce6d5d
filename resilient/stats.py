"""What a dependency's calls came to: how many ended how, and how long they took.

Written once a call on the hot path, read at scrapes and by the rules that need a latency estimate. One set of fine
buckets serves both: every bound that is exported is also a fine bound, so the exported histogram is a sum of them.
"""

from __future__ import annotations

import math
import threading
from bisect import bisect_left, bisect_right
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate, pairwise
from operator import add

from .clock import SYSTEM_CLOCK

__all__ = ["BATCH", "EXPORTED_BOUNDS", "OUTCOMES", "CallSnapshot", "CallStats", "quantile"]

OUTCOMES = ("success", "failure", "ignored")
"""The outcome words that are counted, and exported, from the start; others are once they occur."""

EXPORTED_BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
"""Upper bounds, in seconds, of the buckets of the exported histogram; the last one has none."""

BATCH = 512
"""Records that may wait in a queue before they are counted: few enough that a fold takes some tens of microseconds."""

RATIO = 1.125  # no fine bucket is wider than this, so an interpolated quantile is off by 6 % at the most
HALF_AGE = 30.0  # seconds after which a half of the recent successes is closed
FRESH = 0.1  # seconds for which an estimate is good enough for one that is asked for at every call
MIN_SAMPLES = 20  # successes below which there is no estimate
MAX_OUTCOMES = 16  # outcome words are a handful; a caller that invents them must not grow memory


def _fine_bounds() -> list[float]:
    """Bounds from 0.1 ms to 2 min in geometric steps, through each exported bound exactly."""
    fixed = (0.0001, *EXPORTED_BOUNDS, 120.0)
    bounds = [fixed[0]]
    for low, high in pairwise(fixed):
        steps = math.ceil(math.log(high / low) / math.log(RATIO))
        bounds += [low * (high / low) ** (step / steps) for step in range(1, steps)]
        bounds.append(high)
    return bounds


BOUNDS = _fine_bounds()
SIZE = len(BOUNDS) + 1
EXPORTED = [BOUNDS.index(bound) for bound in EXPORTED_BOUNDS] + [SIZE - 1]


@dataclass(frozen=True, slots=True)
class CallSnapshot:
    """The numbers of one moment.

    Attributes:
        counts: calls by outcome word, since the start.
        buckets: calls that took no longer than each of `EXPORTED_BOUNDS`, cumulative; the last item is all of them.
        seconds: the sum of all durations.
    """

    counts: dict[str, int]
    buckets: list[int]
    seconds: float

    def __add__(self, other: CallSnapshot) -> CallSnapshot:
        """The calls of both."""
        counts = self.counts.copy()
        for outcome, count in other.counts.items():
            counts[outcome] = counts.get(outcome, 0) + count
        return CallSnapshot(counts, list(map(add, self.buckets, other.buckets)), self.seconds + other.seconds)


class CallStats:
    """Counts and durations of the calls of one dependency, safe from any thread.

    A record is one append to a queue, which is atomic; every 512th folds the queue into the numbers, and so does whoever
    reads them, so that nothing read is ever behind. Successes, nearly all of the traffic, have a queue of bare
    durations, which are counted by sorting them: a fraction of the cost of a lock and a look-up a call.

    Durations of successes are kept in two halves. A half is closed once it is 30 s old and holds 20 samples; then the
    older one is forgotten by `p95` (the exported histogram forgets nothing). So the estimate rests on the successes of
    the last 30 to 60 s, or on the last 20 to 40 of them where traffic is low, at constant memory. A duration in the
    queue counts as of when it is folded.

    Args:
        now: the present moment on the clock of the calls.

    Attributes:
        successes: where a runner may append the duration of a success itself, and call `fold` once there are `BATCH`
            of them; None while `on_record` wants to hear of each call.
    """

    __slots__ = (
        "_close_at",
        "_counts",
        "_current",
        "_estimate",
        "_folding",
        "_lately",
        "_lock",
        "_now",
        "_on_record",
        "_past",
        "_pending",
        "_previous",
        "_seconds",
        "_successes",
        "successes",
    )

    def __init__(self, now: Callable[[], float] = SYSTEM_CLOCK.now) -> None:
        self._now = now
        # Re-entrant: garbage collection may run in the middle of a fold, and a finalizer that settles a dropped
        # response then records in the same thread.
        self._lock = threading.RLock()
        self._folding = False
        self._pending: deque[tuple[str, float | None, float]] = deque()
        self._successes: deque[float] = deque()
        self.successes: deque[float] | None = self._successes
        self._on_record: Callable[[str, float | None], None] | None = None
        self.reset()

    @property
    def on_record(self) -> Callable[[str, float | None], None] | None:
        """Called with outcome and duration at each record, outside the lock; None for nobody."""
        return self._on_record

    @on_record.setter
    def on_record(self, hook: Callable[[str, float | None], None] | None) -> None:
        self._on_record = hook
        self.successes = self._successes if hook is None else None

    def reset(self) -> None:
        """Forget everything."""
        with self._lock:
            self._pending.clear()
            self._successes.clear()
            self._counts = dict.fromkeys(OUTCOMES, 0)
            self._seconds = 0.0
            self._past = [0] * SIZE  # all but the successes of the two halves
            self._previous = [0] * SIZE
            self._current = [0] * SIZE
            self._close_at = -math.inf  # of the current half; the first one closes with its 20th sample
            self._lately: tuple[float, float | None] = (-math.inf, None)
            self._estimate: tuple[int, float | None] = (0, None)  # of p95, and the count of successes it is true for

    def record(self, outcome: str, seconds: float | None, now: float) -> None:
        """Count one call. Call it exactly once for each logical call, whatever its attempts were.

        Args:
            outcome: how it ended for the caller; one of `OUTCOMES` or another word from a small fixed set.
            seconds: how long it took, or None for a call that says nothing of latency.
            now: the present moment on the clock that `seconds` was taken from.
        """
        pending = self._pending
        pending.append((outcome, seconds, now))
        if len(pending) >= BATCH:
            with self._lock:
                self._fold()
        if self._on_record is not None:
            self._on_record(outcome, seconds)

    def fold(self, now: float) -> None:
        """Count what waits in `successes`, and all else that waits."""
        with self._lock:
            self._fold(now)

    def _fold_successes(self, now: float) -> None:
        if now >= self._close_at:
            self._close(now)
        waiting = self._successes
        batch = [waiting.popleft() for _ in range(len(waiting))]
        batch.sort()
        self._counts["success"] += len(batch)
        self._seconds += sum(batch)
        current, counted = self._current, 0
        for bucket in range(bisect_left(BOUNDS, batch[0]), bisect_left(BOUNDS, batch[-1])):
            up_to = bisect_right(batch, BOUNDS[bucket], counted)
            current[bucket] += up_to - counted
            counted = up_to
        current[bisect_left(BOUNDS, batch[-1])] += len(batch) - counted

    def _fold(self, now: float | None = None) -> None:
        """Move what is pending into the numbers. The lock is held."""
        if self._folding:  # by an outer frame of this very thread, which will take the new ones too
            return
        self._folding = True
        try:
            if self._successes:
                # Readers take the time too: where they come often the queue never fills, and nothing else would.
                self._fold_successes(self._now() if now is None else now)
            pending, counts, past = self._pending, self._counts, self._past
            while pending:
                outcome, seconds, at = pending.popleft()
                if outcome not in counts:
                    outcome = self._admit(outcome)
                counts[outcome] += 1
                if seconds is None:
                    continue
                self._seconds += seconds
                bucket = bisect_left(BOUNDS, seconds)
                if outcome == "success":
                    if at >= self._close_at:
                        self._close(at)
                    self._current[bucket] += 1
                else:
                    past[bucket] += 1
        finally:
            self._folding = False

    def _admit(self, outcome: str) -> str:
        if len(self._counts) >= MAX_OUTCOMES:
            outcome = "other"
        self._counts.setdefault(outcome, 0)
        return outcome

    def _close(self, now: float) -> None:
        if sum(self._current) >= MIN_SAMPLES:
            for bucket, older in enumerate(self._previous):
                self._past[bucket] += older
            self._previous, self._current = self._current, [0] * SIZE
            self._close_at = now + HALF_AGE

    def p95(self) -> float | None:
        """Seconds within which 95 % of the recent successes were answered; None below 20 of them."""
        with self._lock:
            self._fold()
            successes = self._counts["success"]
            known_for, estimate = self._estimate
            if known_for != successes:
                estimate = quantile(list(map(add, self._current, self._previous)), 0.95, least=MIN_SAMPLES)
                self._estimate = (successes, estimate)
            return estimate

    def lately_p95(self, now: float) -> float | None:
        """`p95` as of 0.1 s ago at most, for whoever asks at every call."""
        until, estimate = self._lately
        if now >= until:
            estimate = self.p95()
            self._lately = now + FRESH, estimate
        return estimate

    def counts(self) -> dict[str, int]:
        """Calls by outcome word, since the start."""
        with self._lock:
            self._fold()
            return self._counts.copy()

    def fine(self) -> tuple[dict[str, int], list[int]]:
        """Calls by outcome word, and by fine bucket (each for itself): the difference of two looks is what came between them."""
        with self._lock:
            self._fold()
            counts = self._counts.copy()
            parts = self._past.copy(), self._previous.copy(), self._current.copy()
        return counts, list(map(add, map(add, parts[0], parts[1]), parts[2]))

    def snapshot(self) -> CallSnapshot:
        """The numbers as they are now, consistent with each other."""
        with self._lock:
            self._fold()
            counts, seconds = self._counts.copy(), self._seconds
            parts = self._past.copy(), self._previous.copy(), self._current.copy()
        cumulative = list(accumulate(map(sum, zip(*parts, strict=True))))
        return CallSnapshot(counts, [cumulative[index] for index in EXPORTED], seconds)


def quantile(buckets: list[int], q: float, *, least: int = 1) -> float | None:
    """The q-quantile of what is in the fine buckets, interpolated linearly inside its own; the highest bound where it lies
    above that, and None of fewer than `least`.
    """
    total = sum(buckets)
    if total < least:
        return None
    rank = q * total
    cumulative = list(accumulate(buckets))
    index = bisect_left(cumulative, rank)
    if index >= len(BOUNDS):
        return BOUNDS[-1]
    low = BOUNDS[index - 1] if index else 0.0
    below = cumulative[index] - buckets[index]
    return low + (BOUNDS[index] - low) * (rank - below) / buckets[index]
