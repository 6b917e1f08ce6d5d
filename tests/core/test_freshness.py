"""What a stored answer is good for: the table of what may be used stale, row by row and column by column."""

from __future__ import annotations

import math
from typing import Any

import pytest

from resilient.core.asked import Asked
from resilient.core.caching import CachingRules, why_not_stored
from resilient.core.entry import Entry
from resilient.core.freshness import Use, look, outlasts, refresh_early, seconds_of_use, usable_on_error

URI = "https://api.example.com/a"
ETAG = (b"ETag", b'"a"')


def request(directives: str | None = None) -> Asked:
    return Asked.of("GET", URI, [] if directives is None else [(b"Cache-Control", directives.encode())])


def entry(directives: str, *, status: int = 200, etag: bool = True, **rules: Any) -> Entry:
    """An answer that came at 0."""
    fields = [(b"Cache-Control", directives.encode())] + ([ETAG] if etag else [])
    return Entry.made(request(), status, fields, b"x", requested_at=1e9, received_at=1e9, now=0.0, rules=CachingRules(**rules))


# Lifetime 100; windows of the origin 50; of the operator 200. The moments: fresh; within 50; within 200; beyond.
FRESH, SOON, LATER, NEVER = 99.0, 149.0, 299.0, 301.0
OPERATOR = CachingRules(stale_if_error=200.0)
WITHOUT = CachingRules()
NO_STATUSES = CachingRules(stale_if_error=200.0, stale_statuses=frozenset())


@pytest.mark.parametrize(
    ("said", "fresh", "soon", "on_error", "fallback_soon", "fallback_later"),
    [
        ("max-age=100", Use.FRESH, Use.VALIDATE, None, "fallback", "fallback"),
        ("max-age=100, stale-while-revalidate=50", Use.FRESH, Use.REFRESH, None, "fallback", "fallback"),
        ("max-age=100, stale-if-error=50", Use.FRESH, Use.VALIDATE, "stale-if-error", "stale-if-error", "fallback"),
        ("max-age=100, stale-if-error=250", Use.FRESH, Use.VALIDATE, "stale-if-error", "stale-if-error", "stale-if-error"),
        *(
            (f"max-age=100, {forbidding}{windows}", Use.FRESH, Use.VALIDATE, None, None, None)
            for forbidding in ("must-revalidate", "proxy-revalidate", "s-maxage=100")
            for windows in ("", ", stale-if-error=250, stale-while-revalidate=250")
        ),
        ("max-age=100, no-cache", Use.VALIDATE, Use.VALIDATE, None, None, None),
        ("max-age=100, no-cache, stale-if-error=250, stale-while-revalidate=250", Use.VALIDATE, Use.VALIDATE, None, None, None),
    ],
)
def test_the_table(said: str, fresh: Use, soon: Use, on_error: str | None, fallback_soon: str | None, fallback_later: str | None) -> None:
    stored, plain = entry(said), request()
    assert look(stored, plain, FRESH, WITHOUT) is fresh
    assert look(stored, plain, SOON, WITHOUT) is soon
    assert look(stored, plain, SOON, OPERATOR) is soon
    assert usable_on_error(stored, plain, SOON, WITHOUT) == on_error
    assert usable_on_error(stored, plain, SOON, OPERATOR) == fallback_soon
    assert usable_on_error(stored, plain, LATER, OPERATOR) == fallback_later
    assert usable_on_error(stored, plain, NEVER + 50, OPERATOR) is None
    # A function's call has no request.
    assert look(stored, None, SOON, WITHOUT) is soon
    assert usable_on_error(stored, None, LATER, OPERATOR) == fallback_later


@pytest.mark.parametrize("said", ["no-store, max-age=100, stale-if-error=50", "private, max-age=100, stale-if-error=50"])
def test_the_rows_that_are_never_stored(said: str) -> None:
    fields = [(b"Cache-Control", said.encode()), ETAG]
    for rules in (WITHOUT, OPERATOR, CachingRules(stale_if_error=200.0, ignore_origin_prohibition=True)):
        assert why_not_stored(request(), 200, fields, rules) == said.partition(",")[0]


@pytest.mark.parametrize("asking", ["no-cache", "max-age=0", "max-age=x", "max-age"])
def test_the_row_of_a_request_that_wants_it_validated(asking: str) -> None:
    stored = entry("max-age=100, stale-if-error=50, stale-while-revalidate=50")
    for now in (FRESH, SOON):
        assert look(stored, request(asking), now, WITHOUT) is Use.VALIDATE
        assert usable_on_error(stored, request(asking), now, OPERATOR) is None
        assert usable_on_error(stored, request(f"{asking}, stale-if-error=60"), now, OPERATOR) == "stale-if-error"
    # The origin's window does not make up for the request's.
    assert usable_on_error(stored, request(f"{asking}, stale-if-error=40"), SOON, OPERATOR) is None
    assert usable_on_error(entry("max-age=100, must-revalidate"), request(f"{asking}, stale-if-error=60"), SOON, OPERATOR) is None


def test_pragma_is_such_a_request_too() -> None:
    asked = Asked.of("GET", URI, [(b"Pragma", b"no-cache")])
    assert look(entry("max-age=100"), asked, 1.0, WITHOUT) is Use.VALIDATE


def test_the_row_of_a_request_that_wants_only_what_is_stored() -> None:
    stored = entry("max-age=100, stale-while-revalidate=50")
    asked = request("only-if-cached")
    assert asked.only_if_cached
    assert look(stored, asked, FRESH, WITHOUT) is Use.FRESH
    assert look(stored, asked, SOON, WITHOUT) is Use.REFRESH
    assert look(stored, asked, 150.0, WITHOUT) is Use.REFRESH
    assert look(stored, asked, 150.001, WITHOUT) is Use.VALIDATE
    assert look(stored, asked, LATER, WITHOUT) is Use.VALIDATE


def test_the_moment_of_expiry() -> None:
    stored = entry("max-age=100, stale-while-revalidate=50")
    assert look(stored, request(), 99.999, WITHOUT) is Use.FRESH
    assert look(stored, request(), 100.0, WITHOUT) is Use.REFRESH  # lifetime > age is fresh
    assert look(stored, request(), 150.0, WITHOUT) is Use.REFRESH  # up to so many seconds
    assert look(stored, request(), 150.001, WITHOUT) is Use.VALIDATE
    assert look(entry("max-age=100"), request(), 100.0, WITHOUT) is Use.VALIDATE
    # The example of RFC 5861: max-age=600, stale-if-error=1200 is usable until the age of 1800.
    example = entry("max-age=600, stale-if-error=1200")
    assert usable_on_error(example, request(), 1800.0, WITHOUT) == "stale-if-error"
    assert usable_on_error(example, request(), 1800.001, WITHOUT) is None


class TestRequests:
    @pytest.mark.parametrize(
        ("asking", "now", "expected"),
        [
            ("max-age=50", 50.0, Use.FRESH),
            ("max-age=50", 50.001, Use.VALIDATE),
            ("max-age=500", 101.0, Use.VALIDATE),  # it takes nothing stale (RFC 9111 section 5.2.1.1) ...
            ("max-age=500", 99.5, Use.FRESH),
            ("max-age=500, max-stale=10", 101.0, Use.STALE),  # ... unless it says so
            ("max-age=0", 0.0, Use.VALIDATE),
            ("max-age=x", 0.5, Use.VALIDATE),
            ("max-age=1", 0.5, Use.FRESH),
            ("max-age=50, max-stale=10", 60.0, Use.VALIDATE),
            ("min-fresh=20", 80.0, Use.FRESH),
            ("min-fresh=20", 80.001, Use.VALIDATE),
            ("min-fresh=x", 99.0, Use.FRESH),
            ("max-stale=1", 101.0, Use.STALE),
            ("max-stale=10", 110.0, Use.STALE),
            ("max-stale=10", 110.001, Use.VALIDATE),
            ("max-stale", 86_500.0, Use.STALE),
            ("max-stale", 86_500.001, Use.VALIDATE),  # the operator's cap
            ("max-stale=x", 101.0, Use.VALIDATE),
            ("max-stale=0", 100.0, Use.VALIDATE),
            ("no-store", 1.0, Use.VALIDATE),
            ("foo", 1.0, Use.FRESH),
        ],
    )
    def test_directives(self, asking: str, now: float, expected: Use) -> None:
        assert look(entry("max-age=100"), request(asking), now, WITHOUT) is expected

    def test_one_that_takes_nothing_stale_takes_nothing_that_expires_now(self) -> None:
        stored = entry("max-age=100, stale-while-revalidate=50")
        assert look(stored, request("max-age=500"), 100.0, WITHOUT) is Use.VALIDATE
        assert look(stored, request("max-age=500, max-stale=1"), 100.0, WITHOUT) is Use.REFRESH

    @pytest.mark.parametrize("said", ["must-revalidate", "proxy-revalidate", "s-maxage=100", "no-cache"])
    def test_max_stale_gives_no_leave_that_the_origin_denies(self, said: str) -> None:
        assert look(entry(f"max-age=100, {said}"), request("max-stale"), 101.0, WITHOUT) is Use.VALIDATE

    def test_a_request_without_directives_may_have_conditions(self) -> None:
        asked = Asked.of("GET", URI, [(b"If-None-Match", b'"a"')])
        assert look(entry("max-age=100"), asked, 1.0, WITHOUT) is Use.FRESH

    def test_the_window_is_the_longer_of_the_two(self) -> None:
        stored = entry("max-age=100, stale-if-error=50")
        assert usable_on_error(stored, request("stale-if-error=20"), SOON, WITHOUT) == "stale-if-error"
        assert usable_on_error(stored, request("stale-if-error=80"), 180.0, WITHOUT) == "stale-if-error"
        assert usable_on_error(stored, request("stale-if-error=80"), 181.0, WITHOUT) is None
        assert usable_on_error(stored, request("stale-if-error=x"), 151.0, WITHOUT) is None
        assert usable_on_error(stored, request("no-store, stale-if-error=80"), SOON, OPERATOR) is None

    def test_one_that_wants_it_younger_has_its_windows_counted_from_there(self) -> None:
        stored = entry("max-age=100, stale-if-error=50")
        assert usable_on_error(stored, request("max-age=30"), 80.0, WITHOUT) == "stale-if-error"
        assert usable_on_error(stored, request("max-age=30"), 81.0, WITHOUT) is None
        assert usable_on_error(stored, request("min-fresh=30"), 120.0, WITHOUT) == "stale-if-error"
        assert usable_on_error(stored, request("min-fresh=30"), 121.0, WITHOUT) is None


class TestOperator:
    def test_the_cap_bounds_every_window(self) -> None:
        stored = entry("max-age=100, stale-if-error=999999, stale-while-revalidate=999999")
        rules = CachingRules(max_stale=10.0, stale_if_error=999_999.0)
        assert look(stored, request(), 110.0, rules) is Use.REFRESH
        assert look(stored, request(), 110.5, rules) is Use.VALIDATE
        assert look(stored, request("max-stale=500"), 110.5, rules) is Use.VALIDATE
        assert usable_on_error(stored, request(), 110.0, rules) == "stale-if-error"
        assert usable_on_error(stored, request("stale-if-error=500"), 110.5, rules) is None
        none = CachingRules(max_stale=0.0, stale_if_error=999_999.0)
        assert look(stored, request(), 100.0, none) is Use.VALIDATE
        assert usable_on_error(stored, request(), 100.0, none) is None

    def test_a_second_is_a_window_too(self) -> None:
        rules = CachingRules(stale_if_error=1.0, max_stale=1.0)
        assert usable_on_error(entry("max-age=100"), request(), 101.0, rules) == "fallback"
        assert usable_on_error(entry("max-age=100"), request(), 101.001, rules) is None
        assert usable_on_error(entry("max-age=100, stale-if-error=1"), request(), 101.0, CachingRules(max_stale=1.0)) == "stale-if-error"

    def test_its_own_revalidation_window(self) -> None:
        rules = CachingRules(stale_while_revalidate=30.0)
        assert look(entry("max-age=100"), request(), 130.0, rules) is Use.REFRESH
        assert look(entry("max-age=100"), request(), 131.0, rules) is Use.VALIDATE
        assert look(entry("max-age=100, stale-while-revalidate=50"), request(), 150.0, rules) is Use.REFRESH
        assert look(entry("max-age=100, must-revalidate"), request(), 101.0, rules) is Use.VALIDATE
        assert look(entry("max-age=100", status=399), request(), 101.0, rules) is Use.REFRESH
        assert look(entry("max-age=100", status=400), request(), 101.0, rules) is Use.VALIDATE

    def test_its_fallback_is_the_last_good_answer(self) -> None:
        assert usable_on_error(entry("max-age=100", status=301), request(), SOON, OPERATOR) == "fallback"
        assert usable_on_error(entry("max-age=100", status=399), request(), SOON, OPERATOR) == "fallback"
        assert usable_on_error(entry("max-age=100", status=400), request(), SOON, OPERATOR) is None
        assert usable_on_error(entry("max-age=100", status=404), request(), 100.5, OPERATOR) is None
        assert usable_on_error(entry("max-age=100, stale-if-error=50", status=404), request(), SOON, WITHOUT) == "stale-if-error"

    @pytest.mark.parametrize("status", [500, 501, 502, 503, 504, 599])
    def test_no_error_stands_in_for_an_error(self, status: int) -> None:
        stored = entry("max-age=100, stale-if-error=50", status=status)
        assert usable_on_error(stored, request(), 1.0, OPERATOR) is None
        assert usable_on_error(stored, request(), 1.0, NO_STATUSES) is None

    @pytest.mark.parametrize("said", ["must-revalidate", "s-maxage=100", "proxy-revalidate", "no-cache"])
    def test_where_the_prohibition_is_ignored(self, said: str) -> None:
        rules = CachingRules(stale_if_error=200.0, ignore_origin_prohibition=True, stale_while_revalidate=200.0)
        stored = entry(f"max-age=100, {said}")
        assert usable_on_error(stored, request(), LATER, rules) == "fallback"
        assert usable_on_error(stored, request(), NEVER, rules) is None
        assert look(stored, request("max-stale"), SOON, rules) is Use.VALIDATE  # only errors are excused
        assert usable_on_error(stored, request("no-cache"), SOON, rules) is None

    def test_in_a_private_cache_s_maxage_forbids_nothing(self) -> None:
        stored = entry("max-age=100, s-maxage=5, stale-if-error=50", shared=False)
        assert usable_on_error(stored, request(), SOON, CachingRules(shared=False)) == "stale-if-error"


def test_a_strict_answer_that_is_still_fresh_may_stand_in() -> None:
    stored = entry("max-age=100, must-revalidate, stale-if-error=50")
    assert usable_on_error(stored, request("max-age=50"), 60.0, WITHOUT) == "stale-if-error"
    assert usable_on_error(stored, request("max-age=99"), 100.0, WITHOUT) is None


class TestReplacing:
    def test_an_error_does_not_replace_what_can_stand_in_for_it(self) -> None:
        stored = entry("max-age=100, stale-if-error=50")
        assert outlasts(stored, 503, FRESH, WITHOUT) and outlasts(stored, 500, SOON, WITHOUT) and outlasts(stored, 501, SOON, WITHOUT)
        assert not outlasts(stored, 503, LATER, WITHOUT)
        assert outlasts(entry("max-age=100"), 503, LATER, OPERATOR)
        assert outlasts(stored, 503, 150.0, WITHOUT) and not outlasts(stored, 503, 150.001, WITHOUT)

    def test_whatever_else_counts_as_an_error_an_error_of_the_server_is_one(self) -> None:
        stored = entry("max-age=100, stale-if-error=50")
        assert outlasts(stored, 500, SOON, NO_STATUSES) and not outlasts(stored, 499, SOON, NO_STATUSES)
        assert not outlasts(entry("max-age=100, stale-if-error=50", status=500), 503, FRESH, NO_STATUSES)

    def test_the_operators_window_is_for_good_answers(self) -> None:
        assert outlasts(entry("max-age=100", status=399), 503, SOON, OPERATOR)
        assert not outlasts(entry("max-age=100", status=400), 503, SOON, OPERATOR)

    @pytest.mark.parametrize("status", [200, 204, 301, 404, 410])
    def test_news_does(self, status: int) -> None:
        assert not outlasts(entry("max-age=100, stale-if-error=50"), status, FRESH, OPERATOR)

    def test_an_error_replaces_an_error_and_what_may_not_be_used_stale(self) -> None:
        assert not outlasts(entry("max-age=100", status=503), 500, FRESH, OPERATOR)
        assert not outlasts(entry("max-age=100, must-revalidate"), 503, SOON, OPERATOR)
        assert outlasts(entry("max-age=100, must-revalidate"), 503, FRESH, OPERATOR)


class TestSecondsOfUse:
    @pytest.mark.parametrize(
        ("said", "etag", "rules", "expected"),
        [
            ("max-age=100", False, WITHOUT, 60),
            ("max-age=100, stale-if-error=50, stale-while-revalidate=20", False, WITHOUT, 110),
            ("max-age=100", False, OPERATOR, 260),
            ("max-age=100", False, CachingRules(stale_while_revalidate=30.0), 90),
            ("max-age=100, stale-if-error=999999", False, WITHOUT, 60 + 86_400),
            ("max-age=100, must-revalidate, stale-if-error=50", False, OPERATOR, 60),
            ("max-age=100, must-revalidate", True, OPERATOR, 660),
            ("max-age=1000", True, WITHOUT, 1960),
            ("max-age=90000", True, WITHOUT, 90_000 - 40 + 86_400),
            ("max-age=41", False, WITHOUT, 1),
            ("max-age=10", False, WITHOUT, 0),
        ],
    )
    def test_at_the_age_of_40(self, said: str, etag: bool, rules: CachingRules, expected: float) -> None:
        assert seconds_of_use(entry(said, etag=etag), 40.0, rules) == expected

    def test_it_is_never_shorter_than_any_use(self) -> None:
        rules = CachingRules(stale_if_error=200.0, stale_while_revalidate=30.0)
        for said in ("max-age=100", "max-age=100, stale-if-error=500", "max-age=100, must-revalidate", "s-maxage=7"):
            stored = entry(said, etag=False)
            last = seconds_of_use(stored, 0.0, rules)
            assert look(stored, request(), last + 0.1, rules) is Use.VALIDATE
            assert usable_on_error(stored, request(), last + 0.1, rules) is None


class TestEarlyRefresh:
    @pytest.mark.parametrize(("left", "chance"), [(1.0, math.exp(-1)), (5.0, math.exp(-5)), (0.1, math.exp(-0.1))])
    def test_its_chance_is_what_the_paper_says(self, left: float, chance: float) -> None:
        stored = Entry.of_value(1, ttl=100.0, now=0.0, wall=0.0, took=1.0)
        assert refresh_early(stored, 100.0 - left, chance * 0.999)
        assert not refresh_early(stored, 100.0 - left, chance * 1.001)
        assert refresh_early(stored, 100.0 - 2 * left, chance * 0.999, beta=2.0)

    def test_at_the_bounds(self) -> None:
        stored = Entry.of_value(1, ttl=100.0, now=0.0, wall=0.0, took=1.0)
        assert refresh_early(stored, 100.0, 1.0) and refresh_early(stored, 0.0, 0.0)
        assert not refresh_early(stored, 99.9, 1.0)
        assert not refresh_early(Entry.of_value(1, ttl=100.0, now=0.0, wall=0.0), 99.9, 1e-9)  # it takes no time at all
