"""What a second attempt does to the slowest answers, and what it costs in requests.

    python benchmarks/bench_hedge.py [--calls 1500] [--rate 100] [--seed 1]

An upstream answers in 10 ms, and one time in twenty in a second. It is asked through httpx at random moments (Poisson
arrivals), on a real event loop with real sleeping; each row is a run of its own with the same seed. A call's time is
counted from the moment it was due, so that a backlog would show.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import httpx

from resilient import Dependency, Hedge, standard
from resilient.events import Event, HedgeDecided
from resilient.httpx import AsyncResilientTransport
from resilient.outbox import Outbox

USUAL, SLOW, SHARE = 0.010, 1.0, 0.05
FEWER, MORE = 5.0, 1.07
"""What is claimed: the p99 falls to a fifth or less, for 7 % more requests or less."""


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
    options: Any = parser.parse_args(arguments)
    kinds = (("no hedge", None), ("Hedge(), at the p95", Hedge()), ("Hedge(delay=0.02)", Hedge(delay=0.02)))
    rows = [asyncio.run(run(name, hedge, options.calls, options.rate, options.seed)) for name, hedge in kinds]
    bare, hedged, _ = rows
    print(f"{options.calls} calls a row, {options.rate:g} a second; answers take {USUAL * 1000:g} ms, {SHARE:.0%} of them {SLOW:g} s\n")
    print(f"{'':22}{'p50 ms':>9}{'p95 ms':>9}{'p99 ms':>9}{'max ms':>9}{'requests a call':>18}   hedges")
    for row in rows:
        times = "".join(f"{row.quantile(percent) * 1000:9.1f}" for percent in (50, 95, 99)) + f"{max(row.seconds) * 1000:9.1f}"
        print(f"{row.name:22}{times}{row.amplification:18.3f}   {' '.join(f'{n} {kind}' for kind, n in sorted(row.hedges.items()))}")
    fewer = bare.quantile(99) / hedged.quantile(99)
    holds = fewer >= FEWER and hedged.amplification <= MORE
    print(f"\np99 cut to 1/{fewer:.1f} for {hedged.amplification - 1:.1%} more requests: {'as claimed' if holds else 'NOT as claimed'}")
    return 0 if holds else 1


if __name__ == "__main__":
    sys.exit(main())
