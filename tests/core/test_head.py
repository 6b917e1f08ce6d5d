"""The fields of a message: by name, in text, and those that are meant for one connection."""

from __future__ import annotations

import pytest

from resilient.core.head import HOP_BY_HOP, Head, joined


def test_lines_are_kept_by_name_whatever_its_case() -> None:
    head = Head([(b"VIA", b"1.1 a"), (b"via", b"1.1 b"), (b"ETag", b'"a"')])
    assert head.values == {b"via": [b"1.1 a", b"1.1 b"], b"etag": [b'"a"']}
    assert b"via" in head and b"VIA" not in head
    assert head.get(b"via") == "1.1 a, 1.1 b" and head.first(b"via") == "1.1 a"
    assert head.get(b"age") is None is head.first(b"age")
    assert Head.of(head) is head


@pytest.mark.parametrize(
    ("line", "value"),
    [
        (b" \ta \t", "a"),
        (b"XaX", "XaX"),
        (b"\xa0a\x85", "\xa0a\x85"),  # white space to Python, and to RFC 9110 (section 5.6.3) part of the value
        (b"\x0ba\x0c", "\x0ba\x0c"),
        (b"\xfc\xff", "üÿ"),
    ],
)
def test_only_blanks_and_tabs_surround_a_value_and_no_byte_is_foreign(line: bytes, value: str) -> None:
    head = Head([(b"X", line)])
    assert head.first(b"x") == value
    assert joined([line, line]) == f"{value}, {value}"


@pytest.mark.parametrize("name", [*sorted(HOP_BY_HOP), b"age", b"cache-groups", b"content-range", b"set-cookie", b"vary"])
def test_plain_is_what_has_nothing_to_look_at_closely(name: bytes) -> None:
    plain = [(b"Date", b"x"), (b"Cache-Control", b"no-store"), (b"ETag", b"x"), (b"Cache-Status", b"x")]
    assert Head([]).plain is Head(plain).plain is True
    assert Head([*plain, (name.title(), b"x")]).plain is False


@pytest.mark.parametrize(
    ("lines", "length"),
    [
        ([], None),
        ([b"0"], 0),
        ([b"2048"], 2048),
        ([b"9" * 15], 10**15 - 1),
        ([b"9" * 16], None),
        ([b"-1"], None),
        ([b""], None),
        ([b"5", b"7"], 7),
        ([b"5", b"x"], None),
    ],
)
def test_the_length_of_the_body_where_it_is_said(lines: list[bytes], length: int | None) -> None:
    assert Head([(b"Content-Length", line) for line in lines]).length == length


def test_what_connection_lists_belongs_to_the_connection() -> None:
    assert Head([]).hop_by_hop() == HOP_BY_HOP
    head = Head([(b"Connection", b"close, \tX-Trace\t"), (b"connection", b"\xa0y,\xfc")])
    assert head.hop_by_hop() - HOP_BY_HOP == {b"close", b"x-trace", b"\xa0y", b"\xfc"}
