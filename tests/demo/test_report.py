from __future__ import annotations

import re
from collections.abc import Callable
from html import escape
from html.parser import HTMLParser
from xml.etree import ElementTree

import pytest

from resilient.demo import plots
from resilient.demo.recording import PRODUCT, Recording
from resilient.demo.report import page
from resilient.demo.series import by_second
from resilient.demo.verdict import judge

Record = Callable[[float], Recording]
VOID = {"meta", "link", "br", "img", "input", "hr"}


class Balance(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.links += [value or "" for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture
def html(record: Record) -> str:
    recording = record(45)
    return page(recording, judge(recording))


def test_the_page_is_whole_and_refers_to_nothing_outside(html: str) -> None:
    balance = Balance()
    balance.feed(html)
    assert balance.open == []
    assert balance.links == []
    assert not re.search(r"https?://|@import|url\(|<script", html)
    assert "$" not in html


def test_every_claim_and_its_numbers_are_on_the_page(record: Record) -> None:
    recording = record(45)
    verdict = judge(recording)
    html = page(recording, verdict)
    assert escape(verdict.text) in html
    for row in verdict.rows:
        assert escape(row.claim) in html
        assert all(escape(row.show(number)) in html for number in row.numbers.values())
    assert html.count("✓ holds") == len(verdict.rows)


def test_a_failed_run_says_so(record: Record) -> None:
    recording = record(45)
    recording.sightings.clear()
    html = page(recording, judge(recording))
    assert "failed: 1 of" in html
    assert html.count("✗ fails") == 1


@pytest.mark.slow
@pytest.mark.parametrize("seconds", [5, 6.5, 90])
def test_runs_of_any_length_can_be_drawn(record: Record, seconds: float) -> None:
    recording = record(seconds)
    balance = Balance()
    balance.feed(page(recording, judge(recording)))
    assert balance.open == []


def test_a_run_without_a_single_sample_can_be_drawn() -> None:
    recording = Recording(30, 45, 1)
    assert "not measured" in page(recording, judge(recording))


def test_the_columns_of_a_second_add_up_to_its_answers(record: Record) -> None:
    recording = record(45)
    seconds = by_second(recording, "protected", PRODUCT)
    svg = ElementTree.fromstring(plots.answers(plots.Frame(45, recording.spans), seconds, top=50))
    drawn = dict.fromkeys(("full", "degraded", "failed"), 0.0)
    for rect in svg.iter("rect"):
        if rect.get("class") in drawn:
            drawn[str(rect.get("class"))] += float(rect.get("height") or 0)
    pixels = (plots.HEIGHT - plots.TOP - plots.BOTTOM) / 50
    for kind, height in drawn.items():
        assert height / pixels == pytest.approx(sum(getattr(second, kind) for second in seconds), rel=0.01)


def test_failing_phases_are_shaded_where_they_were(record: Record) -> None:
    recording = record(45)
    frame = plots.Frame(45, recording.spans)
    svg = ElementTree.fromstring(plots.latencies(frame, by_second(recording, "bare", PRODUCT), 0.4))
    bands = [float(rect.get("x") or 0) for rect in svg.iter("rect") if rect.get("class") == "band"]
    assert bands == pytest.approx([frame.x(span.start) for span in recording.spans if span.failing], abs=0.1)


def test_latencies_beyond_the_scale_stay_in_the_plot(record: Record) -> None:
    recording = record(45)
    seconds = by_second(recording, "bare", PRODUCT)
    object.__setattr__(seconds[0].samples[0], "latency", 400.0)
    object.__setattr__(seconds[1].samples[0], "latency", 0.00001)
    svg = ElementTree.fromstring(plots.latencies(plots.Frame(45, recording.spans), seconds))
    heights = [float(point.split(" ")[1]) for path in svg.iter("path") for point in re.split("[ML]", path.get("d") or "")[1:]]
    assert min(heights) >= plots.TOP
    assert max(heights) <= plots.HEIGHT - plots.BOTTOM
