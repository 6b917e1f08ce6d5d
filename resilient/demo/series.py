"""A recording as time series, for plots: what happened in each second."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

from .recording import percentile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .recording import Recording, Sample


@dataclass
class Second:
    """The requests that were meant to start in one second."""

    at: int
    samples: list[Sample] = field(default_factory=list)

    @property
    def full(self) -> int:
        """Answered 200 with every feature."""
        return sum(sample.full for sample in self.samples)

    @property
    def degraded(self) -> int:
        """Answered 200 without some feature."""
        return sum(sample.good and not sample.full for sample in self.samples)

    @property
    def failed(self) -> int:
        """Answered with an error, or not in time."""
        return sum(not sample.good for sample in self.samples)

    @property
    def median(self) -> float | None:
        """Seconds that half of the requests took at most."""
        return percentile(self.samples, 0.5)

    @property
    def slowest(self) -> float | None:
        """Seconds that the slowest request took; of some thirty requests there is no 99th percentile."""
        return percentile(self.samples, 1.0)


def by_second(recording: Recording, app: str, path: str) -> list[Second]:
    """Every second of the run, empty ones included."""
    seconds = [Second(at) for at in range(math.ceil(recording.seconds))]
    for sample in recording.select(app, path):
        seconds[int(sample.at)].samples.append(sample)
    return seconds


def call_rates(recording: Recording, app: str) -> dict[str, list[tuple[float, float]]]:
    """Upstream -> (time, requests a second from that app), over each two seconds of tallies."""
    rates: dict[str, list[tuple[float, float]]] = {}
    tallies = [tally for tally in recording.tallies if tally.at <= recording.seconds]
    for before, after in zip(tallies, tallies[4:], strict=False):
        for name in after.calls.keys() & before.calls.keys():
            calls = after.calls[name].get(app, 0) - before.calls[name].get(app, 0)
            rates.setdefault(name, []).append(((before.at + after.at) / 2, calls / (after.at - before.at)))
    return dict(sorted(rates.items()))


def stretches(values: Sequence[tuple[float, Mapping[str, str]]], end: float) -> dict[str, list[tuple[float, float, str]]]:
    """Name -> (from, to, value) without a break, from sightings of what each name's value was."""
    found: dict[str, list[tuple[float, float, str]]] = {}
    for (at, seen), (until, _) in pairwise([*values, (end, {})]):
        for name, value in seen.items():
            ribbon = found.setdefault(name, [])
            if ribbon and ribbon[-1][1:] == (at, value):
                ribbon[-1] = (ribbon[-1][0], until, value)
            else:
                ribbon.append((at, until, value))
    return found
