"""Who is told how long a request has and how much it matters, and in which words."""

from __future__ import annotations

import math
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.origin import Origin
from resilient.core.propagation import Propagation

ORIGIN = Origin("https://orders.internal/v1")


@pytest.mark.parametrize(
    ("url", "reached"),
    [
        ("https://orders.internal/v1/items", True),
        ("https://orders.internal:443/elsewhere", True),
        ("http://orders.internal/v1/items", False),
        ("https://orders.internal:8443/v1/items", False),
        ("https://orders.internal.example.com/v1", False),
        ("https://example.com/orders.internal", False),
    ],
)
def test_only_the_origin_is_told(url: str, reached: bool) -> None:
    assert Propagation(ORIGIN, True).reaches(httpx.URL(url)) is reached


@pytest.mark.parametrize(
    ("seconds", "plain", "grpc"),
    [
        (1.5, "1500", "1500m"),
        (0.0019, "1", "1m"),
        (0.0, "0", "0m"),
        (-3.0, "0", "0m"),
        (1e300, "9999999999", "99999999m"),
        (math.inf, None, None),
    ],
)
def test_time_left(seconds: float, plain: str | None, grpc: str | None) -> None:
    assert Propagation(ORIGIN, True).time_left(seconds) == plain
    assert Propagation(ORIGIN, {"deadline": "GRPC-Timeout"}).time_left(seconds) == grpc


@given(st.floats(min_value=0, max_value=1e6))
def test_never_more_than_is_left(seconds: float) -> None:
    told = Propagation(ORIGIN, True).time_left(seconds)
    assert told is not None and int(told) / 1000 <= seconds < int(told) / 1000 + 0.002


def test_names() -> None:
    both = Propagation(ORIGIN, True)
    assert (both.deadline, both.criticality) == ("X-Request-Timeout-Ms", "X-Criticality")
    one = Propagation(ORIGIN, {"criticality": "X-Importance"})
    assert (one.deadline, one.criticality) == (None, "X-Importance")


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ("X-Criticality", TypeError),
        (1, TypeError),
        ({"deadline": 5}, TypeError),
        ({}, ValueError),
        ({"importance": "X-Importance"}, ValueError),
        ({"deadline": "X Timeout"}, ValueError),
        ({"criticality": ""}, ValueError),
    ],
)
def test_what_is_given_is_checked(given: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match="propagate"):
        Propagation(ORIGIN, given)


def test_an_origin_is_needed() -> None:
    with pytest.raises(ValueError, match="propagate: name the origin"):
        Propagation(None, True)
