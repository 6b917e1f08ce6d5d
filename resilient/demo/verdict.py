"""What the demo claims, each claim judged on the samples of the run and shown with the numbers it was judged by."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .recording import APPS, PING, PRODUCT, good_share, honest_share, percentile

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from .recording import Recording, Sample, Span

    Measure = Callable[[Sequence[Sample]], float | None]

SETTLED = 2.0  # seconds after which a failing feature must be answered from its fallback at once
CLOSES_WITHIN = 4.0
RECOVERED = 0.95  # of the last few dozen requests: one that a busy machine delays beyond a feature's timeout may be among them
WINDOW = 10.0  # seconds over which the retry budget keeps its promise
MIN_SAMPLES = 20  # fewer prove nothing
SLACK = 0.1  # seconds above a feature's timeout that the rest of the page may take
BUSY = 0.025  # seconds that half of the healthy pages take at most where nothing else runs (2 slow cores: 0.012)
PING_SLACK = 0.05  # seconds that the slowest of some hundred pings may vary by on a busy machine


@dataclass(frozen=True)
class Row:
    """One claim and the numbers that decide it.

    Attributes:
        phase: title of the phase that it is about.
        claim: what is claimed.
        limit: what the number is compared with; None if that could not be measured.
        numbers: app -> what was measured, or None where there is nothing to measure.
        unit: "share", "seconds" or "ratio".
        at_least: whether the number must reach the limit or stay within it.
        judged: the app whose number decides.
    """

    phase: str
    claim: str
    limit: float | None
    numbers: Mapping[str, float | None]
    unit: str
    at_least: bool = False
    judged: str = "protected"

    @property
    def passed(self) -> bool | None:
        """Whether the claim holds; None if the run was too short to tell."""
        number = self.numbers[self.judged]
        if number is None or self.limit is None:
            return None
        return number >= self.limit if self.at_least else number <= self.limit

    def show(self, number: float | None) -> str:
        """A number in the claim's unit, rounded away from the limit's side so that no miss looks like a hit."""
        if number is None:
            return "–"
        if self.unit == "share":
            tenths = math.floor(number * 1000 + 1e-9) if self.at_least else math.ceil(number * 1000 - 1e-9)
            return f"{tenths / 10:g} %"
        if self.unit == "seconds":
            return "no end seen" if math.isinf(number) else f"{number * 1000:.0f} ms" if number < 1 else f"{number:.2f} s"
        return f"{number:.2f}"

    @property
    def target(self) -> str:
        """The limit in words."""
        if self.unit == "share" and self.limit == 1.0:
            return self.show(self.limit)
        return f"{'≥' if self.at_least else '≤'} {self.show(self.limit)}"

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON; an infinite number, which JSON lacks, becomes its words."""
        numbers = {app: self.show(number) if number == math.inf else number for app, number in self.numbers.items()}
        names = ("phase", "claim", "target", "limit", "unit", "judged", "passed")
        return {name: getattr(self, name) for name in names} | numbers


@dataclass(frozen=True)
class Verdict:
    """All rows; `passed` only if each of them was measured and holds.

    Attributes:
        rows: the claims.
        note: what the reader should know about the run, or nothing.
    """

    rows: tuple[Row, ...]
    note: str = ""

    @property
    def passed(self) -> bool:
        """Whether the demo shows what it claims."""
        return all(row.passed for row in self.rows)

    def as_dict(self) -> dict[str, Any]:
        """Plain values for JSON."""
        return {"passed": self.passed, "text": self.text, "note": self.note, "rows": [row.as_dict() for row in self.rows]}

    @property
    def text(self) -> str:
        """The verdict in one sentence."""
        failed = sum(row.passed is False for row in self.rows)
        unknown = sum(row.passed is None for row in self.rows)
        if self.passed:
            return f"passed: all {len(self.rows)} claims hold"
        if failed:
            return f"failed: {failed} of {len(self.rows)} claims do not hold"
        return f"not proved: the run was too short to measure {unknown} of {len(self.rows)} claims"


def judge(recording: Recording) -> Verdict:
    """The verdict on a whole run."""
    rows: list[Row] = []
    if hang := recording.span("hang"):
        rows += _failing_feature(recording, hang)
        rows += _hang(recording, hang)
        closed = {"bare": None, "protected": _closed_after(recording, hang)}
        rows.append(Row(hang.title, "when it is over, the breaker closes", CLOSES_WITHIN, closed, "seconds"))
    if flaky := recording.span("flaky"):
        rows.append(_shares(recording, flaky, "/product answered 200; a single try gets about 50 %", 0.55))
    if trickle := recording.span("trickle"):
        rows += _failing_feature(recording, trickle)
    if recovered := recording.span("recovered"):
        middle = (recovered.start + recovered.end) / 2
        rows.append(_recovered(recording, recovered, middle))
    rows.append(_amplification(recording))
    return Verdict(tuple(rows), _note(recording))


def _note(recording: Recording) -> str:
    """A word about a machine that had too little time for the run: it spoils numbers that neither shop answers for."""
    healthy = recording.span("healthy")
    median = percentile(recording.select("bare", PRODUCT, healthy.start, healthy.end), 0.5) if healthy else None
    if median is None or median <= BUSY:
        return ""
    return (
        f"This machine was busy: even while all was healthy, half of the bare shop's answers took {median * 1000:.0f} ms or more. "
        "Run it again when nothing else does, or with a lower --rate."
    )


def _enough(measure: Measure) -> Measure:
    return lambda samples: measure(samples) if len(samples) >= MIN_SAMPLES else None


def _of_each(recording: Recording, measure: Measure, path: str, start: float, end: float) -> dict[str, float | None]:
    return {app: _enough(measure)(recording.select(app, path, start, end)) for app in APPS}


def _percentile(share: float) -> Measure:
    return lambda samples: percentile(samples, share)


def _shares(recording: Recording, span: Span, claim: str, limit: float) -> Row:
    numbers = _of_each(recording, good_share, PRODUCT, span.start, span.end)
    return Row(span.title, claim, limit, numbers, "share", at_least=True)


def _failing_feature(recording: Recording, span: Span) -> list[Row]:
    """What holds whenever an optional dependency fails, in whichever way."""
    honest = _of_each(recording, honest_share, PRODUCT, span.start, span.end) | {"bare": None}
    slowest = _of_each(recording, _percentile(0.99), PRODUCT, span.start, span.end)
    return [
        _shares(recording, span, "/product answered 200", 0.99),
        Row(span.title, "what an answer lacks is what its Degraded header names", 1.0, honest, "share", at_least=True),
        Row(span.title, "/product p99: the feature's timeout + 100 ms", recording.feature_timeout + SLACK, slowest, "seconds"),
    ]


def _hang(recording: Recording, hang: Span) -> list[Row]:
    healthy = recording.span("healthy")
    usual = recording.select("protected", PRODUCT, healthy.start, healthy.end) if healthy else []
    pings = recording.select("protected", PING, healthy.start, healthy.end) if healthy else []
    median, ping = _enough(_percentile(0.5))(usual), _enough(_percentile(0.99))(pings)
    settled = _of_each(recording, _percentile(0.5), PRODUCT, hang.start + SETTLED, hang.end)
    pinged = _of_each(recording, _percentile(0.99), PING, hang.start, hang.end)
    # Whoever asks later may be answered when the fault is over, within the client's patience.
    lost = _of_each(recording, good_share, PRODUCT, hang.start, hang.end - recording.client_timeout) | {"protected": None}
    return [
        Row(hang.title, f"/product p50 from {SETTLED:g} s on: twice the healthy one", median and 2 * median, settled, "seconds"),
        Row(hang.title, "/ping p99: the healthy one + 50 ms", ping and ping + PING_SLACK, pinged, "seconds"),
        Row(hang.title, "the bare shop collapses: its /product answered 200", 0.5, lost, "share", judged="bare"),
    ]


def _closed_after(recording: Recording, fault: Span) -> float | None:
    """Seconds from the end of a fault to the first sighting of a closed breaker that had been open; inf if it never closed."""
    states = list(recording.breaker_states("recommendations"))
    if not any(state == "open" for at, state in states if fault.start <= at < fault.end):
        return math.inf if fault.seconds >= SETTLED else None  # one that never opened did not do its work
    return next((at - fault.end for at, state in states if at >= fault.end and state == "closed"), math.inf)


def _recovered(recording: Recording, span: Span, start: float) -> Row:
    full = _of_each(recording, _undegraded, PRODUCT, start, span.end)
    return Row(span.title, "/product answered 200 with every feature (second half)", RECOVERED, full, "share", at_least=True)


def _undegraded(samples: Sequence[Sample]) -> float | None:
    return sum(sample.full and not sample.marked for sample in samples) / len(samples) if samples else None


def _amplification(recording: Recording) -> Row:
    """The window in which an upstream's calls come closest to what the retry budget allows, or go furthest beyond it."""
    worst: dict[str, tuple[float, float, float, str]] = {}
    for app in APPS:
        found = list(_windows(recording, app))
        if found:
            worst[app] = max(found)
    claim = f"calls per user request in the worst {WINDOW:g} s: 1 + 0.2 + 3/rate"
    ratios = {app: worst[app][1] if app in worst else None for app in APPS}
    _, _, limit, dependency = worst.get("protected", (0, 0, None, "any service"))
    return Row("the whole run", f"{claim} ({dependency})", limit, ratios, "ratio")


def _windows(recording: Recording, app: str) -> list[tuple[float, float, float, str]]:
    """(excess over the limit, ratio, limit, dependency) of each stretch of at least `WINDOW` seconds."""
    users = sorted(sample.at for sample in recording.select(app, PRODUCT))
    windows: list[tuple[float, float, float, str]] = []
    for number, first in enumerate(recording.tallies):
        last = next((tally for tally in recording.tallies[number:] if tally.at - first.at >= WINDOW), None)
        asked = sum(first.at <= at < last.at for at in users) if last else 0
        if last is None or asked < MIN_SAMPLES:
            continue
        limit = 1 + 0.2 + 3 * (last.at - first.at) / asked
        for name in set(first.calls) & set(last.calls):
            ratio = (last.calls[name].get(app, 0) - first.calls[name].get(app, 0)) / asked
            windows.append((ratio - limit, ratio, limit, name))
    return windows
