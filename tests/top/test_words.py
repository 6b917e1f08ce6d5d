from __future__ import annotations

import math
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as some

from resilient.top.condition import of_dependency, of_feature, of_service, troubled
from resilient.top.words import UNKNOWN, clean, clock, latency, members, number, rate, share, span, whole


@pytest.mark.parametrize(
    ("write", "value", "words"),
    [
        (rate, 0, "0"),
        (rate, 0.01, "<0.1"),
        (rate, 3.14, "3.1"),
        (rate, 9.96, "10"),
        (rate, 1234.4, "1234"),
        (rate, 123456, "123.5k"),
        (whole, 7.0, "7"),
        (share, 0, "0%"),
        (share, 0.004, "<1%"),
        (share, 0.5, "50%"),
        (share, 0.999, ">99%"),
        (share, 1, "100%"),
        (latency, 0.0012, "1.2 ms"),
        (latency, 0.12, "120 ms"),
        (latency, 1.26, "1.3 s"),
        (latency, 31, "31 s"),
        (span, -3, "0 s"),
        (span, 59.9, "59 s"),
        (span, 61, "1 min"),
        (span, 3700, "1 h 1 min"),
        (span, 90000, "1 d 1 h"),
    ],
)
def test_numbers(write: Any, value: float, words: str) -> None:
    assert write(value) == words


@pytest.mark.parametrize("value", [None, "3", True, [], {}, math.nan, math.inf])
def test_what_is_no_number_is_not_known(value: Any) -> None:
    assert number(value) is None
    assert [write(value) for write in (rate, whole, share, latency, span, clock)] == [UNKNOWN] * 6


def test_a_time_that_no_clock_shows_is_not_known() -> None:
    assert clock(1e300) == UNKNOWN
    assert len(clock(1_800_000_000)) == 8


@given(some.text())
def test_text_holds_nothing_that_a_terminal_would_obey(text: str) -> None:
    assert clean(text).isprintable()
    assert len(clean(text, 10)) <= 10


def test_text_is_otherwise_as_it_was() -> None:
    assert clean("catalog") == "catalog" and clean("Grüße, 世界") == "Grüße, 世界"
    assert clean("\x1b]0;owned\x07\r\n\u202egnp") == "�]0;owned����gnp"
    assert clean(None) == "" and clean(3) == "3" and clean("abcdef", 4) == "abc…"


def test_members_are_objects() -> None:
    assert members([{"a": 1}, 3, "x", None]) == [{"a": 1}]
    assert members({"a": 1}) == [] and members(None) == []


WELL = {"name": "a", "state": "closed", "calls": 10.0, "failure_ratio": 0.0, "rejections": 0.0, "budget": 1.0}


@pytest.mark.parametrize(
    ("facts", "word", "rank"),
    [
        ({}, "closed", 0),
        ({"state": "open"}, "open", 6),
        ({"state": "open", "enforce": False}, "open (shadow)", 2),
        ({"state": "isolated"}, "isolated", 5),
        ({"state": "half-open"}, "half-open", 4),
        ({"state": "disabled"}, "disabled", 1),
        ({"state": "\x1b[2J"}, "�[2J", 2),
        ({"state": None}, "unknown", 2),
        ({"failure_ratio": 0.05}, "failing", 3),
        ({"failure_ratio": 0.05, "calls": 0.0}, "closed", 0),
        ({"rejections": 1.0}, "rejecting", 2),
        ({"budget": 0.05}, "no retries left", 2),
        ({"budget": None, "calls": None, "failure_ratio": None, "rejections": None}, "closed", 0),
    ],
)
def test_how_a_dependency_is(facts: dict[str, Any], word: str, rank: int) -> None:
    condition = of_dependency({**WELL, **facts})
    assert (condition.word, condition.rank) == (word, rank)


def test_how_features_and_the_service_are() -> None:
    assert [of_feature({"level": level}).word for level in ("full", "reduced", "static", "off", 3)] == [
        "full",
        "reduced",
        "static",
        "off",
        "3",
    ]
    assert of_service({"level": "healthy", "status": "ready"}).word == "healthy"
    assert of_service({"level": "critical", "status": "draining"})[1:3] == ("critical, draining", "bold red")
    assert of_service({"level": "healthy", "status": "starting"})[1:3] == ("healthy, starting", "bold yellow")


def test_trouble_is_anything_less() -> None:
    assert not troubled({"dependencies": [WELL], "features": [{"level": "full"}]})
    assert troubled({"dependencies": [{**WELL, "state": "open"}], "features": []})
    assert troubled({"dependencies": [WELL], "features": [{"level": "static"}]})
