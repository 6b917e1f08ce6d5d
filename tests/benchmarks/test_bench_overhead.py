"""The overhead benchmark runs and has a row of ours for each case; its figures are not judged here."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
CASES = {
    "adaptive",
    "throttle",
    "empty",
    "breaker",
    "breaker_keyed",
    "breaker_open",
    "bulkhead",
    "ratelimit",
    "retry",
    "failover",
    "fallback",
    "chaos",
    "deadline",
    "deadline_wait",
    "hedge",
    "stack",
    "stack_deadline",
    "stack_deadline_wait",
    "transport_httpx2",
    "transport_httpx",
    "middleware",
    "shed",
}


SHORTER = "import bench_overhead as bench; from overhead import rounds; rounds.WARM_UP = 30; bench.main()"
"""The program, whose figures nobody will believe: a hundred loops are hardly warmed up."""


def run_bench(*arguments: str) -> str:
    """What the benchmark prints."""
    command = [sys.executable, "-c", SHORTER, "--seconds", "0.1", *arguments]
    path = os.pathsep.join([str(ROOT), str(ROOT / "benchmarks")])
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env={**os.environ, "PYTHONPATH": path})
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    file = tmp_path_factory.mktemp("bench") / "overhead.json"
    printed = run_bench("--json", str(file))
    return {"printed": printed, **json.loads(file.read_text())}


def test_every_case_has_a_row_of_ours(report: dict[str, Any]) -> None:
    with_ours = {case["case"]["name"] for case in report["cases"] if case["rows"] and case["rows"][0]["library"] == "resilient"}
    assert with_ours == CASES


def test_every_row_has_a_spread_around_its_median(report: dict[str, Any]) -> None:
    for case in report["cases"]:
        for row in case["rows"]:
            assert row["added"]["p10"] <= row["added"]["median"] <= row["added"]["p90"], row


def test_single_policies_are_told_without_the_empty_pipeline_too(report: dict[str, Any]) -> None:
    for case in report["cases"]:
        assert (case["rows"][0]["net"] is not None) is case["case"]["single"], case["case"]["name"]


def test_each_missing_rival_is_named(report: dict[str, Any]) -> None:
    for library in report["skipped"]:
        assert f"skipped {library}:" in report["printed"]
    assert {"nopanic", "interlock", "pyresilience", "hyx", "grit", "pybreaker", "fluxgate"} == set(report["skipped"]) | set(
        report["memory"]
    ) - {"resilient"}


def test_memory_of_an_idle_breaker_is_told_fresh_and_touched(report: dict[str, Any]) -> None:
    ours = report["memory"]["resilient"]
    # A pybreaker subclass cannot be smaller than its bare state, and one that kept a timestamp a call would be larger.
    assert 300 < ours["fresh"] <= ours["touched"] + 100 < 10_000


def test_only_times_what_was_asked_for() -> None:
    printed = run_bench("--only", "bulkhead")
    assert "\nbulkhead: " in printed
    assert "\nbreaker: " not in printed
    assert "\nmemory: " not in printed
