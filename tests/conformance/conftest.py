"""Tells at the end how many records of the field's behaviours passed, and how many are skipped with a reason."""

from __future__ import annotations

from collections import Counter

import pytest

from .records import RECORDS, SKIPS, TOLD


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    name = report.nodeid.rpartition("[")[2].rstrip("]")
    if name in RECORDS and (report.when == "call" or report.failed):
        TOLD[name] = "failed" if report.failed or TOLD.get(name) == "failed" else report.outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    counts = Counter(TOLD.values())
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome])
    later = sum(reason == "not yet run" for reason in SKIPS.values())
    terminalreporter.section("behaviours of other systems", sep="-")
    terminalreporter.line(f"{len(RECORDS)} records: {told or 'none run'}; {len(SKIPS)} skipped with a reason, of which {later} not yet run")
