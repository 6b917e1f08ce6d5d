"""What the directives of an answer come to."""

from __future__ import annotations

from typing import Any

import pytest

from resilient.core.directives import REMEMBERED
from resilient.core.head import Head
from resilient.core.terms import NOTHING_SAID, Terms, terms_of

NAMES = [name for name in Terms.__slots__ if name != "directives"]
SILENCE = {name: getattr(NOTHING_SAID, name) for name in NAMES}


def test_silence() -> None:
    expected = {
        "everybody": False,
        "max_age": None,
        "mild": True,
        "private": False,
        "private_fields": frozenset(),
        "s_maxage": None,
        "stale_if_error": 0.0,
        "stale_while_revalidate": 0.0,
        "strict": False,
        "strict_if_shared": False,
        "unvalidated_fields": frozenset(),
        "validated": False,
    }
    assert expected == SILENCE


@pytest.mark.parametrize(
    ("value", "says"),
    [
        ("max-age=60", {"max_age": 60.0}),
        ("Max-Age=60, max-age=5", {"max_age": 60.0}),
        ("max-age", {"max_age": 0.0}),
        ("max-age=-1, s-maxage=x", {"max_age": 0.0, "s_maxage": 0.0, "everybody": True, "strict_if_shared": True}),
        ("s-maxage=5", {"s_maxage": 5.0, "everybody": True, "strict_if_shared": True}),
        ("proxy-revalidate", {"strict_if_shared": True}),
        ("must-revalidate", {"strict": True, "strict_if_shared": True}),
        ("public", {"everybody": True}),
        ("private", {"private": True, "mild": False}),
        ("public, private", {"private": True, "mild": False}),
        ('private="X-User, x-b "', {"private_fields": frozenset({"x-user", "x-b"}), "mild": False}),
        ('public, private="x y"', {"private": True, "mild": False}),
        ("no-cache", {"validated": True, "mild": False}),
        ('no-cache="set-cookie"', {"unvalidated_fields": frozenset({"set-cookie"}), "mild": False}),
        ('no-cache=""', {"validated": True, "mild": False}),
        ("no-store", {"mild": False}),
        ("must-understand", {"mild": False}),
        ("stale-while-revalidate=3, stale-if-error=4", {"stale_while_revalidate": 3.0, "stale_if_error": 4.0}),
        ("stale-while-revalidate, stale-if-error=x", {}),
        ("immutable, no-transform", {}),
    ],
)
def test_what_it_says(value: str, says: dict[str, Any]) -> None:
    terms = terms_of(value)
    assert {name: getattr(terms, name) for name in NAMES} == SILENCE | says


def test_the_same_words_are_worked_out_once_and_long_ones_each_time() -> None:
    assert terms_of("max-age=60") is terms_of("max-age=60")
    longest = "max-age=60,".ljust(REMEMBERED, "x")
    assert terms_of(longest) is terms_of(longest)
    long = longest + "x"
    assert terms_of(long) is not terms_of(long) and terms_of(long).max_age == 60.0


def test_a_head_has_them() -> None:
    head = Head([(b"Cache-Control", b" max-age=60\t"), (b"cache-control", b"public")])
    assert head.terms is terms_of("max-age=60, public") and head.directives is head.terms.directives
    assert Head([]).terms is NOTHING_SAID and Head([(b"cache-control", b"\tpublic ")]).terms.everybody
