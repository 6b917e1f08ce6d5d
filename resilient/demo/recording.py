"""All that was seen in a run, as plain data: what the verdict, the live view and the report are computed from."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .timeline import CLIENT_TIMEOUT, FEATURE_TIMEOUT

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

APPS = ("bare", "protected")
PRODUCT = "/product"
PING = "/ping"


@dataclass(frozen=True, slots=True)
class Sample:
    """One request of the load.

    Attributes:
        app: who was asked, one of `APPS`.
        path: `PRODUCT` or `PING`.
        at: intended start in seconds since the run began. A request that starts late because the load is behind
            counts from here all the same, or a stalled server would hide its own stall.
        latency: seconds from `at` to the last byte of the answer, or to the end of the client's patience.
        status: HTTP status, or 0 if no answer came.
        error: why no answer came: "timeout", "refused", "broken" or "dropped" (too many in flight).
        marked: features that the `Degraded` header names.
        absent: features whose list in the body is empty.
    """

    app: str
    path: str
    at: float
    latency: float
    status: int
    error: str = ""
    marked: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Answered 200 in time."""
        return self.status == 200

    @property
    def full(self) -> bool:
        """Good, with every feature."""
        return self.good and not self.absent


@dataclass(frozen=True, slots=True)
class Span:
    """When a phase really began and ended, by the answers of the upstreams to the switch, and which of them were failing."""

    name: str
    title: str
    start: float
    end: float
    failing: tuple[str, ...] = ()

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return self.end - self.start


@dataclass(frozen=True, slots=True)
class Sighting:
    """The protected app's own word on /metrics: dependency -> breaker state, feature -> level. Empty if it did not answer."""

    at: float
    breakers: Mapping[str, str]
    features: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Tally:
    """Requests that each upstream has counted so far: dependency -> app -> number."""

    at: float
    calls: Mapping[str, Mapping[str, int]]


@dataclass
class Recording:
    """A run so far; the load and the observers append to it.

    Attributes:
        rate: requests a second to each app.
        seconds: how long the timeline is.
        seed: of the arrivals.
        client_timeout: seconds after which a user gave up.
        feature_timeout: seconds that the protected app gives an optional feature.
        processes: name -> process id.
    """

    rate: float
    seconds: float
    seed: int
    client_timeout: float = CLIENT_TIMEOUT
    feature_timeout: float = FEATURE_TIMEOUT
    spans: list[Span] = field(default_factory=list)
    samples: list[Sample] = field(default_factory=list)
    sightings: list[Sighting] = field(default_factory=list)
    tallies: list[Tally] = field(default_factory=list)
    processes: dict[str, int] = field(default_factory=dict)

    def span(self, name: str) -> Span | None:
        """The phase of that name, or None if the run did not come so far."""
        return next((span for span in self.spans if span.name == name), None)

    def select(self, app: str, path: str, start: float = -math.inf, end: float = math.inf) -> list[Sample]:
        """The samples of one app and path with an intended start in [start, end)."""
        return [sample for sample in self.samples if sample.app == app and sample.path == path and start <= sample.at < end]

    def breaker_states(self, dependency: str) -> Iterator[tuple[float, str]]:
        """(time, state) of each sighting of a breaker, oldest first."""
        return ((sighting.at, sighting.breakers[dependency]) for sighting in self.sightings if dependency in sighting.breakers)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; samples are rows under their column names, for there are thousands of them."""
        columns = ("app", "path", "at", "latency", "status", "error", "marked", "absent")
        return {
            "rate": self.rate,
            "seconds": self.seconds,
            "seed": self.seed,
            "processes": self.processes,
            "client_timeout": self.client_timeout,
            "feature_timeout": self.feature_timeout,
            "phases": [asdict(span) for span in self.spans],
            "samples": {"columns": columns, "rows": [[getattr(sample, column) for column in columns] for sample in self.samples]},
            "sightings": [asdict(seen) for seen in self.sightings],
            "tallies": [asdict(tally) for tally in self.tallies],
        }


def percentile(samples: Sequence[Sample], share: float) -> float | None:
    """The latency that `share` of the samples do not exceed (nearest rank, so it is one that occurred); None without samples."""
    if not samples:
        return None
    latencies = sorted(sample.latency for sample in samples)
    return latencies[max(0, math.ceil(share * len(latencies)) - 1)]


def good_share(samples: Sequence[Sample]) -> float | None:
    """The share of requests that were answered 200 in time; None without samples."""
    return sum(sample.good for sample in samples) / len(samples) if samples else None


def full_share(samples: Sequence[Sample]) -> float | None:
    """The share of requests that were answered 200 with every feature; None without samples."""
    return sum(sample.full for sample in samples) / len(samples) if samples else None


def honest_share(samples: Iterable[Sample]) -> float | None:
    """The share of answers whose `Degraded` header names exactly the features that their body lacks; None without answers."""
    answers = [sample for sample in samples if sample.good]
    return sum(set(sample.marked) == set(sample.absent) for sample in answers) / len(answers) if answers else None
