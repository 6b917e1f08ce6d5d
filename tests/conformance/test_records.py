from __future__ import annotations

from pathlib import Path

from .records import RECORDS, RUN, SKIPS, named

TESTS = Path(__file__).parents[1]


def test_every_record_is_run_or_skipped_with_a_reason() -> None:
    elsewhere = set().union(*(named(path.read_text()) for path in TESTS.glob("*/test_*.py") if path.parent.name != "conformance"))
    missing = [name for name in RECORDS if name not in SKIPS and name not in elsewhere and name.split("-")[0] not in RUN]
    assert missing == []


def test_a_reason_belongs_to_a_record_and_is_one_line() -> None:
    assert set(SKIPS) <= set(RECORDS)
    for reason in SKIPS.values():
        assert reason.strip() and "\n" not in reason
