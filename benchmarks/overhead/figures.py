"""From samples to figures: medians, spreads, ratios and verdicts."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from overhead.entry import Case
from overhead.rounds import Lane

BARE = "bare"
OURS = "resilient"
BY_HAND = "by hand"


@dataclass(frozen=True)
class Spread:
    """Median, 10th and 90th percentile over the rounds, in microseconds."""

    median: float
    p10: float
    p90: float

    @classmethod
    def of(cls, samples: Sequence[float]) -> Spread:
        """The spread of `samples`, of which there are at least three."""
        deciles = statistics.quantiles(samples, n=10, method="inclusive")
        return cls(statistics.median(samples), deciles[0], deciles[-1])


@dataclass(frozen=True)
class Row:
    """What one entry adds to the bare call.

    Attributes:
        added: Above the bare call of the same round.
        net: The same minus what the empty pipeline adds in that round; ours only, and only for single policies.
        ratio: Our median divided by this one's.
    """

    library: str
    variant: str
    lacks: str
    added: Spread
    net: Spread | None = None
    ratio: float | None = None


@dataclass
class Result:
    """A case's rows, ours first, and what is to be said of them."""

    case: Case
    bare: Spread
    rows: list[Row]
    verdicts: list[str] = field(default_factory=list)
    ahead: bool | None = None
    reached: bool | None = None
    reached_at_pace: bool | None = None

    def as_json(self) -> dict[str, Any]:
        """Everything as plain dicts."""
        return asdict(self)


def above(lane: Lane, bare: Lane) -> list[float]:
    """What the lane's entry added in each round."""
    return [with_it - without for with_it, without in zip(lane.samples, bare.samples, strict=True)]


def result_of(case: Case, group: Sequence[Lane], empty: Sequence[float] | None, pace: float) -> Result:
    """The result of one case.

    Args:
        case: The case.
        group: Its lanes, the bare one first.
        empty: What our empty pipeline added in each round.
        pace: How many times slower this machine is than the one for which the goals were set.
    """
    bare, *lanes = group
    mine = next((statistics.median(above(lane, bare)) for lane in lanes if lane.library == OURS), None)
    rows = []
    for lane in lanes:
        added = above(lane, bare)
        spread = Spread.of(added)
        net = None
        if lane.library == OURS and case.single and empty is not None:
            net = Spread.of([whole - part for whole, part in zip(added, empty, strict=True)])
        ratio = None if mine is None or lane.library == OURS or spread.median <= 0 else mine / spread.median
        rows.append(Row(lane.library, lane.entry.variant, lane.entry.lacks, spread, net, ratio))
    rows.sort(key=lambda row: (row.library != OURS, row.library == BY_HAND))
    result = Result(case, Spread.of(bare.samples), rows)
    _judge(result, pace)
    return result


def _judge(result: Result, pace: float) -> None:
    ours = [row for row in result.rows if row.library == OURS]
    if not ours:
        return
    rivals = [row for row in result.rows if row.ratio is not None and row.library != BY_HAND]
    result.verdicts = [_claim(result, rivals), *_goal(result, ours[0], pace)]


def _claim(result: Result, rivals: list[Row]) -> str:
    if not rivals:
        return "no rival does anything like it"
    same = [row for row in rivals if not row.lacks]
    behind = [row for row in rivals if row.ratio is not None and row.ratio > 1]
    result.ahead = not any(row in same for row in behind)
    if not behind:
        said = "ahead of every rival" + ("" if same else ", none of which does the same work")
    elif result.ahead:
        said = "ahead of every rival that does the same work" if same else "no rival does the same work"
    else:
        said = "BEHIND a rival that does the same work"
    if behind:
        said += "; behind " + ", ".join(_named(row) for row in behind)
    nearest = max(same or rivals, key=lambda row: row.ratio or 0.0)
    return f"{said}; nearest{' at the same work' if same else ''}: {_named(nearest)}"


def _named(row: Row) -> str:
    name = f"{row.library} ({row.variant})" if row.variant else row.library
    return f"{name} x{row.ratio:.2f}" + (f" [{row.lacks}]" if row.lacks else "")


def _goal(result: Result, ours: Row, pace: float) -> list[str]:
    goal = result.case.goal
    if goal is None:
        return []
    median = (ours.net or ours.added).median
    result.reached, result.reached_at_pace = median <= goal, median / pace <= goal
    counted = "minus the empty pipeline " if ours.net else ""
    here, there = ("reached" if reached else "MISSED" for reached in (result.reached, result.reached_at_pace))
    return [f"goal {goal:g} us {counted}{here} here: {median:.2f}; {there} at the goals' pace: {median / pace:.2f}"]
