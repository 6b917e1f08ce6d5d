"""An app under more load than it bears, with admission and without.

    python benchmarks/bench_overload.py [--burn 0.01] [--seconds 8] [--sync] [--json FILE] [--svg FILE]

uvicorn serves an app whose handler burns CPU, in a process of its own; requests come at random moments (Poisson, open loop)
at 0.5 to 5 times the measured capacity. A quarter of them is critical, a quarter sheddable_plus, a half sheddable. A client waits for
two seconds; what counts as good is a 200 until then, and a time begins when the request was due.

A shared machine is not as fast in one second as in the next. So the capacity is measured anew around each step, by a few callers
who ask again as soon as they are answered; the step's rate is in terms of what was measured before it, and its goodput and its
times are told in terms of the mean of both as well. `useful` needs no such help: the share of the server's CPU time that went into
answers that counted.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import platform
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from overload.load import Generator, Load
from overload.plot import plot

FACTORS = (0.5, 1.0, 1.5, 3.0, 5.0)
SETTLE = 2.0
"""Seconds at the beginning of a step that are not counted: of critical requests, a burst of a second is waited out."""
PROBE = 1.5
"""Seconds for which the capacity is measured."""
RECOVERY = 6.0
"""Seconds for which is looked how the app recovers, at 0.3 times its capacity."""
MACHINE = {"python": platform.python_version(), "platform": platform.platform(), "cores": os.cpu_count()}


@contextlib.contextmanager
def served(mode: str, burn: float) -> Iterator[tuple[int, int]]:
    """The app in a process of its own: the port it listens on, and its number."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    here = Path(__file__).parent
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(here), str(here.parent), os.environ.get("PYTHONPATH", "")])}
    process = subprocess.Popen([sys.executable, "-m", "overload.app", str(port), str(burn), mode], env=environment)
    try:
        for _ in range(200):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
                break
            time.sleep(0.05)
        yield port, process.pid
    finally:
        process.kill()
        process.wait()


def quantile(seconds: list[float], percent: int) -> float | None:
    """In milliseconds; None of too few."""
    return round(statistics.quantiles(seconds, n=100)[percent - 1] * 1000, 1) if len(seconds) > 1 else None


def judged(load: Load, factor: float) -> dict[str, Any]:
    """The figures of one step, its beginning left out."""
    answers = [answer for answer in load.answers if answer.due >= SETTLE]
    good = [answer for answer in answers if answer.status == 200]
    critical = [answer for answer in answers if answer.criticality == "critical"]
    times = [answer.seconds for answer in good]
    return {
        "factor": factor,
        "rate": round(load.rate, 1),
        "goodput": round(len(good) / (load.seconds - SETTLE), 1),
        "p50_ms": quantile(times, 50),
        "p99_ms": quantile(times, 99),
        "critical_served": round(sum(answer.status == 200 for answer in critical) / max(len(critical), 1), 4),
        "shed": sum(answer.status == 503 for answer in answers),
        "gone": sum(answer.status == 0 for answer in answers) + load.unsent,
        "shed_p99_ms": quantile([answer.seconds for answer in answers if answer.status == 503], 99),
    }


def recovered(load: Load, usual_ms: float) -> float:
    """When the first whole second began of which all was served, in three times the usual or less; or how long was looked."""
    bad = [answer.due for answer in load.answers if answer.status != 200 or answer.seconds * 1000 > 3 * usual_ms]
    begins = [0.0, *sorted(bad)]
    ends = [*begins[1:], load.seconds]
    return round(next((begin for begin, end in zip(begins, ends, strict=True) if end - begin >= 1), load.seconds), 2)


def cpu_seconds(process: int) -> float:
    """CPU time that a process has taken (Linux)."""
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def measured(port: int, process: int, burn: float, seconds: float, recovery: float) -> list[dict[str, Any]]:
    """One app at all rates."""
    rows: list[dict[str, Any]] = []
    first = before = await Generator(port).capacity(PROBE)
    for factor in FACTORS:
        generator = Generator(port)
        capacity, taken = before, cpu_seconds(process)
        load = await generator.run(factor * capacity, seconds)
        taken = cpu_seconds(process) - taken
        row = judged(load, factor)
        row["useful"] = round(sum(answer.status == 200 for answer in load.answers) * burn / taken, 3)
        if factor >= 3:
            row["recovery_s"] = recovered(await generator.run(0.3 * capacity, recovery), rows[0]["p99_ms"] or 0.0)
        # An app that has yet to recover is not slow.
        before = max(await Generator(port).capacity(PROBE), first / 2)
        mean = (capacity + before) / 2
        row["of_capacity"] = round(row["goodput"] / mean, 3)
        row["p99_services"] = None if row["p99_ms"] is None else round(row["p99_ms"] * mean / 1000, 1)
        rows.append(row)
        print(json.dumps(row), flush=True)
    return rows


def verdicts(rows: list[dict[str, Any]]) -> dict[str, bool]:
    """What is claimed, and whether it holds."""
    by = {row["factor"]: row for row in rows}
    best = max(row["of_capacity"] for row in rows)
    p99 = by[0.5]["p99_services"]
    return {
        "goodput at 3x is 90 % of the best or more": by[3.0]["of_capacity"] >= 0.9 * best,
        "goodput at 5x is 80 % of the best or more": by[5.0]["of_capacity"] >= 0.8 * best,
        "p99 of what is served is three times that at 0.5x or less": all(row["p99_services"] <= 3 * p99 for row in rows if row["p99_ms"]),
        "99 % of critical requests are served at 3x": by[3.0]["critical_served"] >= 0.99,
        "recovered within 5 s": all(row.get("recovery_s", 0.0) <= 5 for row in rows),
    }


def main() -> int:
    """The command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--burn", type=float, default=0.01, help="seconds of CPU time that a request takes")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each step")
    parser.add_argument("--recovery", type=float, default=RECOVERY, help="seconds for which is looked how the app recovers")
    parser.add_argument("--sync", action="store_true", help="the handler is a plain function, run in threads")
    parser.add_argument("--only", choices=["bare", "ours"], help="one of the two apps")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--svg", type=Path)
    asked = parser.parse_args()
    suffix = "-sync" if asked.sync else ""
    with served("bare" + suffix, asked.burn) as (port, _):
        capacity = asyncio.run(Generator(port).capacity(3.0))
    print(f"capacity: {capacity:.1f} requests a second at {asked.burn * 1000:g} ms each")
    apps: dict[str, list[dict[str, Any]]] = {}
    for app in ("ours", "bare"):
        if asked.only in (None, app):
            print(app)
            with served(app + suffix, asked.burn) as (port, process):
                apps[app] = asyncio.run(measured(port, process, asked.burn, asked.seconds, asked.recovery))
    found = verdicts(apps["ours"]) if "ours" in apps else {}
    for claim, holds in found.items():
        print("yes" if holds else "NO ", claim)
    if asked.json:
        figures = {"machine": MACHINE, "burn_s": asked.burn, "sync": asked.sync, "capacity": round(capacity, 1)}
        asked.json.write_text(json.dumps({**figures, "apps": apps, "verdicts": found}, indent=1) + "\n")
    if asked.svg:
        asked.svg.write_text(plot(apps, capacity, asked.burn))
    return 0 if all(found.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
