"""Directives, seconds and dates as RFC 9111 and RFC 9110 write them, and what is no such thing."""

from __future__ import annotations

import time
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core import directives
from resilient.core.directives import LONGEST, delta_seconds, http_date, parse_directives
from resilient.core.groups import strings


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("max-age=60", {"max-age": "60"}),
        ("MaX-aGe=60 , NO-STORE", {"max-age": "60", "no-store": None}),
        (" , max-age=60,, public,", {"max-age": "60", "public": None}),
        ('max-age="60"', {"max-age": "60"}),
        ("max-age=60, max-age=5", {"max-age": "60"}),
        ("max-age =60", {"max-age": ""}),
        ("max-age= 60", {"max-age": ""}),
        ("max-age=", {"max-age": ""}),
        ("max-age=6 0", {"max-age": ""}),
        ('x="max-age=60", max-age=1', {"x": "max-age=60", "max-age": "1"}),
        (r'x="a\"b, no-store", public', {"x": 'a"b, no-store', "public": None}),
        ('x="endless, no-store', {"x": "", "endless": None, "no-store": None}),
        ('no-cache="a, b"', {"no-cache": "a, b"}),
        ('private="a", private=b', {"private": "a,b"}),
        ('private="a", private', {"private": None}),
        ('private, private="a"', {"private": None}),
        ('private="", private="a"', {"private": None}),
        ('"no-store"', {}),
        ("\xa0max-age=60, public\x0b", {"public": ""}),  # white space to Python, and to RFC 9110 (section 5.6.3) none
        ("Xmax-age=60X", {"xmax-age": "60X"}),
        ("", {}),
    ],
)
def test_directives(value: str, expected: dict[str, str | None]) -> None:
    assert dict(parse_directives(value)) == expected


def test_there_is_no_room_for_more_than_64_unknown_ones_and_always_for_those_that_mean_something() -> None:
    found = parse_directives(",".join(f"x{number}" for number in range(500)) + ", no-store, max-age=1")
    assert len(found) == 66 and found["max-age"] == "1" and "no-store" in found


def test_a_field_of_that_length_is_meant_for_nobody() -> None:
    assert dict(parse_directives("max-age=60," + "x" * 20_000)) == {"no-store": None}
    assert parse_directives("max-age=60,".ljust(16_384, "x"))["max-age"] == "60"
    assert dict(parse_directives("max-age=60,".ljust(16_385, "x"))) == {"no-store": None}


@pytest.mark.parametrize(("length", "kept"), [(512, 1), (513, 0)])
def test_what_is_long_is_read_and_not_remembered(length: int, kept: int) -> None:
    directives._remembered.cache_clear()
    assert parse_directives("max-age=60,".ljust(length, "x"))["max-age"] == "60"
    assert directives._remembered.cache_info().currsize == kept


@pytest.mark.parametrize("garbage", ['"\\' * 8000, 'a="' * 5000, ',"' * 8000, '"a' * 8000, "=" * 16_000, "a" * 16_000])
def test_no_field_takes_long(garbage: str) -> None:
    began = time.perf_counter()
    parse_directives(garbage)
    assert time.perf_counter() - began < 1


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("3600", 3600),
        ("003600", 3600),
        ("1000000000", 10**9),
        ("2147483648", LONGEST),
        ("2147483649", LONGEST),
        ("99999999999", LONGEST),
        ("9" * 5000, LONGEST),
        ("0" * 5000 + "7", 7),
        ("-1", None),
        ("+1", None),
        ("3600.0", None),
        ("'3600'", None),
        ("1e3", None),
        ("1_000", None),
        ("٣", None),
        ("", None),
        (None, None),
    ],
)
def test_seconds(text: str | None, seconds: int | None) -> None:
    assert delta_seconds(text) == seconds


MOMENT = datetime(2050, 8, 18, 2, 1, 18, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("text", ["Thu, 18 Aug 2050 02:01:18 GMT", "Thursday, 18-Aug-50 02:01:18 GMT", "Thu Aug 18 02:01:18 2050"])
def test_the_three_forms_of_a_date(text: str) -> None:
    assert http_date(text) == MOMENT


def test_other_dates() -> None:
    assert http_date("Thu Aug  8 02:01:18 2050") == MOMENT - 10 * 86_400
    assert http_date("Sat, 31 Dec 2016 23:59:60 GMT") == datetime(2017, 1, 1, tzinfo=UTC).timestamp()  # a leap second
    assert http_date("Sun, 06 Nov 1994 08:49:37 GMT") == http_date("Sunday, 06-Nov-94 08:49:37 GMT") == 784_111_777
    # 50 years ahead is the past century; in 2050 the year 94 is not.
    assert http_date("Sunday, 06-Nov-94 08:49:37 GMT", MOMENT) == datetime(2094, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()


@pytest.mark.parametrize("wall", [None, datetime(2026, 1, 2, tzinfo=UTC).timestamp(), datetime(2026, 12, 30, tzinfo=UTC).timestamp()])
def test_a_year_of_two_digits_lies_no_more_than_50_years_ahead(wall: float | None) -> None:
    """RFC 9110 section 5.6.7."""
    assert http_date("Friday, 06-Nov-76 08:49:37 GMT", wall) == datetime(2076, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()
    assert http_date("Sunday, 06-Nov-77 08:49:37 GMT", wall) == datetime(1977, 11, 6, 8, 49, 37, tzinfo=UTC).timestamp()


@pytest.mark.skipif(not hasattr(time, "tzset"), reason="the zone of this process cannot be changed")
def test_a_date_names_the_same_moment_in_every_time_zone() -> None:
    with pytest.MonkeyPatch.context() as patch:
        try:
            patch.setenv("TZ", "XXX+5")
            time.tzset()
            assert http_date("Thursday, 18-Aug-50 02:01:18 GMT") == http_date("Thu Aug 18 02:01:18 2050") == MOMENT
        finally:
            patch.undo()
            time.tzset()


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "",
        "now",
        "Thu, 18 Aug 2050 02:01:18 UTC",
        "Thu, 18 Aug 2050 02:01:18 +0000",
        "Thu, 18 Aug 2050 02:01:18",
        "Thu 18 Aug 2050 02:01:18 GMT",
        "THU, 18 AUG 2050 02:01:18 GMT",
        "Thu, 18 Aug 50 02:01:18 GMT",
        "Thu, 18  Aug 2050 02:01:18 GMT",
        "Thu, 18-Aug-2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 2:01:18 GMT",
        "Thu, 31 Feb 2050 02:01:18 GMT",
        "Thu, 18 Aug 2050 24:01:18 GMT",
        "Thu, 18 Aug 0000 02:01:18 GMT",
        "Thu, 18 Aug ٢٠٥٠ 02:01:18 GMT",
        "2050-08-18T02:01:18Z",
        None,
    ],
)
def test_what_is_no_date(text: str | None) -> None:
    assert http_date(text) is None


@given(st.integers(0, 3 * 10**9))
def test_every_date_comes_back(moment: int) -> None:
    assert http_date(datetime.fromtimestamp(moment, UTC).strftime("%a, %d %b %Y %H:%M:%S GMT")) == moment


@given(st.text(max_size=60))
def test_nothing_raises(text: str) -> None:
    parse_directives(text)
    delta_seconds(text)
    http_date(text)
    http_date(text, 1e9)
    strings(text)


@given(st.text(max_size=40), st.sampled_from(["no-store", "private", "no-cache", "must-revalidate"]))
def test_no_garbage_hides_what_forbids(garbage: str, name: str) -> None:
    assert name in parse_directives(f"{garbage}, {name}")
    assert name in parse_directives(f"{name}, {garbage}")


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ('"a", "b"', ("a", "b")),
        ('"a";x=1;y="2", "b", "a"', ("a", "b")),
        (r'"a\"b"', ('a"b',)),
        ('"a",', ()),
        ("a, b", ()),
        ('"a" "b"', ()),
        ('"a", 1', ()),
        ('"ä"', ()),
        ("", ()),
        (None, ()),
        (", ".join(f'"{number}"' for number in range(64)), tuple(str(number) for number in range(64))),
        (", ".join(f'"{number}"' for number in range(65)), ()),
    ],
)
def test_groups(value: str | None, expected: tuple[str, ...]) -> None:
    assert strings(value) == expected


def test_a_list_of_groups_is_no_longer_than_that() -> None:
    name = "x" * 4094
    assert strings(f'"{name}"') == (name,)
    assert strings(f'"{name}y"') == ()
