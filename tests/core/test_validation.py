"""Asking whether an answer still holds, and answering the same question."""

from __future__ import annotations

from email.utils import formatdate
from typing import Any

import pytest

from resilient.core.asked import Asked
from resilient.core.caching import CachingRules
from resilient.core.entry import Entry
from resilient.core.freshness import Use, look
from resilient.core.validation import answer_to, conditions, freshened, updated_by_head, weakly_equal

WALL = 1_800_000_000.0
URI = "https://api.example.com/a"
RULES = CachingRules()
TAG = ("ETag", '"a"')
FRESH = ("Cache-Control", "max-age=60")


def at(offset: float) -> str:
    return formatdate(WALL + offset, usegmt=True)


def lines(*fields: tuple[str, str]) -> list[tuple[bytes, bytes]]:
    return [(name.encode(), value.encode("latin-1")) for name, value in fields]


def asked(*fields: tuple[str, str], method: str = "GET") -> Asked:
    return Asked.of(method, URI, lines(*fields))


def stored(*fields: tuple[str, str], body: bytes = b"0123456789", status: int = 200, by: Asked | None = None) -> Entry:
    return Entry.made(by or asked(), status, lines(*fields), body, requested_at=WALL, received_at=WALL, now=0.0, rules=RULES)


def again(
    entry: Entry, *fields: tuple[str, str], by: Asked | None = None, rules: CachingRules = RULES, took: float = 1.0, **more: float
) -> Entry | None:
    """The same after a 304 that came 100 seconds later and took one."""
    return freshened(
        entry, lines(*fields), requested_at=WALL + 100 - took, received_at=WALL + 100, now=100.0, rules=rules, asked=by, **more
    )


def field(entry: Entry | None, name: str) -> list[str]:
    assert entry is not None
    return [value.decode("latin-1") for key, value in entry.fields if key.lower() == name.lower().encode()]


class TestConditions:
    def test_both_validators_are_sent_as_they_came(self) -> None:
        entry = stored(("ETag", 'W/"ü"'), ("Last-Modified", at(-5)))
        assert conditions(entry) == ((b"If-None-Match", 'W/"ü"'.encode("latin-1")), (b"If-Modified-Since", at(-5).encode()))

    def test_none_without_validators(self) -> None:
        assert conditions(stored()) == () == conditions(Entry.of_value(1, ttl=1.0, now=0.0, wall=0.0))


class TestFreshened:
    def test_it_is_as_new(self) -> None:
        old = stored(TAG, FRESH, ("Date", at(0)), ("X", "old"))
        entry = again(old, TAG, ("Date", at(100)))
        assert entry is not None and look(entry, asked(), 101.0, RULES) is Use.FRESH
        assert entry.age(100.0) == 1 and entry.took == 1 and entry.date == WALL + 100
        assert field(entry, "X") == ["old"] and entry.body == b"0123456789" and entry.status == 200
        assert look(old, asked(), 101.0, RULES) is Use.VALIDATE  # which nobody changed

    def test_it_took_as_long_as_the_304(self) -> None:
        entry = again(stored(TAG), TAG, took=0.25)
        assert entry is not None and entry.took == 0.25

    def test_the_operators_lifetime_is_spread_again(self) -> None:
        rules = CachingRules(ttl=100.0, jitter=0.1)
        fresh, spread = again(stored(TAG), TAG, rules=rules), again(stored(TAG), TAG, rules=rules, chance=0.5)
        assert fresh is not None and spread is not None
        assert fresh.lifetime == 100 and spread.lifetime == pytest.approx(95)

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("X-Test", "a", "b"),
            ("Cache-Control", "max-age=1", "max-age=3600"),
            ("Content-Location", "/a", "/b"),
            ("Content-Security-Policy", "a", "b"),
            ("Content-Type", "text/plain", "text/plain;charset=utf-8"),
            ("Expires", at(50), at(500)),
            ("X-Frame-Options", "deny", "sameorigin"),
        ],
    )
    def test_what_the_304_says_replaces_what_was_said(self, name: str, old: str, new: str) -> None:
        assert field(again(stored(TAG, (name, old)), TAG, (name, new)), name) == [new]

    @pytest.mark.parametrize(
        ("name", "old", "new"),
        [
            ("Content-Length", "10", "0"),
            ("Content-Encoding", "gzip", "br"),
            ("Content-Range", "x", "y"),
            ("Content-MD5", "a", "b"),
            ("Content-Digest", "a", "b"),
        ],
    )
    def test_but_for_what_tells_of_the_body(self, name: str, old: str, new: str) -> None:
        assert field(again(stored(TAG, (name, old)), TAG, (name, new)), name) == [old]

    @pytest.mark.parametrize("name", ["Connection", "Keep-Alive", "Transfer-Encoding", "Proxy-Authenticate", "Set-Cookie", "Age"])
    def test_nor_is_anything_taken_over_that_is_not_kept(self, name: str) -> None:
        assert field(again(stored(TAG, FRESH), TAG, (name, "1")), name) == []

    def test_nor_what_connection_lists(self) -> None:
        assert field(again(stored(TAG, ("X", "1")), TAG, ("Connection", "x"), ("X", "2")), "X") == ["1"]

    def test_all_lines_of_a_field_are_replaced(self) -> None:
        entry = again(stored(TAG, ("X", "1"), ("X", "2")), TAG, ("x", "3"), ("X", "4"))
        assert field(entry, "X") == ["3", "4"]

    def test_its_date_is_that_of_the_304_or_the_moment_it_came(self) -> None:
        old = stored(TAG, FRESH, ("Date", at(-50)))
        entry = again(old, TAG)
        assert entry is not None and entry.date == WALL + 100 and field(entry, "Date") == [at(100)]
        assert entry.age(100.0) == 1

    def test_the_age_of_the_304_counts(self) -> None:
        entry = again(stored(TAG, FRESH), TAG, ("Age", "30"))
        assert entry is not None and entry.age(100.0) == 31

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ([TAG], [("ETag", '"b"')]),
            ([TAG], [("ETag", 'W/"b"')]),
            ([("ETag", 'W/"a"')], [TAG]),  # a strong validator is compared strongly
            ([("Last-Modified", at(-50))], [TAG]),
            ([("Last-Modified", at(-50))], [("Last-Modified", at(-40))]),
        ],
    )
    def test_a_304_for_another_answer(self, old: list[tuple[str, str]], new: list[tuple[str, str]]) -> None:
        assert again(stored(*old), *new) is None

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ([TAG], []),
            ([TAG], [("ETag", 'W/"a"')]),
            ([("ETag", 'W/"a"')], [("ETag", 'W/"a"')]),
            ([TAG, ("Last-Modified", at(-50))], [TAG, ("Last-Modified", at(-40))]),
            ([("Last-Modified", at(-50))], [("Last-Modified", at(-50))]),
            ([("Last-Modified", at(-50))], []),
            ([], [("Last-Modified", at(-50))]),
        ],
    )
    def test_a_304_for_this_one(self, old: list[tuple[str, str]], new: list[tuple[str, str]]) -> None:
        assert again(stored(*old), *new) is not None

    def test_its_variant_stays_what_it_was(self) -> None:
        by = asked(("Foo", "1"))
        entry = again(stored(TAG, ("Vary", "Foo"), by=by), TAG)
        assert entry is not None and (entry.vary, entry.selected) == (("foo",), ("1",))

    def test_unless_it_varies_by_something_else_from_now_on(self) -> None:
        by = asked(("Foo", "1"), ("Bar", "2"))
        old = stored(TAG, ("Vary", "Foo"), by=by)
        assert again(old, TAG, ("Vary", "Bar")) is None
        entry = again(old, TAG, ("Vary", "Bar"), by=by)
        assert entry is not None and (entry.vary, entry.selected) == (("bar",), ("2",))
        assert again(old, TAG, ("Vary", "*"), by=by) is None

    def test_what_was_for_one_user_stays_out(self) -> None:
        fields = TAG, ("Cache-Control", 'private="x", max-age=5'), ("X", "1")
        assert field(again(stored(TAG, FRESH), *fields), "X") == []
        anna = Asked.of("GET", URI, [], partition="anna")
        assert field(again(stored(TAG, FRESH, by=anna), *fields, by=anna), "X") == []
        assert field(again(stored(TAG, FRESH, by=anna), *fields, by=anna, rules=CachingRules(per_user=True)), "X") == ["1"]


class TestHead:
    def head(self, entry: Entry, *fields: tuple[str, str], rules: CachingRules = RULES, **more: Any) -> Entry | None:
        return updated_by_head(entry, lines(*fields), requested_at=WALL + 100, received_at=WALL + 100, now=100.0, rules=rules, **more)

    def test_it_freshens(self) -> None:
        entry = self.head(stored(TAG, FRESH, ("A", "1"), ("B", "1")), TAG, ("Content-Length", "10"), ("A", "2"))
        assert entry is not None and look(entry, asked(), 101.0, RULES) is Use.FRESH
        assert field(entry, "A") == ["2"] and field(entry, "B") == ["1"]

    def test_one_without_validators_too(self) -> None:
        assert self.head(stored(FRESH), ("Cache-Control", "max-age=1000")) is not None

    @pytest.mark.parametrize("other", [("ETag", '"b"'), ("Last-Modified", at(-1)), ("Content-Length", "11"), ("Content-Length", "x")])
    def test_one_that_differs_means_that_the_stored_one_is_old(self, other: tuple[str, str]) -> None:
        assert self.head(stored(TAG, FRESH), other) is None

    def test_the_operators_lifetime_is_spread_again(self) -> None:
        rules = CachingRules(ttl=100.0, jitter=0.1)
        fresh, spread = self.head(stored(), rules=rules), self.head(stored(), rules=rules, chance=0.5)
        assert fresh is not None and spread is not None
        assert fresh.lifetime == 100 and spread.lifetime == pytest.approx(95)

    def test_it_may_vary_by_something_else_from_now_on(self) -> None:
        by = asked(("Foo", "1"), ("Bar", "2"))
        entry = self.head(stored(TAG, ("Vary", "Foo"), by=by), ("Vary", "Bar"), asked=by)
        assert entry is not None and (entry.vary, entry.selected) == (("bar",), ("2",))

    def test_only_a_200_is_updated(self) -> None:
        assert self.head(stored(FRESH, status=404), FRESH) is None


class TestOwnConditions:
    @pytest.mark.parametrize(
        ("tag", "condition", "matches"),
        [
            ('"a"', '"a"', True),
            ('"a"', 'W/"a"', True),
            ('W/"a"', '"a"', True),
            ('W/"a"', 'W/"a"', True),
            ('"a"', '"1", "a", "2"', True),
            ('"a"', '"1","2" , "a"', True),
            ('"a"', "*", True),
            ('"ü"', '"ü"', True),
            ('"a, b"', '"a, b"', True),
            ('"a"', '"b"', False),
            ('"a"', '"A"', False),
            ('"a"', '"a, b"', False),
            ('"a"', "a", False),
            ('"a"', "", False),
            ('"a"', '"', False),
        ],
    )
    def test_if_none_match(self, tag: str, condition: str, matches: bool) -> None:
        found = answer_to(asked(("If-None-Match", condition)), stored(FRESH, ("ETag", tag)))
        assert (found is not None and found[0] == 304) is matches

    def test_a_304_says_what_it_must(self) -> None:
        fields = [
            ("Date", at(0)),
            ("ETag", '"a"'),
            FRESH,
            ("Expires", at(60)),
            ("Vary", "Foo"),
            ("Content-Location", "/b"),
            ("Last-Modified", at(-5)),
            ("Content-Type", "text/plain"),
            ("Content-Length", "10"),
            ("X", "1"),
        ]
        found = answer_to(asked(("If-None-Match", '"a"')), stored(*fields))
        assert found == (304, tuple(lines(*fields[:6])), b"")
        found = answer_to(asked(("If-None-Match", "*")), stored(*fields[:1], *fields[2:]))
        assert found is not None and [line[0] for line in found[1]][-1] == b"Last-Modified"  # the only validator

    @pytest.mark.parametrize(
        ("fields", "since", "matches"),
        [
            ([("Last-Modified", at(-300))], at(-300), True),
            ([("Last-Modified", at(-300))], at(-200), True),
            ([("Last-Modified", at(-300))], at(-301), False),
            ([("Date", at(0))], at(0), True),
            ([("Date", at(0))], at(-1), False),
            ([("Last-Modified", at(-300))], "yesterday", False),
            ([("Last-Modified", "yesterday")], "yesterday", False),
        ],
    )
    def test_if_modified_since(self, fields: list[tuple[str, str]], since: str, matches: bool) -> None:
        found = answer_to(asked(("If-Modified-Since", since)), stored(FRESH, *fields))
        assert (found is not None and found[0] == 304) is matches

    def test_a_date_in_an_old_form(self) -> None:
        entry = stored(FRESH, ("Last-Modified", "Sun, 06 Nov 1994 08:49:37 GMT"))
        for date in ("Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"):
            found = answer_to(asked(("If-Modified-Since", date)), entry)
            assert found is not None and found[0] == 304

    def test_tags_take_precedence_over_dates(self) -> None:
        entry = stored(FRESH, TAG, ("Last-Modified", at(-300)))
        found = answer_to(asked(("If-None-Match", '"a"'), ("If-Modified-Since", at(-5000))), entry)
        assert found is not None and found[0] == 304
        assert answer_to(asked(("If-None-Match", '"b"'), ("If-Modified-Since", at(0))), entry) is None

    @pytest.mark.parametrize(("status", "found"), [(200, True), (299, True), (300, False), (404, False)])
    def test_conditions_are_for_good_answers(self, status: int, found: bool) -> None:
        answer = answer_to(asked(("If-None-Match", '"a"')), stored(FRESH, TAG, status=status))
        assert (answer is not None and answer[0] == 304) is found

    def test_years_of_two_digits_are_read_by_the_moment_at_which_it_came(self) -> None:
        in_2077 = "Saturday, 06-Nov-77 08:49:37 GMT"  # fifty years ahead, and no more
        found = answer_to(asked(("If-Modified-Since", in_2077)), stored(FRESH, ("Last-Modified", at(-300))))
        assert found is not None and found[0] == 304
        late = stored(FRESH, ("Last-Modified", in_2077))
        assert answer_to(asked(("If-Modified-Since", at(0))), late) is None
        assert answer_to(asked(("Range", "bytes=0-1"), ("If-Range", in_2077)), late) is None  # made before it was changed

    def test_those_for_the_origin_are_passed_over(self) -> None:
        assert answer_to(asked(("If-Match", '"b"')), stored(FRESH, TAG)) is None

    def test_a_plain_request_gets_the_whole(self) -> None:
        assert answer_to(asked(), stored(FRESH, TAG)) is None

    def test_head_gets_it_without_the_body(self) -> None:
        entry = stored(FRESH, TAG, ("Content-Length", "10"))
        assert answer_to(asked(method="HEAD"), entry) == (200, entry.fields, b"")
        found = answer_to(asked(("If-None-Match", '"a"'), method="HEAD"), entry)
        assert found is not None and found[0] == 304
        assert answer_to(asked(("Range", "bytes=0-1"), method="HEAD"), entry) == (200, entry.fields, b"")


class TestRanges:
    @pytest.mark.parametrize(
        ("wanted", "body", "content_range"),
        [
            ("bytes=0-1", b"01", b"bytes 0-1/10"),
            ("bytes=1-", b"123456789", b"bytes 1-9/10"),
            ("bytes=-1", b"9", b"bytes 9-9/10"),
            ("bytes=-100", b"0123456789", b"bytes 0-9/10"),
            ("bytes=5-100", b"56789", b"bytes 5-9/10"),
            ("Bytes=9-9", b"9", b"bytes 9-9/10"),
            ("bytes=0-999999999999999999", b"0123456789", b"bytes 0-9/10"),
        ],
    )
    def test_one_range(self, wanted: str, body: bytes, content_range: bytes) -> None:
        found = answer_to(asked(("Range", wanted)), stored(FRESH, TAG, ("A", "1"), ("content-length", "10"), ("Content-MD5", "x")))
        assert found is not None and found[0] == 206 and found[2] == body
        fields = dict(found[1])
        assert fields[b"Content-Range"] == content_range and fields[b"Content-Length"] == str(len(body)).encode()
        assert fields[b"A"] == b"1" and fields[b"ETag"] == b'"a"'
        assert b"content-length" not in fields and b"Content-MD5" not in fields

    @pytest.mark.parametrize("wanted", ["bytes=10-", "bytes=10-20", "bytes=999-", "bytes=-0"])
    def test_one_that_is_not_there(self, wanted: str) -> None:
        found = answer_to(asked(("Range", wanted)), stored(FRESH))
        assert found == (416, ((b"Content-Range", b"bytes */10"), (b"Content-Length", b"0")), b"")

    @pytest.mark.parametrize(
        "wanted",
        [
            "bytes=0-1, 4-5",
            "bytes=",
            "bytes=-",
            "bytes=2-1",
            "bytes=10-5",
            "bytes=20-5",
            "lines=0-1",
            "0-1",
            "bytes=a-b",
            "",
            "bytes=٣-",
            "\x0bbytes=0-1",
            "Xbytes=0-1",
        ],
    )
    def test_several_or_none_get_the_whole(self, wanted: str) -> None:
        request = Asked.of("GET", URI, [(b"Range", wanted.encode())])
        assert answer_to(request, stored(FRESH)) is None

    def test_of_other_answers_there_are_no_parts(self) -> None:
        assert answer_to(asked(("Range", "bytes=0-1")), stored(FRESH, status=404)) is None
        assert answer_to(asked(("Range", "bytes=0-1")), stored(FRESH, body=b"")) is None

    @pytest.mark.parametrize(
        ("fields", "condition", "part"),
        [
            ([TAG], '"a"', True),
            ([TAG], '"b"', False),
            ([TAG], 'W/"a"', False),
            ([("ETag", 'W/"a"')], 'W/"a"', False),
            ([("Last-Modified", at(-300)), ("Date", at(0))], at(-300), True),
            ([("Last-Modified", at(-300)), ("Date", at(0))], at(-200), False),
            ([("Last-Modified", at(-1)), ("Date", at(0))], at(-1), True),
            ([("Last-Modified", at(0)), ("Date", at(0))], at(0), False),  # it may have changed within the same second
            ([TAG], at(0), False),
        ],
    )
    def test_if_range(self, fields: list[tuple[str, str]], condition: str, part: bool) -> None:
        found = answer_to(asked(("Range", "bytes=0-1"), ("If-Range", condition)), stored(FRESH, *fields))
        assert (found is not None and found[0] == 206) is part

    def test_a_condition_comes_before_a_range(self) -> None:
        found = answer_to(asked(("Range", "bytes=0-1"), ("If-None-Match", '"a"')), stored(FRESH, TAG))
        assert found is not None and found[0] == 304


def test_weak_comparison() -> None:
    assert weakly_equal('W/"1"', '"1"') and not weakly_equal('W/"1"', 'W/"2"') and not weakly_equal('w/"1"', '"1"')
