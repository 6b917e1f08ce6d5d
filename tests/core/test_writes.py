"""Whether writes are taken."""

from __future__ import annotations

from resilient.core.writes import ReadOnly, WriteMode


def test_writes_are_taken_unless_they_are_stopped() -> None:
    mode = WriteMode()
    assert mode.refuses(0) is None
    mode.stop = stop = ReadOnly(by="ann", why="migration")
    assert mode.refuses(1e9) is stop
    assert stop.wait(5) == 30


def test_a_stop_ends_by_itself_and_says_when() -> None:
    mode = WriteMode()
    mode.stop = stop = ReadOnly(until=100.0, retry_after=5)
    assert mode.refuses(99.9) is stop
    assert mode.refuses(100) is None
    assert stop.wait(40) == 60
    assert stop.wait(200) == 0
