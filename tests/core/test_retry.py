from __future__ import annotations

import math
import string
import time
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resilient.core.retry import Decision, decide, parse_retry_after, seconds_of_date

NOW = 784_111_767.0  # Sun, 06 Nov 1994 08:49:27 GMT


def decision(**changes: Any) -> Decision:
    situation: dict[str, Any] = {
        "attempt": 1,
        "attempts": 3,
        "retryable": True,
        "repeatable": True,
        "delay": 0.5,
        "retry_after": None,
        "remaining": 30.0,
        "min_useful": 0.25,
    }
    return decide(**{**situation, **changes})


@pytest.mark.parametrize(
    ("changes", "result", "delay"),
    [
        ({}, "retried", 0.5),
        ({"attempt": 2}, "retried", 0.5),
        ({"attempt": 3}, "exhausted", 0.0),
        ({"attempts": 1}, "exhausted", 0.0),
        ({"repeatable": False}, "unrepeatable", 0.0),
        ({"retryable": False}, "unrepeatable", 0.0),
        ({"repeatable": False, "attempt": 3}, "unrepeatable", 0.0),
        ({"remaining": math.inf}, "retried", 0.5),
        # What is left after the wait must be of use.
        ({"remaining": 0.75}, "retried", 0.5),
        ({"remaining": 0.74}, "deadline", 0.5),
        ({"remaining": 0.5, "min_useful": 0.0}, "deadline", 0.5),
        ({"remaining": -1.0}, "deadline", 0.5),
        # The server's wish, no more than 60 s of it, and the backoff's jitter on top.
        ({"retry_after": 2.0}, "retried", 2.5),
        ({"retry_after": 0.1}, "retried", 0.6),
        ({"retry_after": 0.0}, "retried", 0.5),
        ({"retry_after": 3600.0, "remaining": 100.0}, "retried", 60.5),
        ({"retry_after": 3600.0, "remaining": math.inf, "max_retry_after": 5.0}, "retried", 5.5),
        # Beyond the deadline: whose wish was it?
        ({"retry_after": 30.0}, "pushback", 30.0),
        ({"retry_after": 29.75}, "retried", 29.75),
        ({"retry_after": 0.1, "remaining": 0.3}, "deadline", 0.5),
        ({"retry_after": 0.0, "delay": 0.0, "remaining": 0.0}, "deadline", 0.0),
    ],
)
def test_decisions(changes: dict[str, Any], result: str, delay: float) -> None:
    assert decision(**changes) == Decision(result, delay)


seconds = st.floats(0, 1000)


@given(
    st.integers(1, 10),
    st.integers(1, 10),
    st.booleans(),
    st.booleans(),
    seconds,
    st.none() | seconds,
    st.floats(-10, 1000),
    st.floats(0, 1),
)
@example(1, 2, True, True, 2.0, 1.0, 2.0, 0.0)
def test_a_retry_is_always_possible_and_useful(
    attempt: int,
    attempts: int,
    retryable: bool,
    repeatable: bool,
    delay: float,
    retry_after: float | None,
    remaining: float,
    min_useful: float,
) -> None:
    decided = decide(
        attempt=attempt,
        attempts=attempts,
        retryable=retryable,
        repeatable=repeatable,
        delay=delay,
        retry_after=retry_after,
        remaining=remaining,
        min_useful=min_useful,
    )
    if decided.result == "retried":
        assert attempt < attempts and retryable and repeatable
        assert remaining - decided.delay >= min_useful
        assert decided.delay >= delay
        assert decided.delay >= min(retry_after or 0.0, 60.0)
    elif decided.result == "pushback":
        assert retry_after is not None and retry_after > delay


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("0", 0.0),
        (" 7\t", 7.0),
        ("007", 7.0),
        ("9" * 100_000, 365 * 86400.0),
        ("Sun, 06 Nov 1994 08:49:37 GMT", 10.0),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 10.0),
        ("Sun Nov  6 08:49:37 1994", 10.0),
        ("Sun, 06 Nov 1994 08:49:17 GMT", 0.0),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 365 * 86400.0),
    ],
)
def test_retry_after_fields(value: str, seconds: float) -> None:
    assert parse_retry_after(value, NOW, None) == seconds


@pytest.mark.parametrize(
    "value",
    [
        *("", " ", "soon", "-1", "+1", "1.5", "1e3", "0x10", "1_000", "1 2", "\u0663", "\uff15", "nan", "inf"),
        *("Sun", "Sun, 31 Feb 1995 08:49:37 GMT", "Sun, 06 Nov 99999999999 08:49:37 GMT", "Sun, 06 Nov 1994", "Sun, " + "9" * 10_000),
    ],
    # In ASCII and without a backslash: pytest escapes what this returns once more when it collects once more (mutants.py).
    ids=lambda value: value[:40].encode("ascii", "xmlcharrefreplace").decode(),
)
def test_garbage_asks_for_nothing(value: str) -> None:
    assert parse_retry_after(value, NOW, None) is None


def test_a_date_is_counted_from_the_date_of_the_response() -> None:
    until = "Sun, 06 Nov 1994 08:49:37 GMT"
    hours_off = NOW + 5 * 3600
    assert parse_retry_after(until, hours_off, "Sun, 06 Nov 1994 08:49:07 GMT") == 30.0
    assert parse_retry_after(until, NOW, "yesterday") == 10.0
    assert parse_retry_after("5", NOW, "Sun, 06 Nov 1994 08:49:07 GMT") == 5.0


# What dates are made of, and what breaks those who read them.
pieces = st.sampled_from(
    ["Sun", "Sunday", ",", " ", "-", ":", "06", "Nov", "1994", "94", "08:49:37", "25:61:61", "GMT", "+9999", "0", "9" * 20]
)


@given(st.text(string.printable + "\x00\x7f\u0663\uff15", max_size=40) | st.lists(pieces, max_size=14).map("".join))
def test_no_field_is_an_error_or_negative(value: str) -> None:
    seconds = parse_retry_after(value, NOW, value)
    assert seconds is None or 0 <= seconds <= 365 * 86400


@given(
    st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1)).map(lambda moment: moment.replace(tzinfo=UTC, microsecond=0)),  # noqa: DTZ001
    st.integers(-1000, 1000),
)
def test_written_dates_are_read_back(moment: datetime, ahead: int) -> None:
    value = format_datetime(moment, usegmt=True)
    assert parse_retry_after(value, moment.timestamp() - ahead, None) == max(0, ahead)


def test_a_date_is_no_longer_than_a_date_can_be() -> None:
    date = "Sun, 06 Nov 1994 08:49:37 GMT"
    assert seconds_of_date(date.ljust(64)) == NOW + 10
    assert seconds_of_date(date.ljust(65)) is None


def test_a_date_names_the_same_moment_in_every_time_zone(monkeypatch: pytest.MonkeyPatch) -> None:
    try:
        with monkeypatch.context() as patch:
            patch.setenv("TZ", "XXX+5")
            time.tzset()
            for date in ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun Nov  6 08:49:37 1994", "Sun, 06 Nov 1994 09:49:37 +0100"):
                assert seconds_of_date(date) == NOW + 10
    finally:
        time.tzset()


@pytest.mark.parametrize("value", ["7\n", "\x0b7", "X7", "7X"], ids=["newline", "tab", "before", "after"])
def test_nothing_but_blanks_is_left_out(value: str) -> None:
    assert parse_retry_after(value, NOW, None) is None
