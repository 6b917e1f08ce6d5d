"""What a request says of itself, and which answers of a URI it may have."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core import vary
from resilient.core.asked import Asked
from resilient.core.vary import selected, vary_names

URI = "https://api.example.com/a?b=1"


def asked(*fields: tuple[str, str], method: str = "GET", partition: str | None = None) -> Asked:
    return Asked.of(method, URI, [(name.encode(), value.encode("latin-1")) for name, value in fields], partition=partition)


def test_fields_are_found_whatever_their_case_and_lines_are_joined() -> None:
    request = asked(("FOO", "1"), ("foo", "2"), ("Bar", "ü"))
    assert request.get("foo") == "1, 2" and request.get("bar") == "ü" and request.get("none") is None
    assert request.plain and not request.conditional and not request.ranged and not request.directives


def test_its_lines_are_as_they_came() -> None:
    lines = [(b"FOO", b"1"), (b"foo", b"2")]
    assert Asked.of("GET", URI, lines).fields == lines


def test_any_name_may_be_asked_for() -> None:
    request = Asked.of("GET", URI, [(b"\xfc", b"1")])
    assert request.get("ü") == "1" and request.get("€") is None and request.get("\udcfc") is None


def test_the_fragment_is_not_sent() -> None:
    assert Asked.of("GET", URI + "#part", []).uri == URI
    assert Asked.of("GET", URI + "#part#of", []).uri == URI


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (("If-None-Match", '"a"'), {"conditional"}),
        (("if-modified-since", "x"), {"conditional"}),
        (("If-Match", '"a"'), {"conditional", "for_origin"}),
        (("If-Unmodified-Since", "x"), {"conditional", "for_origin"}),
        (("Range", "bytes=0-1"), {"ranged"}),
        (("Cache-Control", "No-Store"), {"no_store"}),
        (("Cache-Control", "only-if-cached, max-stale"), {"only_if_cached"}),
        (("Content-Length", "3"), {"has_content"}),
        (("Transfer-Encoding", "chunked"), {"has_content"}),
        (("Content-Length", "0"), set()),
        (("Authorization", "x"), {"identified"}),
        (("Cookie", "x"), {"identified"}),
        (("x-api-key", "x"), {"identified"}),
        (("X-Other", "x"), set()),
        (("X-Forwarded-Host", "evil"), {"suspicious"}),
        (("X-Forwarded-Anything", "evil"), {"suspicious"}),
        (("X-Original-URL", "/admin"), {"suspicious"}),
        (("X-HTTP-Method-Override", "DELETE"), {"suspicious"}),
    ],
)
def test_what_a_field_means(field: tuple[str, str], expected: set[str]) -> None:
    request = asked(field)
    words = ("conditional", "for_origin", "ranged", "no_store", "only_if_cached", "has_content", "identified", "suspicious")
    assert {word for word in words if getattr(request, word)} == expected
    assert request.plain is expected.isdisjoint({"conditional", "ranged", "no_store", "only_if_cached"})


def test_the_operator_knows_of_more_identities() -> None:
    fields = [(b"X-Tenant", b"7")]
    assert not Asked.of("GET", URI, fields).identified
    assert Asked.of("GET", URI, fields, identity=frozenset({"x-tenant"})).identified


def test_pragma_counts_where_there_is_no_cache_control() -> None:
    assert "no-cache" in asked(("Pragma", "No-Cache")).directives
    assert "no-cache" not in asked(("Pragma", "no-cache"), ("Cache-Control", "max-age=5")).directives
    assert not asked(("Pragma", "foo")).directives


class TestCollapsing:
    def test_the_same_request_waits_for_one_answer(self) -> None:
        one = asked(("A", "1"), ("B", "2"), ("traceparent", "x"), ("X-Request-Id", "1"), ("User-Agent", "a"))
        other = asked(("b", "2"), ("a", "1"), ("traceparent", "y"), ("X-Request-Id", "2"), ("Date", "now"))
        assert one.collapse_key() == other.collapse_key() and hash(one.collapse_key()) == hash(other.collapse_key())

    @pytest.mark.parametrize(
        "other",
        [
            asked(("A", "2")),
            asked(),
            asked(("A", "1"), ("Accept-Language", "de")),
            asked(("A", "1"), ("Cookie", "x")),
            asked(("A", "1"), method="HEAD"),
            asked(("A", "1"), partition="tenant"),
            Asked.of("GET", URI + "2", [(b"A", b"1")]),
        ],
    )
    def test_nothing_else_does(self, other: Asked) -> None:
        assert asked(("A", "1")).collapse_key() != other.collapse_key()


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ([], ()),
        (["Foo"], ("foo",)),
        (["X-Foo"], ("x-foo",)),
        (["Foo, BAR", "foo"], ("bar", "foo")),
        ([""], ()),
        (["*"], None),
        ([", *"], None),
        (["", "*"], None),
        (["Foo, *"], None),
        (["foo bar"], None),
        (["f\u00fcr"], None),
        (["foo\xa0"], None),  # white space to Python, and to RFC 9110 (section 5.6.3) a part of the name
        ([",".join(f"x{number:02}" for number in range(32))], tuple(f"x{number:02}" for number in range(32))),
        ([",".join(f"x{number:02}" for number in range(33))], None),
    ],
)
def test_vary(lines: list[str], expected: tuple[str, ...] | None) -> None:
    assert vary_names([(b"Vary", line.encode("latin-1")) for line in lines]) == expected


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("Foo", ["1, 2"], ["1", "2"]),
        ("Foo", ["1,2"], [" 1 ,\t2 "]),
        ("Accept-Language", ["en, de"], ["de, en"]),
        ("Accept-Language", ["en, de"], ["eN , De"]),
        ("Accept-Language", ["en;q=1.0, de;q=0.50"], ["de ; q=0.5,en"]),
        ("Accept-Encoding", ["gzip, br"], ["BR", "gzip"]),
        ("Accept-Encoding", ["gzip, gzip"], ["gzip"]),
        ("Accept-Encoding", ["gzip,, br,"], ["gzip, br"]),  # RFC 9110 section 5.6.1.2
    ],
)
def test_what_makes_no_difference(name: str, one: list[str], other: list[str]) -> None:
    names = (name.lower(),)
    assert selected(asked(*((name, line) for line in one)), names) == selected(asked(*((name, line) for line in other)), names)


@pytest.mark.parametrize(
    ("name", "one", "other"),
    [
        ("Foo", ["1"], ["2"]),
        ("Foo", ["1"], []),
        ("Foo", [""], []),
        ("Foo", ["a"], ["A"]),
        ("Foo", ["1,2"], ["2,1"]),
        ("Foo", ["1 2"], ["12"]),
        ("Foo", ["1\xa0"], ["1"]),
        ("Foo", ["X1X"], ["1"]),
        ("Accept-Language", ["en, \xa0de"], ["en, de"]),
        ("Foo", ['"1, 2"'], ['"1,2"']),
        ("Accept-Language", ["en;q=0.1, de"], ["en, de;q=0.1"]),
        ("Accept-Encoding", ["gzip;q=0"], ["gzip"]),
        ("Accept-Encoding", ["gzip"], ["br"]),
        ("Cookie", ["a=1"], ["a=2"]),
    ],
)
def test_what_does(name: str, one: list[str], other: list[str]) -> None:
    names = (name.lower(),)
    assert selected(asked(*((name, line) for line in one)), names) != selected(asked(*((name, line) for line in other)), names)


def test_several_fields_and_those_that_are_not_there() -> None:
    assert selected(asked(("Foo", "1"), ("Baz", "3")), ("bar", "baz", "foo")) == (None, "3", "1")
    assert selected(asked(), ()) == ()


def test_the_normal_form() -> None:
    """Stores keep it, so that it outlives the version that wrote it."""
    request = asked(("Foo", "a , B"), ("Accept-Language", "EN , de;q=0.50"))
    assert selected(request, ("accept-language", "foo")) == ("de;q=0.5,en", "a,B")


@pytest.mark.parametrize(("length", "kept"), [(256, 1), (257, 0)])
def test_a_long_list_is_normal_as_well_and_not_remembered(length: int, kept: int) -> None:
    def said(value: str) -> tuple[str | None, ...]:
        assert len(value) == length
        return selected(asked(("Accept-Language", value)), ("accept-language",))

    vary._remembered.cache_clear()
    tag = "x" * (length - 3)
    assert said(f"{tag},de") == (f"de,{tag}",)
    assert vary._remembered.cache_info().currsize == kept
    assert said(f"de,{tag}") == (f"de,{tag}",)


def test_no_credential_is_kept_as_it_is() -> None:
    (kept,) = selected(asked(("Authorization", "Bearer secret")), ("authorization",))
    assert kept is not None and "secret" not in kept and len(kept) == 64


NAMES = st.sampled_from(["foo", "accept-language", "accept-encoding", "cookie"])


@given(NAMES, st.text(st.characters(max_codepoint=255), max_size=30), st.text(st.characters(max_codepoint=255), max_size=30))
def test_the_normal_form_forgets_only_space_and_of_lists_case_and_order(name: str, one: str, other: str) -> None:
    same = selected(asked((name, one)), (name,)) == selected(asked((name, other)), (name,))
    if one == other:
        assert same
    elif same and name in {"foo", "cookie"}:
        assert one.replace(" ", "").replace("\t", "") == other.replace(" ", "").replace("\t", "")
    elif same and "q" not in (one + other).lower():
        letters = [set(text.lower().replace(" ", "").replace("\t", "").split(",")) - {""} for text in (one, other)]
        assert letters[0] == letters[1] or '"' in one
