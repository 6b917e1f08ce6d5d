"""Ages and lifetimes as RFC 9111 section 4.2 counts them, and what of an answer is kept."""

from __future__ import annotations

import math
from email.utils import formatdate
from typing import Any

import pytest

from resilient.core.asked import Asked
from resilient.core.caching import CachingRules
from resilient.core.entry import FIELD, KEYS, OVERHEAD, SPECS, Entry, Variants
from resilient.core.head import Head
from resilient.core.lifetime import age_value, date_value, lifetime

WALL = 1_800_000_000.0
URI = "https://api.example.com/a"


def at(offset: float) -> str:
    return formatdate(WALL + offset, usegmt=True)


def made(
    *fields: tuple[str, str], status: int = 200, took: float = 0.0, body: bytes = b"", asked: Asked | None = None, **rules: Any
) -> Entry:
    """An answer that comes at the wall's 1,800,000,000 and the monotonic clock's 50."""
    return Entry.made(
        asked or Asked.of("GET", URI, []),
        status,
        [(name.encode(), value.encode("latin-1")) for name, value in fields],
        body,
        requested_at=WALL - took,
        received_at=WALL,
        now=50.0,
        rules=CachingRules(**rules),
    )


def control(value: str) -> tuple[str, str]:
    return "Cache-Control", value


class TestLifetime:
    @pytest.mark.parametrize(
        ("fields", "expected"),
        [
            ([control("max-age=60")], 60),
            ([control("max-age=60"), ("Expires", at(7200))], 60),
            ([control("max-age=60"), ("Expires", "0")], 60),
            ([control("max-age=0"), ("Expires", at(7200))], 0),
            ([control("max-age=60, s-maxage=5")], 5),
            ([control("max-age=0, s-maxage=500"), ("Expires", at(-10))], 500),
            ([control("s-maxage=x, max-age=60")], 0),
            ([control("max-age=60"), control("max-age=5")], 60),
            ([control("max-age=-60")], 0),
            ([control("max-age='60'")], 0),
            ([control("max-age=60.5")], 0),
            ([control("max-age")], 0),
            ([control("max-age =60")], 0),
            ([control("max-age=x"), ("Expires", at(60))], 0),
            ([control("max-age=99999999999")], 2**31),
            ([("Expires", at(60))], 60),
            ([("Expires", at(60)), ("Date", at(-10))], 70),
            ([("Expires", at(60)), ("Date", "foo")], 60),
            ([("Expires", at(300)), ("Date", at(400))], 0),
            ([("Expires", at(0)), ("Date", at(0))], 0),
            ([("Expires", "0"), ("Last-Modified", at(-86_400))], 0),
            ([("Expires", at(60)), ("Expires", at(90))], 60),
            ([("Last-Modified", at(-1000)), ("Date", at(0))], 100),
            ([("Last-Modified", at(-1000)), ("Date", at(100))], 110),
            ([("Last-Modified", at(10))], 0),
            ([("Last-Modified", "foo")], 0),
            ([("Last-Modified", at(-(10**9)))], 86_400),
            ([("Last-Modified", at(-1000)), ("Pragma", "no-cache")], 0),
            ([("Last-Modified", at(-1000)), ("Pragma", "no-cache"), control("public")], 100),
            ([], 0),
        ],
    )
    def test_of_a_shared_cache(self, fields: list[tuple[str, str]], expected: float) -> None:
        assert made(*fields).lifetime == expected

    def test_s_maxage_means_nothing_to_a_private_cache(self) -> None:
        assert made(control("s-maxage=60, max-age=5"), shared=False).lifetime == 5

    @pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
    def test_it_is_guessed_for_these(self, status: int) -> None:
        assert made(("Last-Modified", at(-1000)), status=status).lifetime == 100

    @pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 403, 500, 502, 503, 504, 599])
    def test_and_for_no_others_unless_they_are_public(self, status: int) -> None:
        assert made(("Last-Modified", at(-1000)), status=status).lifetime == 0
        assert made(("Last-Modified", at(-1000)), control("public"), status=status).lifetime == 100

    def test_the_operator_speaks_where_the_origin_is_silent(self) -> None:
        assert made(ttl=30.0).lifetime == 30
        assert made(("Last-Modified", at(-1000)), ttl=30.0).lifetime == 30
        assert made(control("max-age=5"), ttl=30.0).lifetime == 5
        assert made(("Expires", "0"), ttl=30.0).lifetime == 0
        assert made(status=404, ttl=30.0).lifetime == 0
        assert made(status=302, ttl=30.0).lifetime == 0
        assert made(control("public"), status=302, ttl=30.0).lifetime == 30
        assert made(control("public"), status=400, ttl=30.0).lifetime == 0

    def test_negative_answers_are_kept_for_so_long_at_most(self) -> None:
        rules: dict[str, Any] = {"negative_ttl": {404: 5.0}}
        assert made(status=404, **rules).lifetime == 5
        assert made(control("max-age=60"), status=404, **rules).lifetime == 5
        assert made(control("max-age=2"), status=404, **rules).lifetime == 2
        assert made(control("max-age=0"), status=404, **rules).lifetime == 0
        assert made(status=410, **rules).lifetime == 0

    @pytest.mark.parametrize("value", ["max-age=100", "s-maxage=100"])
    def test_only_the_operators_lifetimes_are_spread_and_only_downward(self, value: str) -> None:
        def spread(*fields: tuple[str, str], status: int = 200) -> float:
            lines = [(name.encode(), text.encode()) for name, text in fields]
            rules = CachingRules(ttl=100.0, negative_ttl={404: 100.0}, jitter=0.1)
            asked = Asked.of("GET", URI, [])
            return Entry.made(asked, status, lines, b"", requested_at=WALL, received_at=WALL, now=0, rules=rules, chance=0.5).lifetime

        assert spread() == pytest.approx(95) and spread(status=404) == pytest.approx(95)
        assert spread(control(value)) == 100


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (b"Sun, 06 Nov 1994 08:49:37 GMT", 784_111_777.0),
        (b" Sun, 06 Nov 1994 08:49:37 GMT\t", 784_111_777.0),
        (b"Sun Nov  6 08:49:37 1994", 784_111_777.0),
        (b"Sunday, 06-Nov-94 08:49:37 GMT", 784_111_777.0),
        (b"Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        (b"Sun, 06 Nov 1994 08:49:37 UTC", WALL),
        (b"yesterday", WALL),
    ],
)
def test_when_it_was_made(line: bytes, expected: float) -> None:
    assert date_value(Head([(b"Date", line)]), WALL) == expected
    assert date_value(Head([(b"X-Date", line)]), WALL) == WALL


def test_who_says_no_age_has_none() -> None:
    assert age_value(Head([(b"Date", b"x")])) == 0.0 and age_value(Head([(b"AGE", b"7")])) == 7


def test_years_of_two_digits_are_read_by_the_moment_at_which_it_came() -> None:
    in_2080, written = 3_490_300_800.0, b"Thursday, 08-Aug-80 00:00:00 GMT"
    assert date_value(Head([(b"Date", written)]), in_2080) == in_2080
    assert lifetime(Head([(b"Expires", written)]), 200, CachingRules(), in_2080 - 60) == 60
    assert lifetime(Head([(b"Last-Modified", written)]), 200, CachingRules(), in_2080 + 1000) == 100


class TestAge:
    @pytest.mark.parametrize(
        ("fields", "took", "expected"),
        [
            ([("Date", at(0))], 0.0, 0),
            ([("Date", at(-30))], 0.0, 30),  # apparent_age
            ([("Date", at(30))], 0.0, 0),
            ([("Date", "foo")], 2.0, 2),
            ([("Age", "20")], 0.0, 20),
            ([("Age", "20")], 3.0, 23),  # corrected_age_value
            ([("Age", "20"), ("Date", at(-30))], 3.0, 30),
            ([("Age", "40"), ("Date", at(-30))], 3.0, 43),
            ([("Age", "20,7200")], 0.0, 20),
            ([("Age", "7200,0")], 0.0, 7200),
            ([("Age", "20 , 30")], 0.0, 20),
            ([("Age", "60,X60")], 0.0, 60),
            ([("Age", "60,\xa060")], 0.0, 60),
        ],
    )
    def test_when_it_comes(self, fields: list[tuple[str, str]], took: float, expected: float) -> None:
        entry = made(control("max-age=3600"), *fields, took=took)
        assert entry.initial_age == expected and entry.age(50.0) == expected

    @pytest.mark.parametrize(
        "lines",
        [["abc"], ["-5"], ["7200.0"], ["20;a=b"], ["0", "0"], ["0", "7200"], ["0, 0"], ["60, 60"], [""], ["٣"], ["X20X"], ["\x0b20"]],
    )
    def test_an_age_that_cannot_be_trusted_makes_it_stale(self, lines: list[str]) -> None:
        fields = [("Age", line.encode().decode("latin-1")) for line in lines]
        entry = made(control("max-age=3600, stale-if-error=60"), *fields)
        assert entry.ttl(50.0) == 0 and entry.lifetime == 3600

    def test_it_grows_with_monotonic_time_and_never_shrinks(self) -> None:
        entry = made(control("max-age=60"), ("Age", "10"))
        assert [entry.age(now) for now in (49.0, 50.0, 50.5, 60.0, 111.5)] == [10, 10, 10.5, 20, 71.5]
        assert entry.ttl(111.5) == -11.5

    def test_one_from_another_process_is_placed_in_time(self) -> None:
        entry = made(control("max-age=60"), ("Age", "10"))
        entry.arrived = math.nan
        assert entry.place(1000.0, WALL + 5).age(1001.0) == 16
        assert entry.place(1000.0, WALL - 100).age(1000.0) == 10  # a wall clock that was set back


class TestWhatIsKept:
    @pytest.mark.parametrize(
        "name",
        [
            "Connection",
            "Keep-Alive",
            "Proxy-Authenticate",
            "Proxy-Authentication-Info",
            "Proxy-Authorization",
            "Proxy-Connection",
            "TE",
            "Trailer",
            "Transfer-Encoding",
            "Upgrade",
            "Age",
        ],
    )
    def test_not_what_belongs_to_the_connection(self, name: str) -> None:
        entry = made(("Date", at(0)), control("max-age=60"), (name, "10"), ("Other", "x"))
        assert [line[0] for line in entry.fields] == [b"Date", b"Cache-Control", b"Other"]

    def test_nor_what_connection_lists(self) -> None:
        entry = made(("Date", at(0)), ("Connection", "A, b"), ("a", "1"), ("B", "2"), ("c", "3"))
        assert [line[0] for line in entry.fields] == [b"Date", b"c"]

    def test_nor_what_the_origin_wants_validated(self) -> None:
        connection = ("Connection", "d"), ("d", "4"), ("TE", "x")
        entry = made(("Date", at(0)), control('no-cache="a, B"'), control("max-age=60"), ("A", "1"), ("b", "2"), ("c", "3"), *connection)
        assert [line[0] for line in entry.fields][3:] == [b"c"]
        assert not entry.needs_validation

    def test_nor_what_is_for_one_user(self) -> None:
        fields = ("Date", at(0)), control('max-age=60, private="x-user"'), ("X-User", "7")
        anna = Asked.of("GET", URI, [], partition="anna")
        assert b"X-User" not in dict(made(*fields).fields)
        assert b"X-User" not in dict(made(*fields, asked=anna).fields)
        assert dict(made(*fields, asked=anna, per_user=True).fields)[b"X-User"] == b"7"
        assert b"X-User" not in dict(made(*fields, per_user=True).fields)
        # What is kept for everybody has nothing of the user who happened to ask for it.
        assert b"X-User" not in dict(made(*fields, control("public"), asked=anna, per_user=True).fields)
        assert dict(made(*fields, shared=False).fields)[b"X-User"] == b"7"

    def test_everything_else_as_it_came(self) -> None:
        fields = [("date", at(0)), ("X-B", "ü"), ("x-a", "1"), ("X-B", "2"), ("Set-Cookie2", "x")]
        assert made(*fields).fields == tuple((name.encode(), value.encode("latin-1")) for name, value in fields)

    def test_an_undated_answer_gets_its_date(self) -> None:
        entry = made(control("max-age=60"))
        assert dict(entry.fields)[b"Date"] == at(0).encode() and entry.date == WALL

    def test_its_size(self) -> None:
        assert made(("Date", at(0)), body=b"x" * 100).size == OVERHEAD + 100 + 4 + 29 + FIELD
        assert made(("Date", at(0)), ("ETag", '"ab"'), ("X", "y")).size == OVERHEAD + 4 + 29 + 4 + 4 + 2 + 3 * FIELD

    def test_its_size_without_what_is_not_kept(self) -> None:
        assert made(("Date", at(0)), ("Connection", "close, X"), ("X", "y"), ("Age", "3")).size == OVERHEAD + 4 + 29 + FIELD

    def test_its_size_with_the_date_that_it_is_given(self) -> None:
        assert made(("ETag", '"ab"')).size == OVERHEAD + 4 + 4 + 4 + 29 + 2 * FIELD

    def test_a_wall_clock_that_was_set_back_meanwhile_took_no_time(self) -> None:
        assert made(("Date", at(0)), took=-5.0).took == 0.0
        assert made(("Date", at(0)), took=2.0).took == 2.0

    def test_what_later_requests_ask_of_it(self) -> None:
        asked = Asked.of("GET", URI, [(b"Foo", b"1, 2"), (b"Cookie", b"a=b")])
        entry = made(
            control("max-age=60, public, stale-while-revalidate=5, stale-if-error=600"),
            ("ETag", 'W/"a"'),
            ("Last-Modified", at(-5)),
            ("Vary", "Foo, Bar"),
            ("Cache-Groups", '"one", "two"'),
            took=0.25,
            asked=asked,
        )
        assert (entry.stale_while_revalidate, entry.stale_if_error, entry.took) == (5, 600, 0.25)
        assert (entry.etag, entry.last_modified, entry.open) == ('W/"a"', at(-5), True)
        assert (entry.vary, entry.selected, entry.groups) == (("bar", "foo"), (None, "1,2"), ("one", "two"))

    @pytest.mark.parametrize(
        ("value", "shared", "private"),
        [
            ("max-age=5", (False, False), (False, False)),
            ("must-revalidate", (False, True), (False, True)),
            ("proxy-revalidate", (False, True), (False, False)),
            ("s-maxage=5", (False, True), (False, False)),
            ("no-cache", (True, False), (True, False)),
            ("no-cache=x y", (True, False), (True, False)),
            ('no-cache="x y"', (True, False), (True, False)),
            ('no-cache="x", no-cache', (True, False), (True, False)),
        ],
    )
    def test_prohibitions(self, value: str, shared: tuple[bool, bool], private: tuple[bool, bool]) -> None:
        for kind, expected in ((True, shared), (False, private)):
            entry = made(control(value), shared=kind)
            assert (entry.needs_validation, entry.strict) == expected

    def test_a_window_that_cannot_be_read_is_none(self) -> None:
        entry = made(control("max-age=5, stale-while-revalidate=x, stale-if-error"))
        assert entry.stale_while_revalidate == entry.stale_if_error == 0

    def test_what_is_private_is_not_for_everybody_whatever_else_it_says(self) -> None:
        assert made(control("public, max-age=5")).open and made(control("s-maxage=5")).open
        assert made(control('public, private="a"')).open
        assert not made(control("public, private")).open and not made(control("max-age=5")).open


def test_the_value_of_a_function() -> None:
    entry = Entry.of_value([1], ttl=10.0, stale_if_error=5.0, stale_while_revalidate=2.0, now=50.0, wall=WALL, took=0.5, size=100)
    assert entry.value == [1] and entry.status == 0 and entry.size == OVERHEAD + 100
    assert (entry.ttl(50.0), entry.ttl(61.0)) == (10, -1)
    assert (entry.stale_if_error, entry.stale_while_revalidate, entry.took) == (5, 2, 0.5)
    assert entry.requested_at == WALL - 0.5 and entry.received_at == entry.date == WALL and entry.generation == ""
    # Another process tells from the wall's clock how long ago that was.
    assert entry.place(1000.0, WALL + 4).ttl(1001.0) == 5


def test_a_value_of_which_nothing_is_said_has_no_windows_and_no_size() -> None:
    entry = Entry.of_value(None, ttl=10.0, now=50.0, wall=WALL)
    assert (entry.stale_if_error, entry.stale_while_revalidate, entry.took, entry.size) == (0, 0, 0, OVERHEAD)


def test_an_entry_keeps_the_generation_that_it_is_given() -> None:
    assert Entry.of_value(None, ttl=10.0, now=50.0, wall=WALL, generation="a1").generation == "a1"
    asked, times = Asked.of("GET", URI, []), {"requested_at": WALL, "received_at": WALL, "now": 50.0}
    assert Entry.made(asked, 200, [], b"", rules=CachingRules(), generation="a1", **times).generation == "a1"
    assert Entry.made(asked, 200, [], b"", rules=CachingRules(), **times).generation == ""


class TestVariants:
    def test_the_newest_spec_first_and_the_oldest_key_out(self) -> None:
        known = Variants()
        dropped: tuple[str, ...] = ()
        for number in range(40):
            known, more = known.added((f"name {number % 6}",), f"key {number}")
            dropped += more
        assert len(known.keys) == KEYS and len(known.specs) == SPECS
        assert known.specs[0] == ("name 3",) and known.keys[-1] == "key 39"
        assert dropped == tuple(f"key {number}" for number in range(8))

    def test_one_that_is_known_becomes_the_newest(self) -> None:
        known = Variants((("a",), ("b",)), ("1", "2"))
        assert known.added(("b",), "1") == (Variants((("b",), ("a",)), ("2", "1")), ())
