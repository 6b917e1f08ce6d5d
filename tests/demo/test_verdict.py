from __future__ import annotations

import json
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from resilient.demo.recording import PING, PRODUCT, Recording, Sample, Sighting, Tally
from resilient.demo.verdict import Row, judge

Record = Callable[[float], Recording]
Spoil = Callable[[Recording], None]


def spoil_samples(phase: str, path: str, share: int, **changes: object) -> Spoil:
    """Changes each `share`-th sample of the protected app in a phase."""

    def spoil(recording: Recording) -> None:
        span = recording.span(phase)
        assert span is not None
        hits = 0
        for index, sample in enumerate(recording.samples):
            if sample.app == "protected" and sample.path == path and span.start <= sample.at < span.end:
                hits += 1
                if hits % share == 0:
                    recording.samples[index] = replace(sample, **changes)  # type: ignore[arg-type]

    return spoil


def keep_open(recording: Recording) -> None:
    recording.sightings[:] = [Sighting(seen.at, dict.fromkeys(seen.breakers, "open"), {}) for seen in recording.sightings]


def close_late(recording: Recording) -> None:
    hang = recording.span("hang")
    assert hang is not None
    late = [
        Sighting(seen.at, {"recommendations": "open" if hang.start + 1 < seen.at < hang.end + 4.5 else "closed"}, {})
        for seen in recording.sightings
    ]
    recording.sightings[:] = late


def never_open(recording: Recording) -> None:
    recording.sightings[:] = [Sighting(seen.at, dict.fromkeys(seen.breakers, "closed"), {}) for seen in recording.sightings]


def storm(recording: Recording) -> None:
    recording.tallies[:] = [
        Tally(tally.at, {"catalog": {"protected": int(tally.calls["catalog"]["protected"] * (1 if tally.at < 20 else 1.4))}})
        for tally in recording.tallies
    ]


def revive_bare(recording: Recording) -> None:
    recording.samples[:] = [replace(sample, status=200) if sample.app == "bare" else sample for sample in recording.samples]


def test_a_run_that_keeps_every_claim_passes(record: Record) -> None:
    verdict = judge(record(45))
    assert [row.claim for row in verdict.rows if row.passed is not True] == []
    assert verdict.passed
    assert verdict.text == f"passed: all {len(verdict.rows)} claims hold"


@pytest.mark.parametrize(
    ("spoil", "claims"),
    [
        pytest.param(spoil_samples("hang", PRODUCT, 50, status=500), ["/product answered 200"], id="hang-errors"),
        pytest.param(spoil_samples("hang", PRODUCT, 200, marked=()), ["what an answer lacks"], id="unmarked"),
        pytest.param(spoil_samples("hang", PRODUCT, 50, latency=0.45), ["/product p99"], id="hang-p99"),
        pytest.param(spoil_samples("hang", PRODUCT, 1, latency=0.03), ["/product p50"], id="hang-p50"),
        pytest.param(spoil_samples("hang", PING, 20, latency=0.2), ["/ping p99"], id="ping"),
        pytest.param(spoil_samples("trickle", PRODUCT, 50, latency=2.0), ["/product p99"], id="trickle-p99"),
        pytest.param(spoil_samples("trickle", PRODUCT, 50, status=0), ["/product answered 200"], id="trickle-errors"),
        pytest.param(spoil_samples("flaky", PRODUCT, 2, status=503), ["/product answered 200; a single try"], id="no-retries"),
        pytest.param(
            spoil_samples("recovered", PRODUCT, 10, absent=("reviews",), marked=("reviews",)),
            ["/product answered 200 with"],
            id="degraded-for-ever",
        ),
        pytest.param(keep_open, ["when it is over, the breaker closes"], id="open-for-ever"),
        pytest.param(never_open, ["when it is over, the breaker closes"], id="never-open"),
        pytest.param(close_late, ["when it is over, the breaker closes"], id="closes-late"),
        pytest.param(storm, ["calls per user request"], id="storm"),
        pytest.param(revive_bare, ["the bare shop collapses"], id="bare-survives"),
    ],
)
def test_each_broken_promise_fails_its_own_claim(record: Record, spoil: Spoil, claims: list[str]) -> None:
    recording = record(45)
    spoil(recording)
    verdict = judge(recording)
    failed = [row.claim for row in verdict.rows if not row.passed]
    assert len(failed) == len(claims)
    assert all(claim.startswith(start) for claim, start in zip(failed, claims, strict=True))
    assert not verdict.passed
    assert verdict.text.startswith(f"failed: {len(claims)} of ")


def test_a_run_too_short_proves_nothing(record: Record) -> None:
    verdict = judge(record(6))
    assert not verdict.passed
    assert any(row.passed is None for row in verdict.rows)
    assert all(row.passed is not False for row in verdict.rows)
    assert verdict.text.startswith("not proved")


def test_a_run_that_was_cut_off_proves_nothing(record: Record) -> None:
    recording = record(45)
    recording.spans.clear()
    recording.samples.clear()
    recording.tallies.clear()
    assert not judge(recording).passed


def test_a_breaker_that_never_closed_is_plain_json(record: Record) -> None:
    recording = record(45)
    keep_open(recording)
    told = json.loads(json.dumps(judge(recording).as_dict(), allow_nan=False))
    [row] = [row for row in told["rows"] if row["claim"].startswith("when it is over")]
    assert row["protected"] == "no end seen"
    assert row["passed"] is False


@pytest.mark.parametrize(
    ("unit", "at_least", "number", "shown"),
    [
        ("share", True, 0.98999, "98.9 %"),
        ("share", True, 0.99, "99 %"),
        ("share", True, 1.0, "100 %"),
        ("share", False, 0.5001, "50.1 %"),
        ("seconds", False, 0.3204, "320 ms"),
        ("seconds", False, 3.9, "3.90 s"),
        ("seconds", False, math.inf, "no end seen"),
        ("ratio", False, 1.2, "1.20"),
        ("ratio", False, None, "–"),
    ],
)
def test_numbers_are_shown_in_their_unit(unit: str, at_least: bool, number: float | None, shown: str) -> None:
    assert Row("", "", 1.0, {}, unit, at_least).show(number) == shown


def test_a_share_is_never_rounded_onto_its_target() -> None:
    row = Row("", "", 0.99, {"protected": 0.98996}, "share", at_least=True)
    assert (row.passed, row.show(row.numbers["protected"]), row.target) == (False, "98.9 %", "≥ 99 %")


def test_the_worst_window_is_the_one_nearest_to_its_own_limit() -> None:
    recording = Recording(30, 45, 1)
    recording.samples += [Sample("protected", PRODUCT, step / 25, 0.01, 200) for step in range(25 * 45)]
    for step in range(90):
        at = step / 2
        calls = 25 * (1.1 * min(at, 20) + 1.4 * max(0.0, at - 20))
        recording.tallies.append(Tally(at, {"catalog": {"protected": round(calls)}, "reviews": {"protected": round(25 * at)}}))
    [row] = judge(recording).rows
    assert row.claim.endswith("(catalog)")
    assert row.limit == pytest.approx(1.2 + 3 / 25)
    assert row.numbers == {"bare": None, "protected": pytest.approx(1.4, abs=0.01)}
    assert row.passed is False


def test_a_busy_machine_is_told_beside_the_verdict(record: Record) -> None:
    recording = record(45)
    assert judge(recording).note == ""
    recording.samples[:] = [replace(sample, latency=sample.latency + 0.1) for sample in recording.samples]
    assert "112 ms or more" in judge(recording).note
