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
        net_ratio: Our net median divided by this one's, which has nothing taken off.
    """

    library: str
    variant: str
    lacks: str
    added: Spread
    net: Spread | None = None
    ratio: float | None = None
    net_ratio: float | None = None


@dataclass
class Result:
    """A case's rows, ours first, and what is to be said of them.

    Attributes:
        ahead: No rival that does the same work adds less; `ahead_net`: less than ours minus the empty pipeline.
        reached: The goal is met on this machine; `reached_at_pace`: at the pace of the machine it was set for.
    """

    case: Case
    bare: Spread
    rows: list[Row]
    verdicts: list[str] = field(default_factory=list)
    ahead: bool | None = None
    ahead_net: bool | None = None
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
    rows: list[Row] = []
    mine: Row | None = None
    for lane in sorted(lanes, key=lambda lane: (lane.library != OURS, lane.library == BY_HAND)):
        added = above(lane, bare)
        spread = Spread.of(added)
        if lane.library == OURS:
            net = [whole - part for whole, part in zip(added, empty, strict=True)] if case.single and empty is not None else None
            row = Row(OURS, lane.entry.variant, lane.entry.lacks, spread, None if net is None else Spread.of(net))
            mine = mine or row
        else:
            row = _compared(lane, spread, mine)
        rows.append(row)
    result = Result(case, Spread.of(bare.samples), rows)
    if mine is not None:
        _judge(result, mine, pace)
    return result


def _compared(lane: Lane, spread: Spread, mine: Row | None) -> Row:
    ratio = net_ratio = None
    if mine is not None and spread.median > 0:
        ratio = mine.added.median / spread.median
        net_ratio = None if mine.net is None else mine.net.median / spread.median
    return Row(lane.library, lane.entry.variant, lane.entry.lacks, spread, None, ratio, net_ratio)


def _judge(result: Result, mine: Row, pace: float) -> None:
    rivals = [row for row in result.rows if row.library not in (OURS, BY_HAND)]
    whole = [(row, row.ratio) for row in rivals if row.ratio is not None]
    net = [(row, row.net_ratio) for row in rivals if row.net_ratio is not None]
    result.ahead, said = _claim(whole)
    result.verdicts.append(f"as called: {said}" if net else said)
    if net:
        result.ahead_net, said = _claim(net)
        result.verdicts.append(f"minus the empty pipeline: {said}")
    goal = result.case.goal
    if goal is not None:
        median = (mine.net or mine.added).median
        result.reached, result.reached_at_pace = median <= goal, median / pace <= goal
        here, there = ("reached" if reached else "MISSED" for reached in (result.reached, result.reached_at_pace))
        counted = "minus the empty pipeline " if mine.net else ""
        result.verdicts.append(f"goal {goal:g} us {counted}{here} here: {median:.2f}; {there} at the goals' pace: {median / pace:.2f}")


def _claim(rivals: list[tuple[Row, float]]) -> tuple[bool | None, str]:
    """Whether no rival that does the same work is ahead of us, and the same in words."""
    if not rivals:
        return None, "no rival at hand to compare with"
    same = [(row, ratio) for row, ratio in rivals if not row.lacks]
    ahead_of_us = sorted(((row, ratio) for row, ratio in rivals if ratio > 1), key=lambda pair: -pair[1])
    ahead = all(ratio <= 1 for _, ratio in same)
    if not ahead_of_us:
        said = "ahead of every rival"
    elif ahead:
        said = "ahead of every rival that does the same work" if same else "behind rivals that do less"
    else:
        said = "BEHIND a rival that does the same work"
    if same:
        said += f" (nearest: {_named(*max(same, key=lambda pair: pair[1]))})"
    if ahead_of_us:
        said += "; behind " + ", ".join(_named(row, ratio) for row, ratio in ahead_of_us)
    return ahead, said


def _named(row: Row, ratio: float) -> str:
    name = f"{row.library} ({row.variant})" if row.variant else row.library
    return f"{name} x{ratio:.2f}" + (f" [{row.lacks}]" if row.lacks else "")
