"""The benchmark of hedging runs, and tells what it has counted. Whether the claim holds is for a longer run."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


def test_a_short_run(tmp_path: Path) -> None:
    file = tmp_path / "hedge.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_hedge.py"), "--calls", "120", "--rate", "200", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode in (0, 1), done.stderr
    said = done.stdout.splitlines()
    rows = [line for line in said if line.startswith(("no hedge", "Hedge("))]
    assert len(rows) == 3
    assert rows[0].split()[-1] == "1.000", "one request a call"
    assert file.with_suffix(".txt").read_text() == done.stdout
    figures = json.loads(file.read_text())
    assert figures["settings"]["calls"] == 120
    assert [row["requests"] / 120 for row in figures["rows"]] == pytest.approx([float(row[58:77]) for row in rows], abs=0.001)
    assert said[-1].startswith("p99 cut to 1/")
