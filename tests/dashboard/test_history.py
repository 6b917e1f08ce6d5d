"""The last minutes, and what happened in them."""

from __future__ import annotations

import math
import os
import threading
from dataclasses import dataclass
from typing import Any

import pytest

from resilient import CircuitBreaker, Resilience
from resilient.dashboard.board import dumped
from resilient.dashboard.guard import TOKENS
from resilient.dashboard.history import POINTS, SHOWN, STEP, History
from resilient.dashboard.journal import KEPT, MOST_CHANGES, Journal
from resilient.dashboard.numbers import rounded
from resilient.dashboard.telling import LONGEST
from resilient.events import (
    BrownoutChanged,
    CacheUsed,
    CircuitChanged,
    ControlUsed,
    Event,
    FeatureChanged,
    FeatureOrdered,
    ReadOnlyChanged,
    ServiceChanged,
    SettingChanged,
)
from resilient.testing import FakeClock


def shown(value: float | None, *names: str) -> dict[str, Any]:
    load = {"in_flight": 1, "shed": value, "requests": value}
    return {"dependencies": [{"name": name, "calls": value, "failures": 0.0, "p95": None} for name in names], "load": load}


def test_a_point_every_two_seconds_however_often_somebody_looks() -> None:
    history = History()
    assert history.document(0.0, 5.0) == {
        "step": STEP,
        "until": 5.0,
        "dependencies": {},
        "load": {"in_flight": [], "shed": [], "requests": []},
    }
    for tick in range(100):
        history.add(shown(float(tick), "shop"), 1000.0 + tick / 10)
    document = history.document(1010.0, 510.0)
    assert document["dependencies"]["shop"]["calls"] == [0.0, 20.0, 40.0, 60.0, 80.0]
    assert document["dependencies"]["shop"]["p95"] == [None] * 5
    assert document["until"] == 508.0


def test_while_nobody_looks_there_is_a_gap_and_one_point_missed_is_none() -> None:
    history = History()
    for at in (0.0, 2.0, 6.1, 20.0):
        history.add(shown(at, "shop"), at)
    assert history.document(20.0, 20.0)["load"]["shed"] == [0.0, 2.0, 6.1, 6.1, *[None] * 6, 20.0]
    history.add(shown(9.0, "shop"), 1e9)
    assert history.document(1e9, 1e9)["load"]["shed"] == [*[None] * (POINTS - 1), 9.0]


def test_it_is_bounded_and_forgets_what_is_gone() -> None:
    history = History()
    names = [f"d{number}" for number in range(SHOWN + 10)]
    for turn in range(POINTS + 50):
        history.add(shown(1.0, *names), turn * STEP)
    document = history.document(0.0, 0.0)
    assert len(document["dependencies"]) == SHOWN
    assert {len(points) for series in document["dependencies"].values() for points in series.values()} == {POINTS}
    history.add(shown(1.0, "d0", "new"), (POINTS + 60) * STEP)
    document = history.document(0.0, 0.0)
    assert list(document["dependencies"]) == ["d0", "new"]
    assert document["dependencies"]["new"]["calls"] == [1.0]


def journal(now: float = 100.0, wall: float = 5000.0) -> Journal:
    made = Journal(lambda: now, lambda: wall)
    made.run = "1a.b"
    return made


def test_the_journal_is_bounded_and_numbers_go_on() -> None:
    kept = journal()
    for number in range(KEPT + 50):
        kept.on_event(CircuitChanged(at=99.0, dependency=f"d{number}", old="closed", new="open", reason="outage"))
    entries = kept.entries()
    assert [entry.number for entry in entries] == list(range(51, KEPT + 51))
    assert entries[-1].document["at"] == 4999.0
    assert kept.cursor(entries) == "1a.b-250"
    assert kept.since(49) is None
    assert kept.since(50) == entries
    assert kept.since(250) == []
    assert kept.since(251) is None
    assert kept.number("1a.b-250") == 250
    for name in ("250", "-250", "1a.c-250", "1a.b-", "1a.b--1", "1a.b-\u0661", "1a.b- 1", "1a.b-1_0"):
        assert kept.number(name) is None


def test_last_transitions_are_bounded_too() -> None:
    kept = journal()
    for number in (0, *range(MOST_CHANGES), 0, MOST_CHANGES):
        kept.on_event(CircuitChanged(at=100.0, dependency=f"d{number}", old="closed", new="open", reason=str(number)))
    assert len(kept.last_changes) == MOST_CHANGES
    assert "d0" in kept.last_changes and "d1" not in kept.last_changes


@dataclass(frozen=True, slots=True, kw_only=True)
class Strange(Event):
    """Of somebody else's."""

    what: str
    why: str = ""
    more: int = 3


TOLD: list[tuple[Event, str, str, str]] = [
    (
        CircuitChanged(at=1, dependency="a", old="closed", new="open", reason="outage", retry_after=5.0),
        "dependency:a",
        "closed -> open (outage, next trial in 5.0 s)",
        "bad",
    ),
    (
        CircuitChanged(at=1, dependency="a", old="open", new="half-open", reason="break_over", key="k"),
        "dependency:a",
        "open -> half-open for k (break_over)",
        "warning",
    ),
    (
        CircuitChanged(at=1, dependency="a", old="half-open", new="closed", reason="recovered"),
        "dependency:a",
        "half-open -> closed (recovered)",
        "info",
    ),
    (
        FeatureChanged(at=1, feature="f", old="full", new="static", cause="operator", by="ann", why="slow"),
        "feature:f",
        "full -> static (operator, by ann: slow)",
        "warning",
    ),
    (FeatureChanged(at=1, feature="f", old="full", new="off", cause="timeout"), "feature:f", "full -> off (timeout)", "bad"),
    (FeatureChanged(at=1, feature="f", old="off", new="full", cause="recovered"), "feature:f", "off -> full (recovered)", "info"),
    (
        FeatureOrdered(at=1, feature="f", what="ordered", level="off", share=0.5, tenant="t"),
        "feature:f",
        "ordered: off for 50% of tenant t",
        "info",
    ),
    (
        FeatureOrdered(at=1, feature="f", what="lifted", level="off", by="bob"),
        "feature:f",
        "lifted: off for 100% of everybody, by bob",
        "info",
    ),
    (ServiceChanged(at=1, old="healthy", new="critical"), "service", "healthy -> critical", "bad"),
    (ServiceChanged(at=1, old="healthy", new="degraded"), "service", "healthy -> degraded", "warning"),
    (ServiceChanged(at=1, old="critical", new="healthy"), "service", "critical -> healthy", "info"),
    (BrownoutChanged(at=1, share=0.5, measured=2.0), "service", "50% of optional work, at 2.00 of what is wanted", "warning"),
    (
        BrownoutChanged(at=1, share=1.0, measured=0.5, enforced=False),
        "service",
        "100% of optional work (shadow), at 0.50 of what is wanted",
        "info",
    ),
    (ReadOnlyChanged(at=1, read_only=True, by="ann"), "service", "writes are refused, by ann", "warning"),
    (ReadOnlyChanged(at=1, read_only=False, enforced=False), "service", "writes are taken (shadow)", "info"),
    (SettingChanged(at=1, key="k", old="1", new="2", source="code"), "setting:k", "1 -> 2 (code)", "warning"),
    (ControlUsed(at=1, action="set_level", about="feature:f", by="ann", told="off"), "feature:f", "set_level (off), by ann", "warning"),
    (ControlUsed(at=1, action="read_only", about="", by="ann", why="w"), "service", "read_only, by ann: w", "warning"),
    (Strange(at=1, dependency="a", what="x" * 100), "dependency:a", f"what={'x' * 50}, more=3", "info"),
]


@pytest.mark.parametrize(("event", "about", "text", "severity"), TOLD, ids=lambda value: str(value)[:40])
def test_events_are_told_in_words(event: Event, about: str, text: str, severity: str) -> None:
    kept = journal(now=1.0)
    kept.on_event(event)
    (entry,) = kept.entries()
    assert entry.document == {"id": 1, "at": 5000.0, "kind": type(event).__name__, "about": about, "text": text, "severity": severity}


def test_words_are_bounded_and_odd_times_are_now() -> None:
    kept = journal()
    for at in (math.inf, -math.inf, math.nan, 1e300, -1e300, 100.0):
        kept.on_event(FeatureOrdered(at=at, feature="f" * 1000, what="ordered", level="off", why="w" * 10_000))
    for entry in kept.entries():
        assert entry.document["at"] == 5000.0
        assert len(entry.document["text"]) == len(entry.document["about"]) == LONGEST
    dumped([entry.document for entry in kept.entries()])


def test_what_comes_with_every_call_is_not_kept() -> None:
    kept = journal()
    kept.on_event(CacheUsed(at=1.0, dependency="a", result="hit"))
    assert kept.heard == 0


def test_many_threads_write_while_others_read() -> None:
    kept = journal()
    start, failures = threading.Barrier(6), []

    def write() -> None:
        start.wait()
        for _ in range(500):
            kept.on_event(ServiceChanged(at=1.0, old="healthy", new="degraded"))

    def read() -> None:
        start.wait()
        for _ in range(500):
            entries = kept.since(max(kept.heard - 10, 0))
            numbers = [entry.number for entry in entries or ()]
            if numbers != sorted(set(numbers)):
                failures.append(numbers)

    threads = [threading.Thread(target=target) for target in (write, write, write, read, read, read)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert not failures
    assert kept.heard == 1500


def test_looks_from_several_threads_are_one_state() -> None:
    resilience = Resilience()
    resilience.dependency("shop", CircuitBreaker())
    resilience.dashboard()
    board: Any = resilience._board
    seen: list[Any] = []

    def look() -> None:
        for _ in range(30):
            board.look_again()
            seen.append(board.look().document["dependencies"][0]["name"])

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert seen == ["shop"] * 120


def test_the_child_of_a_fork_is_another_worker(monkeypatch: pytest.MonkeyPatch, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    resilience.dashboard()
    board: Any = resilience._board
    worker, run = board.worker, board.run
    assert worker["pid"] == os.getpid()
    assert board.worker == worker
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert board.worker["pid"] == 7
    assert board.run != run
    monkeypatch.setattr(os, "getpid", lambda: 8)
    assert board.run.endswith(".8")
    monkeypatch.setattr(os, "getpid", lambda: 7)
    assert board.worker["id"].endswith(":7")
    assert TOKENS.fullmatch(f"{board.run}.{'0' * 64}")


@pytest.mark.parametrize(
    ("number", "expected"), [(None, None), (math.inf, None), (math.nan, None), (0.123456, 0.1235), (123456.0, 123500.0), (0, 0.0)]
)
def test_numbers_are_rounded(number: float | None, expected: float | None) -> None:
    assert rounded(number) == expected
