from __future__ import annotations

from collections.abc import Callable

import pytest

from resilient.demo.load import arrivals
from resilient.demo.recording import PING, PRODUCT, Recording, Sample, Sighting, Span, Tally
from resilient.demo.timeline import timeline

RATE = 30.0
SEED = 7


def _spans(seconds: float) -> list[Span]:
    spans: list[Span] = []
    start = 0.0
    for phase in timeline(seconds):
        spans.append(Span(phase.name, phase.title, start, start + phase.seconds, tuple(phase.faults)))
        start += phase.seconds
    return spans


def _protected(at: float, path: str, span: Span) -> Sample:
    """An app that does all that is claimed."""
    if path == PING:
        return Sample("protected", path, at, 0.003, 200)
    if "catalog" in span.failing and int(at * 1000) % 3 == 0:
        return Sample("protected", path, at, 0.1, 503)
    lost = tuple(name for name in span.failing if name != "catalog")
    slow = bool(lost) and at - span.start < 1.2
    return Sample("protected", path, at, 0.31 if slow else 0.012, 200, "", lost, lost)


def _bare(at: float, path: str, span: Span) -> Sample:
    if path == PRODUCT and span.failing:
        return Sample("bare", path, at, 5.0, 0, "timeout")
    return Sample("bare", path, at, 0.012, 200)


def _record(seconds: float) -> Recording:
    recording = Recording(RATE, seconds, SEED, spans=_spans(seconds))
    for app, behave in (("bare", _bare), ("protected", _protected)):
        for at, target in arrivals(RATE, f"{app} {SEED}"):
            span = next((span for span in recording.spans if span.start <= at < span.end), None)
            if span is None:
                break
            recording.samples.append(behave(at, PING if target == PING else PRODUCT, span))
    hang = recording.span("hang")
    assert hang is not None
    for step in range(int(seconds * 5)):
        at = step / 5
        state = "open" if hang.start + 1 <= at < hang.end + 2.5 else "closed"
        level = "full" if state == "closed" else "static"
        recording.sightings.append(Sighting(at, {"recommendations": state}, {"recommendations": level}))
    for step in range(int(seconds * 2)):
        at = step / 2
        asked = sum(sample.at < at for sample in recording.select("protected", PRODUCT))
        recording.tallies.append(Tally(at, {"catalog": {"bare": asked, "protected": int(asked * 1.15)}}))
    return recording


@pytest.fixture
def record() -> Callable[[float], Recording]:
    """Makes the recording of a run of that length in which all claims hold."""
    return _record
