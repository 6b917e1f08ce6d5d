"""Garbage never helps, age never shrinks, and what may not be used stale never is."""

from __future__ import annotations

import copy
from email.utils import formatdate

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from resilient.core.asked import IDENTITY, Asked
from resilient.core.caching import CachingRules, kept_fields, why_not_shared, why_not_stored
from resilient.core.entry import Entry
from resilient.core.freshness import Use, look, outlasts, seconds_of_use, usable_on_error
from resilient.core.head import Head
from resilient.core.validation import answer_to, conditions, freshened, updated_by_head

from ..thorough import often

WALL = 1_800_000_000.0
URI = "https://api.example.com/a"
Lines = list[tuple[bytes, bytes]]

GARBAGE = st.binary(max_size=25) | st.sampled_from(
    [b"", b"*", b'"', b",", b"=", b"max-age=\xff", b"9" * 40, b"-1", b'no-cache="', b"bytes=9-1"]
)
NAMES = st.sampled_from(
    [
        b"Age",
        b"Cache-Control",
        b"Connection",
        b"Content-Range",
        b"Content-Type",
        b"Date",
        b"ETag",
        b"Expires",
        b"Last-Modified",
        b"Pragma",
        b"Set-Cookie",
        b"Vary",
        b"Cache-Groups",
        b"X",
    ]
)
ASKING = st.sampled_from(
    [b"Cache-Control", b"Pragma", b"Range", b"If-Range", b"If-None-Match", b"If-Modified-Since", b"Cookie", b"Accept-Language", b"Foo"]
)
SECONDS = st.integers(0, 200).map(lambda seconds: str(seconds).encode())
DIRECTIVES = st.lists(
    st.sampled_from([b"public", b"private", b"no-cache", b"no-store", b"must-revalidate", b"proxy-revalidate", b"must-understand"])
    | st.tuples(st.sampled_from([b"max-age=", b"s-maxage=", b"stale-if-error=", b"stale-while-revalidate="]), SECONDS).map(b"".join),
    max_size=5,
).map(b", ".join)
DATES = st.integers(-300, 300).map(lambda offset: formatdate(WALL + offset, usegmt=True).encode())
GOOD = (
    st.tuples(st.just(b"Cache-Control"), DIRECTIVES)
    | st.tuples(st.sampled_from([b"Date", b"Expires", b"Last-Modified"]), DATES)
    | st.tuples(st.just(b"Age"), SECONDS)
    | st.sampled_from([(b"ETag", b'"a"'), (b"Vary", b"Foo"), (b"Vary", b"*"), (b"Set-Cookie", b"a=b")])
)
DEMANDS = st.lists(
    st.sampled_from([b"no-cache", b"max-stale", b"only-if-cached", b"no-store"])
    | st.tuples(st.sampled_from([b"max-age=", b"max-stale=", b"min-fresh=", b"stale-if-error="]), SECONDS).map(b"".join),
    max_size=3,
).map(b", ".join)
STATUSES = st.sampled_from([200, 204, 206, 301, 302, 304, 401, 404, 410, 429, 500, 503, 599])
RULES = st.builds(
    CachingRules,
    shared=st.booleans(),
    stale_if_error=st.sampled_from([0.0, 50.0, 500.0]),
    stale_while_revalidate=st.sampled_from([0.0, 50.0]),
    ttl=st.sampled_from([None, 0.0, 30.0]),
    negative_ttl=st.sampled_from([{}, {404: 5.0}]),
    max_stale=st.sampled_from([0.0, 100.0, 86_400.0]),
    per_user=st.booleans(),
)


def asked(lines: Lines, partition: str | None = None) -> Asked:
    return Asked.of("GET", URI, lines, partition=partition)


def made(by: Asked, status: int, lines: Lines, rules: CachingRules) -> Entry:
    return Entry.made(by, status, lines, b"0123456789", requested_at=WALL - 1, received_at=WALL, now=0.0, rules=rules)


@pytest.mark.slow
@settings(max_examples=often(300))
@given(
    st.lists(st.tuples(ASKING, GARBAGE), max_size=4),
    STATUSES,
    st.lists(GOOD | st.tuples(NAMES, GARBAGE), max_size=6),
    RULES,
    st.floats(0, 1e6),
)
def test_nothing_raises(asking: Lines, status: int, lines: Lines, rules: CachingRules, now: float) -> None:
    by = asked(asking)
    why_not_stored(by, status, lines, rules)
    why_not_shared(by, status, lines, rules)
    entry = made(by, status, lines, rules)
    assert isinstance(look(entry, by, now, rules), Use)
    usable_on_error(entry, by, now, rules)
    assert seconds_of_use(entry, now, rules) >= 0
    conditions(entry)
    for update in (freshened, updated_by_head):
        update(entry, lines, requested_at=WALL, received_at=WALL, now=now, rules=rules, asked=by)
    found = answer_to(by, entry)
    if found is not None and found[0] == 206:
        assert found[2] in b"0123456789"


@pytest.mark.slow
@given(st.lists(GOOD, max_size=5), st.lists(st.tuples(NAMES, GARBAGE), max_size=3), STATUSES, RULES)
def test_garbage_in_front_of_it_makes_nothing_live_longer(good: Lines, garbage: Lines, status: int, rules: CachingRules) -> None:
    """Unless it takes the place of a limit: an Expires or Age that is no longer the first is another answer."""
    by = asked([])
    # What is garbage to Hypothesis may be good sense to RFC 9111.
    assume(not any(name == b"Cache-Control" and (b"a" in value or b"-" in value) for name, value in garbage))
    assume(not any(name in {b"ETag", b"Pragma"} for name, _ in garbage))
    names = {name for name, _ in good}
    spoilt = made(by, status, garbage + good, rules)
    whole = made(by, status, good, rules)
    if b"Date" in names and not any(name == b"Date" for name, _ in garbage):
        assert spoilt.ttl(0.0) <= max(whole.ttl(0.0), 0.0)
    if why_not_stored(by, status, good, rules) not in (None, "no-lifetime"):
        assert why_not_stored(by, status, garbage + good, rules) is not None


@given(DIRECTIVES, GARBAGE, st.sampled_from([b"max-age=", b"s-maxage=", b"Expires", b"Age"]))
def test_a_value_that_cannot_be_read_means_stale(directives: bytes, garbage: bytes, where: bytes) -> None:
    assume(not garbage.strip(b' \t"').isdigit())
    lines = [(b"Cache-Control", directives)]
    if where.endswith(b"="):
        lines = [(b"Cache-Control", where + b"x" + garbage.replace(b",", b"")), *lines]
        entry = made(asked([]), 200, lines, CachingRules())
        if where == b"s-maxage=":
            assert entry.ttl(0.0) <= 0
    elif where == b"Age":
        assume(b"," not in garbage)
        assert made(asked([]), 200, [*lines, (where, garbage)], CachingRules()).ttl(0.0) <= 0
    elif b"max-age" not in directives and b"s-maxage" not in directives:
        assert made(asked([]), 200, [*lines, (where, garbage)], CachingRules(ttl=60.0)).ttl(0.0) <= 0


@given(st.lists(GOOD, max_size=5), st.floats(0, 1e6), st.floats(0, 1e6))
def test_age_is_monotone(lines: Lines, one: float, other: float) -> None:
    entry = made(asked([]), 200, lines, CachingRules())
    early, late = sorted((one, other))
    assert 0 <= entry.age(early) <= entry.age(late)
    assert entry.ttl(late) <= entry.ttl(early)


@pytest.mark.slow
@settings(max_examples=often(500))
@given(st.lists(GOOD, min_size=1, max_size=5), DEMANDS, STATUSES, RULES, st.floats(0, 1000))
def test_what_may_not_be_used_stale_never_is(lines: Lines, demands: bytes, status: int, rules: CachingRules, now: float) -> None:
    by = asked([(b"Cache-Control", demands)])
    entry = made(by, status, lines, rules)
    stale = entry.ttl(now) <= 0
    use, excuse = look(entry, by, now, rules), usable_on_error(entry, by, now, rules)
    if entry.needs_validation:
        assert use is Use.VALIDATE and excuse is None
    if entry.strict and stale:
        assert use is Use.VALIDATE and excuse is None
    if b"no-cache" in demands:
        assert use is Use.VALIDATE
        assert excuse is None or b"stale-if-error" in demands
    if use is Use.FRESH:
        assert not stale
    # Nothing is used beyond every window, nor thrown away before.
    staleness = -entry.ttl(now)
    if staleness > rules.max_stale:
        assert use is Use.VALIDATE and excuse is None
    if not demands and (use is not Use.VALIDATE or excuse is not None):
        assert seconds_of_use(entry, now - 0.001, rules) > 0  # for it may be used up to the end of its window
    if excuse is not None:
        assert entry.status < 500
    if not demands and excuse is not None:
        assert outlasts(entry, 503, now, rules)


@given(st.lists(GOOD, max_size=5), RULES)
def test_what_is_given_to_several_might_have_been_kept(lines: Lines, rules: CachingRules) -> None:
    if why_not_shared(asked([]), 200, lines, rules) is None:
        assert why_not_stored(asked([]), 200, lines, rules) is None


@pytest.mark.slow
@given(st.lists(GOOD, max_size=5), st.sampled_from([b"Authorization", b"Cookie", b"X-Api-Key", b"Proxy-Authorization"]), RULES)
def test_what_one_user_asked_for_is_kept_for_everybody_only_if_the_origin_says_so(lines: Lines, name: bytes, rules: CachingRules) -> None:
    by = asked([(name, b"secret")])
    if why_not_stored(by, 200, lines, rules) is None:
        directives = Head(lines).directives
        assert {"public", "s-maxage"} & directives.keys() and "private" not in directives
        assert made(by, 200, lines, rules).open


SENT = st.sampled_from(
    [
        b"Authorization",
        b"Cookie",
        b"X-Api-Key",
        b"Range",
        b"Content-Length",
        b"Upgrade",
        b"X-Forwarded-Nobody",
        b"X-Host",
        b"Accept",
        b"X-User",
    ]
)


@settings(max_examples=500, deadline=None)
@given(
    st.lists(GOOD | st.tuples(NAMES, GARBAGE), max_size=6),
    st.lists(st.tuples(SENT, st.sampled_from([b"0", b"a"])), max_size=2),
    st.sampled_from([200, 200, 203, 404, 503]),
    st.sampled_from([None, "p"]),
    RULES,
)
def test_nearly_every_answer_takes_a_short_way_to_the_same_verdict(
    lines: Lines, sent: Lines, status: int, partition: str | None, rules: CachingRules
) -> None:
    short, long = (Asked("GET", URI, sent, partition=partition, identity=IDENTITY | {"x-user"} if sent else IDENTITY) for _ in range(2))
    long._ordinary = False
    assert short.ordinary is (partition is None and {name for name, _ in sent} <= {b"Accept"})
    assert why_not_stored(short, status, lines, rules) == why_not_stored(long, status, lines, rules)
    if short.ordinary:
        assert not (short.identified or short.suspicious or short.has_content or short.upgrades or short.no_store)


@given(st.lists(GOOD | st.tuples(NAMES, GARBAGE), max_size=6), RULES)
def test_of_most_answers_every_field_is_kept(lines: Lines, rules: CachingRules) -> None:
    short, long = Head(lines), Head(lines)
    if short.terms.mild:
        long.terms = copy.copy(long.terms)
        long.terms.mild = False
        kept = [kept_fields(head, rules, everybody=True, partition=None) for head in (short, long)]
        assert kept[0] == kept[1]
    assert short.size == sum(len(name) + len(value) for name, value in lines)
