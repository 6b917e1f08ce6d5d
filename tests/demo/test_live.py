from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from rich.console import Console

from resilient.demo.live import Screen, verdict_table
from resilient.demo.recording import PRODUCT, Recording
from resilient.demo.run import Run
from resilient.demo.timeline import Phase, timeline
from resilient.demo.verdict import judge

Record = Callable[[float], Recording]


@dataclass
class FakeLoad:
    sent: int = 0
    in_flight: int = 0
    longest_wait: float = 0.0


@dataclass
class FakeRun:
    """As much of a run as the screen looks at, at a time that the test sets."""

    recording: Recording
    now: float = 0.0
    phase: Phase | None = None
    loads: dict[str, FakeLoad] = field(default_factory=lambda: {"bare": FakeLoad(), "protected": FakeLoad()})

    def clock(self) -> float:
        return self.now


def drawn(screen: Screen, run: FakeRun, width: int = 100) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(screen.draw(cast("Run", run)))
    return cast("io.StringIO", console.file).getvalue()


def until(recording: Recording, now: float) -> Recording:
    """The recording as it was at that time."""
    early = Recording(recording.rate, recording.seconds, recording.seed)
    early.samples = sorted((s for s in recording.samples if s.at + s.latency <= now), key=lambda s: s.at + s.latency)
    early.sightings = [seen for seen in recording.sightings if seen.at <= now]
    return early


def line(text: str, name: str) -> str:
    [found] = [row for row in text.splitlines() if name in row]
    return found


def test_before_the_first_request_there_is_a_screen() -> None:
    text = drawn(Screen(timeline()), FakeRun(Recording(30, 45, 1)))
    assert "warming up" in text
    assert "0 of 45 s" in text


def test_the_screen_shows_both_apps_side_by_side(record: Record) -> None:
    run = FakeRun(until(record(45), 16.0), 16.0, timeline()[1])
    run.loads["bare"] = FakeLoad(500, 120, 4.9)
    text = drawn(Screen(timeline()), run)
    assert "recommendations hang" in text
    assert "16 of 45 s" in text
    assert "0/s, 0%" in line(text, "good answers")
    assert "100%" in line(text, "good answers")
    assert line(text, "p50, p99").count("5.0 s") == 2
    assert "12 ms" in line(text, "p50, p99")
    assert "120, longest 4.9 s" in line(text, "waiting")
    assert "recommendations open" in text
    assert "recommendations static" in text


@pytest.mark.slow
def test_frame_after_frame_shows_the_last_two_seconds_only(record: Record) -> None:
    whole, screen = record(45), Screen(timeline())
    run = FakeRun(Recording(30, 45, 1))
    for second in range(1, 46):
        run.now = float(second)
        run.loads["protected"].sent = second * 30
        fresh = until(whole, run.now)
        run.recording.samples += fresh.samples[len(run.recording.samples) :]
        run.recording.sightings = fresh.sightings
        text = drawn(screen, run)
        if second > 2:
            assert "30" in line(text, "requests/s")
    ended = [s for s in whole.select("protected", PRODUCT) if 43 <= s.at + s.latency <= 45]
    assert f"{len(ended) / 2:.0f}/s, 100%" in line(text, "good answers")
    assert "█▁▁▁" in text.replace(" ", "")  # the history of the bare app, whole


def test_the_screen_fits_a_narrow_terminal(record: Record) -> None:
    run = FakeRun(until(record(45), 40.0), 40.0, timeline()[4])
    text = drawn(Screen(timeline()), run, width=60)
    assert max(len(row) for row in text.splitlines()) <= 60
    assert "recommendations" in text


def test_the_table_ends_with_the_verdict(record: Record) -> None:
    verdict = judge(record(45))
    console = Console(file=io.StringIO(), width=140)
    console.print(verdict_table(verdict))
    text = cast("io.StringIO", console.file).getvalue()
    assert text.rstrip().endswith(verdict.text)
    assert text.count("✓") == len(verdict.rows)
    assert all(row.claim in text for row in verdict.rows)


def test_what_could_not_be_measured_has_a_mark_of_its_own(record: Record) -> None:
    console = Console(file=io.StringIO(), width=100)
    console.print(verdict_table(judge(record(6))))
    text: Any = cast("io.StringIO", console.file).getvalue()
    assert "?" in text
    assert "✗" not in text
