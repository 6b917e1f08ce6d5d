"""Tells at the end how many records of the field's behaviours passed, and how many are skipped with a reason."""

from __future__ import annotations

from collections import Counter

import pytest

from .records import RECORDS, SKIPS, TOLD, named

__all__ = ["count", "tell"]


def count(report: pytest.TestReport) -> None:
    """Note how a test ended that is of a record: one that has several has failed if any of them has."""
    if report.when != "call" and not report.failed:
        return
    for name in named(report.nodeid.partition("[")[2]):
        TOLD[name] = "failed" if report.failed or TOLD.get(name) == "failed" else report.outcome


def tell(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the counts."""
    counts = Counter(TOLD.values())
    told = ", ".join(f"{counts[outcome]} {outcome}" for outcome in ("passed", "failed", "skipped") if counts[outcome])
    terminalreporter.section("behaviours of other systems", sep="-")
    terminalreporter.line(f"{len(RECORDS)} records: {told or 'none run'}; {len(SKIPS)} skipped with a reason")
