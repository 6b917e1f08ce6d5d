"""How many and how fast, of the last seconds: differences between what was counted at two looks."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from operator import sub
from typing import Any

from ..stats import BATCH, CallStats, quantile
from ..telemetry.families import CACHE_REQUESTS, DEGRADED, REJECTIONS, RETRIES, SHED, Family, Key

__all__ = ["MOST", "Looks", "Rates", "Spread"]

MOST = 200
"""Dependencies that are shown each for itself; the others are summed."""

WINDOW = 5.0  # seconds that rates are of, where somebody looked so long ago
APART = 0.5  # seconds between two samples at least
FORGET = 60.0  # seconds after which a look is too old to be compared with
COUNTED = (CACHE_REQUESTS, DEGRADED, REJECTIONS, RETRIES, SHED)
ENDS = ("success", "failure")

Totals = dict[Family, dict[Key, float]]
Fine = tuple[dict[str, int], list[int]]


@dataclass(slots=True)
class Sample:
    """What was counted up to one moment. `owners` says whose numbers they are: those of another object of the same name
    don't go on where they ended.
    """

    at: float
    owners: dict[str, CallStats]
    calls: dict[str, Fine]
    others: dict[str, int]
    counted: Totals
    requests: Fine


@dataclass(frozen=True, slots=True)
class Spread:
    """Calls or requests of the last seconds.

    Attributes:
        calls: a second, those that were called off left out.
        failures: a second.
        failure_ratio: None without calls.
        p50, p95, p99: seconds; None without any that took a time.
    """

    calls: float | None = None
    failures: float | None = None
    failure_ratio: float | None = None
    p50: float | None = None
    p95: float | None = None
    p99: float | None = None


UNKNOWN = Spread()
IDLE = Spread(0.0, 0.0)


@dataclass(slots=True)
class Rates:
    """What came between two looks.

    Attributes:
        seconds: that lie between them; None where there was no earlier look to compare with.
        others: of the dependencies that are not shown each for itself.
    """

    seconds: float | None
    calls: dict[str, Spread] = field(default_factory=dict)
    others: Spread = UNKNOWN
    requests: Spread = UNKNOWN
    turned_away: float | None = None
    counted: dict[Family, dict[Key, float]] = field(default_factory=dict)

    def of(self, name: str) -> Spread:
        return self.calls.get(name, UNKNOWN)

    def by(self, family: Family, wanted: Callable[[Key], bool] | None = None) -> dict[str, float] | None:
        """A second, by the first label. None where it is not known."""
        if self.seconds is None:
            return None
        found: dict[str, float] = {}
        for key, count in self.counted[family].items():
            if wanted is None or wanted(key):
                found[key[0]] = found.get(key[0], 0.0) + count / self.seconds
        return found


class Requests:
    """How long requests take, measured while somebody looks, and for as long as a batch after that.

    Those that were turned away before they reached a route are left out: they say nothing of what users wait for.
    """

    def __init__(self, resilience: Any) -> None:
        self.stats = CallStats(resilience.clock.now)
        self._now = resilience.clock.now
        self._metrics = resilience.metrics
        self._looked = 0.0
        self.own: set[str] = set()
        """Routes that are the dashboard's own: who looks is no load to look at."""

    def look(self, now: float) -> Fine:
        self._looked = now
        self._metrics.on_request = self._ended
        return self.stats.fine()

    def _ended(self, route: str, status: str, seconds: float) -> None:
        if route in self.own:
            return
        if route == "unmatched" and status == "5xx":
            self.stats.record("ignored", None, self._now())
            return
        durations = self.stats.successes
        assert durations is not None  # nobody listens to them
        durations.append(seconds)
        if len(durations) >= BATCH:
            now = self._now()
            self.stats.fold(now)
            if now - self._looked > FORGET:
                self._metrics.on_request = None


class Looks:
    """The last few looks at the counters of a `Resilience`."""

    def __init__(self, resilience: Any) -> None:
        self._resilience = resilience
        self._samples: deque[Sample] = deque()
        self._lock = threading.Lock()
        self._rates = Rates(None)
        self.requests = Requests(resilience)

    def look(self, now: float) -> Rates:
        """The rates of the last seconds."""
        with self._lock:  # what is read under it is ours: plain attributes and counters
            return self._look(now)

    def _look(self, now: float) -> Rates:
        samples = self._samples
        if samples and now - samples[-1].at < APART:
            return self._rates
        if samples and now - samples[-1].at > FORGET:
            samples.clear()
        samples.append(self._sample(now))
        while len(samples) > 1 and samples[1].at <= now - WINDOW:
            samples.popleft()
        self._rates = _between(samples[0], samples[-1]) if len(samples) > 1 else Rates(None)
        return self._rates

    def _sample(self, now: float) -> Sample:
        stats = {name: one.stats for name, one in self._resilience.dependencies.items()}
        owners = stats if len(stats) <= MOST else {one.name: one.stats for one in shown(self._resilience.dependencies.values())}
        others: dict[str, int] = {}
        for name, one in stats.items():
            if name not in owners:
                for word, count in one.counts().items():
                    others[word] = others.get(word, 0) + count
        last = self._samples[-1] if self._samples else None
        calls = {name: _fine(name, one, last) for name, one in owners.items()}
        return Sample(now, owners, calls, others, self._resilience.metrics.totals(COUNTED), self.requests.look(now))


def _fine(name: str, stats: CallStats, last: Sample | None) -> Fine:
    """What was counted: the very same as at the last look, where nothing was since. Most dependencies have nothing to do."""
    if last is not None and last.owners.get(name) is stats and last.calls[name][0] == stats.counts():
        return last.calls[name]
    return stats.fine()


def shown(dependencies: Iterable[Any]) -> list[Any]:
    """Those that are shown each for itself: where there are too many, first what is required, then what fails."""
    every = list(dependencies)
    if len(every) > MOST:
        every.sort(key=lambda one: (not one.required, one.state == "closed"))
    return every[:MOST]


def _between(old: Sample, new: Sample) -> Rates:
    seconds = new.at - old.at
    calls = {name: _spread(old.calls[name], fine, seconds) for name, fine in new.calls.items() if old.owners.get(name) is new.owners[name]}
    counted = {
        family: {key: max(count - old.counted[family].get(key, 0.0), 0.0) for key, count in series.items()}
        for family, series in new.counted.items()
    }
    turned_away = max(new.requests[0].get("ignored", 0) - old.requests[0].get("ignored", 0), 0) / seconds
    return Rates(
        seconds,
        calls,
        _spread((old.others, []), (new.others, []), seconds),
        _spread(old.requests, new.requests, seconds),
        turned_away,
        counted,
    )


def _spread(old: Fine, new: Fine, seconds: float) -> Spread:
    if old is new:
        return IDLE
    success, failure = (new[0].get(word, 0) - old[0].get(word, 0) for word in ENDS)
    buckets = list(map(sub, new[1], old[1]))
    if success < 0 or failure < 0 or min(buckets, default=0) < 0:
        return UNKNOWN  # they were reset in between
    total = success + failure
    p50, p95, p99 = (quantile(buckets, share) for share in (0.5, 0.95, 0.99)) if any(buckets) else (None, None, None)
    return Spread(total / seconds, failure / seconds, failure / total if total else None, p50, p95, p99)
