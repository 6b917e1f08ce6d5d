"""The benchmark of the cache runs, and a full store takes no more memory than it may; its speed is not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
MOST = 1.05  # of its bound


def told(tmp_path: Path, *arguments: str) -> dict[str, Any]:
    command = [sys.executable, str(ROOT / "benchmarks" / "bench_cache.py"), *arguments, "--json", str(tmp_path / "figures.json")]
    done = subprocess.run(command, capture_output=True, text=True, timeout=110, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    figures: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    return figures


@pytest.mark.slow
def test_a_short_run(tmp_path: Path) -> None:
    figures = told(tmp_path, "--seconds", "0.5", "--only", "hit_httpx", "--only", "refresh", "--only", "hit_10")
    rows = {(row["case"], row["name"]) for row in figures["rows"]}
    assert {("hit_httpx", "MemoryStore"), ("refresh", "MemoryStore"), ("hit_10", "MemoryStore"), ("hit_10", "SQLiteStore")} <= rows
    assert figures["rounds"] >= 3 and figures["pace"] > 0


@pytest.mark.slow
def test_memory_keeps_to_its_bound_under_random_sizes(tmp_path: Path) -> None:
    bounds = told(tmp_path, "--only", "bound")["bounds"]
    assert {bound["kind"] for bound in bounds} == {"small", "even", "skewed"}
    for bound in bounds:
        assert bound["real"][1] <= MOST, bound
        assert bound["counted"][1] <= 1.0, bound
