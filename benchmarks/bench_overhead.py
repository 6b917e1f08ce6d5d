"""What a call through `resilient` costs above the same call made bare, and what it costs through other libraries.

    python benchmarks/bench_overhead.py [--seconds 60] [--only CASE ...] [--json FILE]

Every case and library is timed in each of many short rounds, in one process and one event loop. README.md beside this
file says how to read the tables and which choices were made for each library.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import platform
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any

from overhead import ours, tables
from overhead.bare import app, getter, noop, pause, request, wire
from overhead.entry import CASES, YARDSTICK, Case, Entry
from overhead.figures import BARE, BY_HAND, OURS, Result, above, result_of
from overhead.memory import bytes_each
from overhead.rivals import handwritten
from overhead.rounds import Lane, prepare, run_rounds

RIVALS = ("nopanic", "interlock", "pyresilience", "hyx", "grit", "pybreaker", "fluxgate")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it; 0 when every case was timed."""
    options = _options(arguments)
    cases = [case for case in CASES if not options.only or case.name in options.only]
    libraries, skipped = _libraries()
    report = asyncio.run(_measure(cases, libraries, options.seconds, with_memory=not options.only or "memory" in options.only))
    report["skipped"] = skipped
    for line in _lines(report):
        print(line)
    if options.json is not None:
        report["cases"] = [result.as_json() for result in report["cases"]]
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {options.json}")
    return 0


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=60.0, help="how long to measure in all (default 60)")
    names = [*(case.name for case in CASES), "memory"]
    parser.add_argument("--only", action="append", choices=names, metavar="CASE", help=f"{', '.join(names)}; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures there")
    return parser.parse_args(arguments)


def _libraries() -> tuple[dict[str, ModuleType], dict[str, str]]:
    """The modules that yield entries, by library, and why the others are left out."""
    found, skipped = {OURS: ours, BY_HAND: handwritten}, {}
    for library in RIVALS:
        try:
            found[library] = importlib.import_module(f"overhead.rivals.{library}")
        except ModuleNotFoundError as missing:
            skipped[library] = f"no module named {missing.name}"
    return found, skipped


async def _measure(cases: list[Case], libraries: dict[str, ModuleType], seconds: float, *, with_memory: bool) -> dict[str, Any]:
    memory = {}
    if with_memory:  # first, while there is little else on the heap
        for library, module in libraries.items():
            idle = getattr(module, "IDLE", None)
            if idle is not None:
                memory[library] = {"fresh": await bytes_each(idle, touched=False), "touched": await bytes_each(idle, touched=True)}
    timed = list(cases)
    if any(case.single for case in cases) and CASES[0] not in cases:
        timed.insert(0, CASES[0])  # single policies are told minus the empty pipeline
    groups = await _groups(timed, libraries)
    yardstick = [await prepare(BARE, Entry("yardstick", noop)), await prepare(BY_HAND, Entry("yardstick", handwritten.asyncio_timeout))]
    rounds = await run_rounds([yardstick, *groups.values()], seconds)
    pace = statistics.median(above(yardstick[1], yardstick[0])) / YARDSTICK
    empty = _empty(groups.get("empty", []))
    results = [result_of(case, groups[case.name], empty, pace) for case in cases if case.name in groups]
    return {"machine": _machine(libraries), "rounds": rounds, "seconds": seconds, "pace": pace, "cases": results, "memory": memory}


async def _groups(cases: list[Case], libraries: dict[str, ModuleType]) -> dict[str, list[Lane]]:
    """Each case's lanes, the bare call first."""
    entries = [(library, entry) for library, module in libraries.items() for entry in module.entries()]
    groups = {}
    for case in cases:
        bare = _bare(case.name)
        if bare is not None:
            belonging = [(library, entry) for library, entry in entries if entry.case == case.name]
            groups[case.name] = [await prepare(library, entry) for library, entry in [(BARE, bare), *belonging]]
    return groups


def _bare(case: str) -> Entry | None:
    """The bare call of a case, or None where what it needs is not installed."""
    if case in ("middleware", "shed"):
        return Entry(case, request(app))
    if case.startswith("transport_"):
        try:
            module = importlib.import_module(case.removeprefix("transport_"))
        except ModuleNotFoundError:
            return None
        return Entry(case, getter(module, wire(module)))
    return Entry(case, pause if case.endswith("_wait") else noop)


def _empty(group: Iterable[Lane]) -> list[float] | None:
    bare, *lanes = [*group] or [None]
    return next((above(lane, bare) for lane in lanes if bare is not None and lane.library == OURS), None)


def _machine(libraries: dict[str, ModuleType]) -> dict[str, Any]:
    names = [module.DISTRIBUTION for module in libraries.values() if hasattr(module, "DISTRIBUTION")]
    versions = {}
    for name in [*names, "anyio", "httpx", "httpx2", "starlette"]:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "not installed as a distribution"
    return {"python": sys.version.split()[0], "platform": platform.platform(), "cores": os.cpu_count(), "versions": versions}


def _lines(report: dict[str, Any]) -> Iterator[str]:
    machine = report["machine"]
    yield f"Python {machine['python']}, {machine['cores']} cores, {report['rounds']} rounds, added microseconds, medians"
    yield f"pace: {report['pace']:.2f} times slower than the machine of the goals (there asyncio.timeout adds {YARDSTICK} us)"
    yield ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    for library, why in report["skipped"].items():
        yield f"skipped {library}: {why}"
    results: list[Result] = report["cases"]
    for result in results:
        yield from tables.of_result(result)
    if results:
        yield from tables.of_ratios(results)
    if report["memory"]:
        yield from tables.of_memory(report["memory"])


if __name__ == "__main__":
    sys.exit(main())
