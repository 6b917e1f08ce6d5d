"""What servers say about their limits, and what they send in place of it."""

from __future__ import annotations

import sys
from typing import Any

import http_sf
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core import pushback
from resilient.core.pushback import Told, parse_limits, parse_told

from ..thorough import often

WALL = 1_900_000_000.0
DATE = "Sun, 17 Mar 2030 17:46:40 GMT"  # WALL


def said(status: int = 200, *, fields: bool = True, **headers: str) -> Told | None:
    return parse_told(status, {name.replace("_", "-"): value for name, value in headers.items()}.get, WALL, fields=fields)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(
    ("value", "wait"), [("12", 12), (" 3 ", 3), ("Sun, 17 Mar 2030 17:47:00 GMT", 20), ("Sun, 17 Mar 2030 17:46:00 GMT", 0)]
)
def test_retry_after(status: int, value: str, wait: float) -> None:
    assert said(status, retry_after=value) == Told(wait=wait)


@pytest.mark.parametrize("status", [200, 404, 500, 502])
def test_retry_after_elsewhere_says_nothing(status: int) -> None:
    assert said(status, retry_after="12") is None


def test_retry_after_goes_before_the_fields() -> None:
    assert said(429, retry_after="3", ratelimit='"a";r=0;t=60', x_ratelimit_remaining="0", x_ratelimit_reset="60") == Told(wait=3)


@pytest.mark.parametrize(
    ("value", "limit"),
    [
        ('"default";r=50;t=30', (50, 30)),
        ('"default";r=0;t=12', (0, 12)),
        ('"a";r=5;t=1, "b";r=3;t=60', (3, 60)),
        ('"a";r=0;t=1, "b";r=0;t=60, "c";r=0;t=2', (0, 60)),
        ('"a";r=7;t=9;pk=:c29tZWJvZHk=:;unknown=token', (7, 9)),
        ('"a";r=7;t=9;qu="requests"', (7, 9)),
        ('"bytes";r=0;t=99;qu="content-bytes", "b";r=3;t=60', (3, 60)),
    ],
)
def test_ratelimit(value: str, limit: tuple[int, int]) -> None:
    http_sf.parse(value.encode(), tltype="list")
    assert said(ratelimit=value) == Told(remaining=limit[0], reset=limit[1])


@pytest.mark.parametrize("value", ['"a";r=0;t=99;qu="content-bytes"', '"a";r=5', ""])
def test_what_says_nothing_that_is_of_use(value: str) -> None:
    assert said(ratelimit=value) is None


def test_the_policy_tells_the_window_where_the_limit_does_not() -> None:
    policy = '"a";q=100;w=60, "b";q=10;w=1, "c";q=5'
    assert said(ratelimit='"a";r=4', ratelimit_policy=policy) == Told(remaining=4, reset=60)
    assert said(ratelimit='"c";r=4', ratelimit_policy=policy) is None
    assert said(ratelimit='"a";r=4;t=7', ratelimit_policy="rubbish(") == Told(remaining=4, reset=7)
    assert said(ratelimit='"a";r=4', ratelimit_policy="rubbish(") == Told(garbage=1)


GARBAGE = [
    "limit=10, remaining=5, reset=3",
    "default;r=5;t=3",
    '("a" "b");r=5;t=3',
    '"a";r=-1;t=3',
    '"a";r=5;t=-3',
    '"a";r=?1;t=3',
    '"a";r=1.5;t=3',
    '"a";r="5";t=3',
    '"a";t=3',
    '"a";r=5;t=3, "b"',
    '"a',
    '"ä";r=5;t=3',
    '"a";r=5;t=3' + ", " * 2000,
]


@pytest.mark.parametrize("value", GARBAGE)
def test_garbage_is_ignored_and_counted(value: str) -> None:
    assert said(ratelimit=value) == Told(garbage=1)
    assert said(429, ratelimit=value, retry_after="soon") == Told(garbage=2)
    assert said(ratelimit=value, x_ratelimit_remaining="3", x_ratelimit_reset="9") == Told(remaining=3, reset=9, garbage=1)


@pytest.mark.parametrize(
    ("remaining", "reset", "limit"),
    [
        ("3", "9", (3, 9)),
        ("0", "12.5", (0, 12.5)),
        ("0", "1900000007", (0, 7)),
        ("0", "1899999999", (0, 0)),
        ("4.0", "1900000007250", (4, 7.25)),
    ],
)
@pytest.mark.parametrize("prefix", ["x_ratelimit_", "ratelimit_"])
def test_the_unofficial_fields(prefix: str, remaining: str, reset: str, limit: tuple[int, float]) -> None:
    headers = {prefix + "remaining": remaining, prefix + "reset": reset}
    assert said(**headers) == Told(remaining=limit[0], reset=limit[1])
    # A moment is counted from the server's own date: its clock and ours need not agree.
    ahead = {**headers, "date": "Sun, 17 Mar 2030 17:46:43 GMT"}
    expected = Told(remaining=limit[0], reset=max(0.0, limit[1] - 3) if len(reset) >= 10 else limit[1])
    assert said(**ahead) == expected


@pytest.mark.parametrize(
    ("remaining", "reset"), [("-1", "5"), ("3", "6m0s"), ("many", "5"), ("", "5"), ("3", "1e9"), ("٣", "5"), ("9" * 400, "5")]
)
def test_unofficial_garbage(remaining: str, reset: str) -> None:
    assert said(x_ratelimit_remaining=remaining, x_ratelimit_reset=reset) == Told(garbage=1)


def test_half_of_the_unofficial_fields_says_nothing() -> None:
    assert said(x_ratelimit_remaining="0") is None and said(x_ratelimit_reset="9") is None


@pytest.mark.parametrize(("age", "heard"), [("0", True), ("", True), ("1", False), ("rubbish", False)])
def test_what_a_cache_kept_says_nothing_of_now(age: str, heard: bool) -> None:
    assert (said(ratelimit='"a";r=0;t=9', age=age) is not None) is heard


def test_only_retry_after_if_that_was_asked_for() -> None:
    assert said(fields=False, ratelimit='"a";r=0;t=9', x_ratelimit_remaining="0", x_ratelimit_reset="9") is None
    assert said(429, fields=False, retry_after="9") == Told(wait=9)


def test_without_http_sf_the_structured_field_is_not_read_and_that_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "http_sf", None)
    pushback._find_http_sf.cache_clear()
    try:
        assert said(ratelimit='"a";r=0;t=9') == Told(unread=True)
        assert said(ratelimit='"a";r=0;t=9', x_ratelimit_remaining="0", x_ratelimit_reset="9") == Told(remaining=0, reset=9, unread=True)
        assert said(429, retry_after="9") == Told(wait=9)
    finally:
        pushback._find_http_sf.cache_clear()


texts = st.text(max_size=60) | st.from_regex(r'"\w*"(;[rtqw]=-?\d{0,4}){0,3}(, )?', fullmatch=True)


@pytest.mark.slow
@settings(max_examples=often(200), deadline=None)
@given(
    st.dictionaries(
        st.sampled_from(["retry-after", "ratelimit", "ratelimit-policy", "x-ratelimit-remaining", "x-ratelimit-reset", "date"]), texts
    )
)
def test_nothing_that_a_server_sends_raises(headers: dict[str, Any]) -> None:
    told = parse_told(429, headers.get, WALL)
    if told is not None:
        assert told.wait is None or told.wait >= 0
        assert told.remaining is None or (told.remaining >= 0 and told.reset >= 0)


def test_why_a_field_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    longest = '"' + "a" * 2046 + '"'
    assert parse_limits(longest) == [(longest[1:-1], {})]
    with pytest.raises(ValueError, match="^the field is too long$"):
        parse_limits(longest + " ")
    with pytest.raises(ValueError, match="^a member is no string$"):
        parse_limits('"a", token')
    monkeypatch.setattr(pushback, "_find_http_sf", lambda: None)
    with pytest.raises(ModuleNotFoundError, match="^http-sf is not installed$") as caught:
        parse_limits(longest)
    assert caught.value.name == "http_sf"


def test_the_fields_are_looked_at_unless_told_otherwise() -> None:
    assert parse_told(200, {"ratelimit": '"a";r=3;t=9', "age": " 0 "}.get, WALL) == Told(remaining=3, reset=9)


@pytest.mark.parametrize(
    ("reset", "seconds"), [("99999999", 99_999_999.0), ("100000000", 0.0), ("99999999999", 98_099_999_999.0), ("100000000000", 0.0)]
)
def test_from_when_on_a_reset_is_a_moment(reset: str, seconds: float) -> None:
    assert said(x_ratelimit_remaining="3", x_ratelimit_reset=reset) == Told(remaining=3, reset=seconds)


def test_the_date_of_a_retry_is_counted_from_the_servers_own() -> None:
    assert said(429, retry_after="Sun, 17 Mar 2030 17:47:00 GMT", date="Sun, 17 Mar 2030 17:46:50 GMT") == Told(wait=10)
