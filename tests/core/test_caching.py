"""What is kept, what is given to several at once, and for each refusal its word."""

from __future__ import annotations

from typing import Any

import pytest

from resilient.core.asked import Asked
from resilient.core.caching import CachingRules, why_not_shared, why_not_stored
from resilient.core.head import Head

URI = "https://api.example.com/a"
FRESH = ("Cache-Control", "max-age=60")
LATE = "Fri, 01 Jan 2038 01:01:01 GMT"


def asked(*fields: tuple[str, str], method: str = "GET", partition: str | None = None) -> Asked:
    return Asked.of(method, URI, [(name.encode(), value.encode()) for name, value in fields], partition=partition)


def stored(*fields: tuple[str, str], status: int = 200, by: Asked | None = None, **rules: Any) -> str | None:
    return why_not_stored(by or asked(), status, [(name.encode(), value.encode()) for name, value in fields], CachingRules(**rules))


def control(value: str) -> tuple[str, str]:
    return "Cache-Control", value


@pytest.mark.parametrize("status", [200, 203, 204, 299, 301, 302, 303, 307, 308, 400, 404, 410, 499, 500, 502, 503, 504, 599])
def test_whatever_says_how_long_is_kept(status: int) -> None:
    assert stored(FRESH, status=status) is None
    assert stored(("Expires", LATE), status=status) is None


@pytest.mark.parametrize("status", [200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501])
def test_what_says_nothing_is_kept_for_its_validator(status: int) -> None:
    assert stored(("ETag", '"a"'), status=status) is None
    assert stored(status=status) == "no-lifetime"


@pytest.mark.parametrize("status", [201, 202, 302, 303, 307, 400, 500, 502, 503, 504, 599])
def test_and_not_if_its_status_is_none_of_those(status: int) -> None:
    assert stored(("ETag", '"a"'), ("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"), status=status) == "no-lifetime"
    assert stored(("ETag", '"a"'), control("public"), status=status) is None


def test_for_whom_it_is_kept_says_that_it_is() -> None:
    etag = ("ETag", '"a"')
    assert stored(control("s-maxage=60"), etag, status=302) is None
    assert stored(control("private"), etag, status=302, shared=False) is None
    # To a private cache it means nothing what is said to shared ones, nor the other way round.
    assert stored(control("s-maxage=60"), etag, status=302, shared=False) == "no-lifetime"
    anna = asked(("Authorization", "x"), partition="anna")
    assert stored(control("private"), etag, status=302, by=anna, per_user=True) == "no-lifetime"


@pytest.mark.parametrize(
    ("fields", "status", "why"),
    [
        ([control("no-store, max-age=60")], 200, "no-store"),
        ([control("max-age=60"), control("No-StOrE")], 200, "no-store"),
        ([control("no-store, must-understand, max-age=60")], 200, None),
        ([control("max-age=60, must-understand")], 599, "status"),
        ([control("private, max-age=60")], 200, "private"),
        ([control('private="x y", max-age=60')], 200, "private"),
        ([control('private="set-cookie", max-age=60'), ("Set-Cookie", "a=b")], 200, None),
        ([control('no-cache="set-cookie", max-age=60'), ("Set-Cookie", "a=b")], 200, None),
        ([FRESH, ("Set-Cookie", "a=b")], 200, "set-cookie"),
        ([control("public, max-age=60"), ("Set-Cookie", "a=b")], 200, "set-cookie"),
        ([FRESH, ("Vary", "*")], 200, "vary"),
        ([FRESH, ("Vary", "a"), ("Vary", ", *")], 200, "vary"),
        ([FRESH, ("Content-Type", "Text/Event-Stream; charset=utf-8")], 200, "event-stream"),
        ([FRESH, ("Content-Type", "text/plain"), ("Content-Type", "text/event-stream")], 200, "event-stream"),
        ([FRESH, ("Content-Range", "bytes 0-4/10")], 200, "partial"),
        ([FRESH, ("Content-Range", "nonsense")], 200, None),
        ([FRESH], 206, "partial"),
        ([FRESH], 304, "status"),
        ([FRESH], 101, "status"),
        ([FRESH], 600, "status"),
        ([FRESH], 416, "status"),
        ([FRESH], 428, "status"),
        ([FRESH], 429, "status"),
        ([FRESH], 431, "status"),
        ([FRESH], 511, "status"),
        ([FRESH], 999, "status"),
        ([FRESH], 401, "status"),
        ([control("public, max-age=60")], 401, None),
        ([FRESH, ("X-Large", "x" * 70_000)], 200, "fields"),
        ([FRESH, ("X", "x" * (65_536 - 1 - 23))], 200, None),
        ([FRESH, ("X", "x" * (65_536 - 23))], 200, "fields"),
        ([control("max-age=1")], 200, None),
        ([control('private="set-cookie,", max-age=60'), ("Set-Cookie", "a=b")], 200, None),  # RFC 9110 section 5.6.1.2
        ([control('private="\x0bset-cookie", max-age=60'), ("Set-Cookie", "a=b")], 200, "private"),
        ([control('private="Xset-cookieX", max-age=60'), ("Set-Cookie", "a=b")], 200, "set-cookie"),
        ([control("max-age=0")], 200, "no-lifetime"),
        ([control("max-age=0"), ("ETag", '"a"')], 200, None),
        ([control("max-age=0"), ("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT")], 200, None),
        ([control("max-age=0, stale-if-error=5")], 200, None),
        ([control("max-age=0, stale-while-revalidate=5")], 200, None),
        ([control("max-age=0, stale-if-error=5, must-revalidate")], 200, "no-lifetime"),
        ([control("max-age=60, no-cache")], 200, "no-lifetime"),
        ([control("no-cache"), ("ETag", '"a"')], 200, None),
    ],
)
def test_answers(fields: list[tuple[str, str]], status: int, why: str | None) -> None:
    assert stored(*fields, status=status) == why


@pytest.mark.parametrize("judge", [why_not_stored, why_not_shared])
def test_what_is_no_part_of_anything_is_partial_to_who_asked_for_one(judge: Any) -> None:
    ranged, fields, rules = asked(("Range", "bytes=9-")), [(b"Cache-Control", b"max-age=60")], CachingRules()
    assert judge(ranged, 416, fields, rules) == "partial" and judge(asked(), 416, fields, rules) == "status"
    assert judge(ranged, 417, fields, rules) == "status" and judge(ranged, 200, fields, rules) is None


@pytest.mark.parametrize(
    ("by", "why"),
    [
        (asked(method="POST"), "method"),
        (asked(method="HEAD"), "method"),
        (asked(method="get"), "method"),
        (asked(("Content-Length", "5")), "body"),
        (asked(("Transfer-Encoding", "chunked")), "body"),
        (asked(("Cache-Control", "no-store")), "request-no-store"),
        (asked(("Range", "bytes=0-1")), None),
        (asked(("If-None-Match", '"a"')), None),
        (asked(("X-Forwarded-Host", "evil")), "unkeyed"),
        (asked(("X-Original-URL", "/admin")), "unkeyed"),
        (asked(("Cookie", "a=b")), "identity"),
        (asked(("Cookie", "a=b"), partition="anna"), None),
        (asked(("Authorization", "x")), "authorization"),
        (asked(("Authorization", "x"), partition="anna"), "authorization"),
    ],
)
def test_requests(by: Asked, why: str | None) -> None:
    assert stored(FRESH, by=by) == why


class TestAuthorization:
    @pytest.mark.parametrize("value", ["public", "s-maxage=60", "public, must-revalidate"])
    def test_what_is_for_everybody_is_kept_for_everybody(self, value: str) -> None:
        assert stored(control(f"max-age=60, {value}"), by=asked(("Authorization", "x"))) is None

    def test_must_revalidate_lets_it_be_kept_but_not_for_everybody(self) -> None:
        value = control("max-age=60, must-revalidate")
        assert stored(value, by=asked(("Authorization", "x"), partition="anna")) is None
        assert stored(value, by=asked(("Authorization", "x"))) == "identity"

    def test_a_partition_of_one_user_keeps_what_is_that_users(self) -> None:
        anna = asked(("Authorization", "x"), partition="anna")
        assert stored(FRESH, by=anna, per_user=True) is None
        assert stored(control("private, max-age=60"), by=anna, per_user=True) is None
        assert stored(FRESH, by=asked(("Authorization", "x")), per_user=True) == "authorization"
        assert stored(control("private, max-age=60"), by=anna) == "private"

    def test_so_does_a_private_cache(self) -> None:
        anna = asked(("Authorization", "x"), partition="anna")
        assert stored(FRESH, by=anna, shared=False) is None
        private = [(b"Cache-Control", b"private, max-age=60")]
        assert why_not_stored(asked(), 200, private, CachingRules(shared=False)) is None
        assert why_not_stored(asked(), 302, [(b"Cache-Control", b"private"), (b"ETag", b'"a"')], CachingRules(shared=False)) is None


class TestUnkeyed:
    def test_unless_the_origin_names_it(self) -> None:
        by = asked(("X-Forwarded-Host", "other"))
        assert stored(FRESH, ("Vary", "X-Forwarded-Host"), by=by) is None
        assert stored(FRESH, ("Vary", "X-Forwarded-Proto"), by=by) == "unkeyed"

    def test_or_the_operator(self) -> None:
        by = asked(("X-Forwarded-For", "192.0.2.1"))
        assert stored(FRESH, by=by, unkeyed=frozenset({"x-forwarded-for"})) is None
        assert stored(FRESH, by=asked(("X-Forwarded-Host", "a")), unkeyed=frozenset({"x-forwarded-for"})) == "unkeyed"


def test_a_fallback_keeps_answers_that_say_nothing() -> None:
    assert stored(stale_if_error=300.0) is None
    assert stored(ttl=5.0) is None
    assert stored(stale_while_revalidate=5.0) is None
    assert stored(stale_if_error=0.5) is None and stored(stale_while_revalidate=0.5) is None
    assert stored(status=404, stale_if_error=300.0) == "no-lifetime"
    for status, why in ((399, None), (400, "no-lifetime")):  # only good answers do
        assert stored(control("max-age=0"), status=status, stale_if_error=300.0) == why
        assert stored(control("max-age=0"), status=status, stale_while_revalidate=300.0) == why
    assert stored(status=404, negative_ttl={404: 5.0}) is None
    assert stored(control("max-age=0, must-revalidate"), stale_if_error=300.0) == "no-lifetime"
    assert stored(control("max-age=0, must-revalidate"), stale_if_error=300.0, ignore_origin_prohibition=True) is None
    assert stored(control("no-store"), stale_if_error=300.0, ignore_origin_prohibition=True) == "no-store"


@pytest.mark.parametrize("forbidding", ["no-cache", "max-age=0, must-revalidate"])
def test_what_is_forbidden_is_worth_keeping_only_where_that_is_ignored_and_a_fallback_wanted(forbidding: str) -> None:
    assert stored(control(forbidding), stale_if_error=300.0, ignore_origin_prohibition=True) is None
    assert stored(control(forbidding), stale_if_error=300.0) == "no-lifetime"
    assert stored(control(forbidding), ignore_origin_prohibition=True) == "no-lifetime"


def test_cookies_are_kept_if_the_operator_says_so() -> None:
    assert stored(FRESH, ("Set-Cookie", "a=b"), set_cookie=True) is None


def test_a_cookie_for_one_user_is_no_hindrance_where_it_is_left_out() -> None:
    anna, cookie = asked(partition="anna"), ("Set-Cookie", "a=b")
    assert stored(control('public, max-age=60, private="set-cookie"'), cookie, by=anna, per_user=True) is None
    # In a partition of one user it would be kept, and set again.
    assert stored(control('max-age=60, private="set-cookie"'), cookie, by=anna, per_user=True) == "set-cookie"


@pytest.mark.parametrize(
    ("fields", "status", "why"),
    [
        ([FRESH], 200, None),
        ([FRESH], 404, None),
        ([control("no-store")], 200, "no-store"),
        ([control("no-store")], 503, "no-store"),
        ([control("no-store, must-understand, max-age=60")], 200, None),
        ([control("must-understand, max-age=60")], 299, "status"),
        ([("Expires", LATE)], 200, None),
        ([("Last-Modified", "Wed, 01 Jan 2020 00:00:00 GMT"), ("Date", LATE)], 200, None),
        ([control("private, max-age=60")], 200, "private"),
        ([FRESH, ("Set-Cookie", "a=b")], 200, "set-cookie"),
        ([FRESH, ("Vary", "*")], 200, "vary"),
        ([control("public, max-age=60")], 401, "status"),
        ([control("public, max-age=60")], 403, "status"),
        ([control("public, max-age=60")], 407, "status"),
        ([FRESH], 429, "status"),
        ([FRESH], 206, "partial"),
        ([FRESH], 304, "status"),
        ([FRESH, ("Content-Type", "text/event-stream")], 200, "event-stream"),
        ([control("max-age=60, no-cache"), ("ETag", '"a"')], 200, "no-cache"),
        ([control("max-age=60"), ("Age", "60")], 200, "stale"),
        ([control("max-age=60"), ("Age", "x")], 200, "stale"),
        ([control("max-age=60, stale-while-revalidate=10"), ("Age", "60")], 200, None),
        ([control("s-maxage=60, stale-while-revalidate=10"), ("Age", "60")], 200, "stale"),
        ([("ETag", '"a"')], 200, "stale"),
        ([], 200, "stale"),
        ([], 500, None),
        ([], 502, None),
        ([], 503, None),
        ([], 504, None),
        ([], 501, "stale"),
    ],
)
def test_what_several_may_have_who_asked_at_once(fields: list[tuple[str, str]], status: int, why: str | None) -> None:
    head = Head([(name.encode(), value.encode()) for name, value in fields])
    assert why_not_shared(asked(), status, head, CachingRules()) == why


def test_nobody_shares_what_was_asked_with_credentials_or_a_body() -> None:
    rules, fields = CachingRules(), [(b"Cache-Control", b"max-age=60")]
    assert why_not_shared(asked(("Authorization", "x"), partition="anna"), 200, fields, rules) == "authorization"
    assert why_not_shared(asked(("Content-Length", "1")), 200, fields, rules) == "body"
    assert why_not_shared(asked(("X-Forwarded-Host", "evil")), 200, fields, rules) == "unkeyed"


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"stale_if_error": -1}, "stale_if_error"),
        ({"stale_while_revalidate": -1}, "stale_while_revalidate"),
        ({"max_stale": float("inf")}, "max_stale"),
        ({"ttl": -1}, "ttl"),
        ({"heuristic": 2}, "heuristic"),
        ({"jitter": -0.1}, "jitter"),
        ({"negative_ttl": {404: -1}}, "negative_ttl"),
        ({"negative_ttl": {200: 1}}, "negative_ttl"),
        ({"negative_ttl": {299: 1}}, "negative_ttl"),
        ({"negative_ttl": {600: 1}}, "negative_ttl"),
        ({"negative_ttl": {429: 1}}, "negative_ttl"),
        ({"negative_ttl": {403: 1}}, "negative_ttl"),
        ({"stale_statuses": frozenset({404})}, "stale_statuses"),
        ({"stale_statuses": frozenset({501})}, "stale_statuses"),
        ({"stale_statuses": frozenset({430})}, "stale_statuses"),
        ({"stale_statuses": frozenset({600})}, "stale_statuses"),
        ({"stale_statuses": frozenset({499})}, "stale_statuses"),
        ({"unkeyed": frozenset({"cookie"})}, "unkeyed"),
    ],
)
def test_a_bad_setting_is_named(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name}"):
        CachingRules(**values)


@pytest.mark.parametrize("name", ["shared", "per_user", "ignore_origin_prohibition", "set_cookie"])
def test_a_switch_is_true_or_false(name: str) -> None:
    with pytest.raises(TypeError, match=f"^{name}"):
        CachingRules(**{name: 1})  # type: ignore[arg-type]


def test_settings_at_their_bounds() -> None:
    CachingRules(heuristic=0.0, jitter=0.0, stale_if_error=0.0, max_stale=0.0, ttl=0.0)
    CachingRules(heuristic=1.0, jitter=1.0, negative_ttl={300: 0.0, 599: 1.0}, stale_statuses=frozenset({429, 500, 599}))
    CachingRules(unkeyed=frozenset({"x-forwarded-for", "x-forwarded-anything", "forwarded"}))


def test_whose_lifetime_it_is() -> None:
    rules = CachingRules(ttl=5.0, negative_ttl={404: 5.0})
    assert rules.by_operator(Head([]), 200) and rules.by_operator(Head([]), 399) and rules.by_operator(Head([]), 404)
    assert not rules.by_operator(Head([]), 400) and not CachingRules().by_operator(Head([]), 200)
    for name, value in ((b"Expires", b"0"), (b"Cache-Control", b"max-age=5"), (b"Cache-Control", b"s-maxage=5")):
        assert not rules.by_operator(Head([(name, value)]), 200)
