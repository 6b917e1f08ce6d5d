"""The benchmark of overload runs against a real server, and draws. Whether the claims hold is for a longer run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SHORTER = """
import bench_overload as bench
from overload import load

bench.SETTLE, bench.PROBE, load.PATIENCE = 0.2, 0.2, 0.8
capacity = bench.Generator.capacity
bench.Generator.capacity = lambda generator, seconds: capacity(generator, bench.PROBE)
raise SystemExit(bench.main())
"""
"""The program, whose figures nobody will believe: neither what looks for the capacity nor a client's patience takes seconds."""


@pytest.mark.parametrize("sync", [[], ["--sync"]])
def test_a_short_run(sync: list[str], tmp_path: Path) -> None:
    figures, picture = tmp_path / "overload.json", tmp_path / "overload.svg"
    short = ["--seconds", "0.8", "--burn", "0.02", "--only", "ours", "--recovery", "0.3"]
    command = [sys.executable, "-c", SHORTER, *short, *sync, "--json", str(figures), "--svg", str(picture)]
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=100, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(figures.read_text())
    rows = told["apps"]["ours"]
    assert [row["factor"] for row in rows] == [0.5, 1.0, 1.5, 3.0, 5.0]
    assert all(row["goodput"] > 0 for row in rows)
    assert rows[-1]["shed"] > 0
    assert len(told["verdicts"]) == 5
    assert ElementTree.parse(picture).getroot().tag.endswith("svg")
