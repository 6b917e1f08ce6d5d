"""What a second attempt does to the slowest answers, and what it costs in requests.

    python benchmarks/bench_hedge.py [--calls 1500] [--rate 100] [--seed 1] [--json FILE]

An upstream answers in 10 ms, and one time in twenty in a second. It is asked through httpx at random moments (Poisson
arrivals), on a real event loop with real sleeping; each row is a run of its own with the same seed. A call's time is
counted from the moment it was due, so that a backlog would show.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import random
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from resilient import Dependency, Hedge, standard
from resilient.events import Event, HedgeDecided
from resilient.httpx import AsyncResilientTransport
from resilient.outbox import Outbox

USUAL, SLOW, SHARE = 0.010, 1.0, 0.05
FEWER, MORE = 5.0, 1.07
"""What is claimed: the p99 falls to a fifth or less, for 7 % more requests or less."""
QUANTILES = (50, 95, 99)
MACHINE = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}


@dataclass
class Row:
    """One run."""

    name: str
    seconds: list[float]
    requests: int
    hedges: dict[str, int]

    def quantile(self, percent: int) -> float:
        return statistics.quantiles(self.seconds, n=100)[percent - 1]

    @property
    def amplification(self) -> float:
        return self.requests / len(self.seconds)

    def as_json(self) -> dict[str, Any]:
        times = {f"p{percent}_ms": round(self.quantile(percent) * 1000, 1) for percent in QUANTILES}
        return {"name": self.name, **times, "max_ms": round(max(self.seconds) * 1000, 1), "requests": self.requests, "hedges": self.hedges}


class Upstream(httpx.AsyncBaseTransport):
    """Answers late, one time in twenty."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.asked = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        self.asked += 1
        await asyncio.sleep(SLOW if self.chance.random() < SHARE else USUAL)
        return httpx.Response(200)


class Ends:
    """Counts how hedges end."""

    def __init__(self) -> None:
        self.counts: dict[str, int] = {}

    def on_event(self, event: Event) -> None:
        if isinstance(event, HedgeDecided):
            self.counts[event.result] = self.counts.get(event.result, 0) + 1


async def run(name: str, hedge: Hedge | None, calls: int, rate: float, seed: int) -> Row:
    """Make the calls, each when it is due."""
    upstream, arrivals, ends = Upstream(random.Random(seed)), random.Random(seed + 1), Ends()
    dependency = Dependency("upstream", *standard(hedge=hedge), outbox=Outbox([ends]))
    taken: list[float] = []
    async with httpx.AsyncClient(transport=AsyncResilientTransport(dependency, upstream)) as client:

        async def call(due: float) -> None:
            await asyncio.sleep(max(due - time.monotonic(), 0.0))
            (await client.get("http://upstream/")).raise_for_status()
            taken.append(time.monotonic() - due)

        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            for _ in range(calls):
                due += arrivals.expovariate(rate)
                group.create_task(call(due))
                await asyncio.sleep(max(due - time.monotonic() - 0.05, 0.0))
    return Row(name, taken, upstream.asked, ends.counts)


def main(arguments: Sequence[str] | None = None) -> int:
    """Print the table; 0 if the claim holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--calls", type=int, default=1500)
    parser.add_argument("--rate", type=float, default=100.0, help="calls a second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there, and the table beside it as .txt")
    options: Any = parser.parse_args(arguments)
    kinds = (("no hedge", None), ("Hedge(), at the p95", Hedge()), ("Hedge(delay=0.02)", Hedge(delay=0.02)))
    rows = [asyncio.run(run(name, hedge, options.calls, options.rate, options.seed)) for name, hedge in kinds]
    lines = list(table(rows, options.calls, options.rate))
    print("\n".join(lines))
    if options.json is not None:
        settings = {"calls": options.calls, "rate": options.rate, "seed": options.seed, **MACHINE}
        options.json.write_text(json.dumps({"settings": settings, "rows": [row.as_json() for row in rows]}, indent=1) + "\n")
        options.json.with_suffix(".txt").write_text("\n".join(lines) + "\n")
    return 0 if claim(rows)[1] else 1


def table(rows: list[Row], calls: int, rate: float) -> Iterator[str]:
    """The figures of all rows, and what is claimed of them."""
    yield f"Python {MACHINE['python']}, {MACHINE['cores']} cores, httpx {httpx.__version__}"
    yield f"{calls} calls a row, {rate:g} a second; answers take {USUAL * 1000:g} ms, {SHARE:.0%} of them {SLOW:g} s\n"
    yield f"{'':22}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'max ms':>9}{'requests a call':>18}   hedges"
    for row in rows:
        times = "".join(f"{row.quantile(percent) * 1000:9.1f}" for percent in QUANTILES) + f"{max(row.seconds) * 1000:9.1f}"
        hedges = " ".join(f"{n} {kind}" for kind, n in sorted(row.hedges.items()))
        yield f"{row.name:22}{times}{row.amplification:18.3f}   {hedges}".rstrip()
    fewer, holds = claim(rows)
    more = rows[1].amplification - 1
    yield f"\np99 cut to 1/{fewer:.1f} for {more:.1%} more requests: {'as claimed' if holds else 'NOT as claimed'}"


def claim(rows: list[Row]) -> tuple[float, bool]:
    """To which part the p99 is cut, and whether that and its price are as claimed."""
    bare, hedged, _ = rows
    fewer = bare.quantile(99) / hedged.quantile(99)
    return fewer, fewer >= FEWER and hedged.amplification <= MORE


if __name__ == "__main__":
    sys.exit(main())
