"""How old an answer is when it comes, and for how long it is fresh (RFC 9111 section 4.2).

Rules of this file: pure functions of the head of an answer and of wall time. What cannot be read makes an answer stale,
never fresher.
"""

from __future__ import annotations

import functools
import math
from typing import TYPE_CHECKING

from .directives import delta_seconds, http_date
from .head import Head

if TYPE_CHECKING:
    from .caching import CachingRules

__all__ = ["HEURISTIC", "UNDERSTOOD", "age_value", "date_value", "initial_age", "lifetime", "said"]

# Statuses whose answers may be stored without anybody saying so (RFC 9110 section 15.1), but for 206, which is never.
HEURISTIC = frozenset({200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501})
# Statuses that this cache handles as their specifications say (`must-understand`, RFC 9111 section 5.2.2.3).
UNDERSTOOD = (
    HEURISTIC
    | {201, 202, 205, 302, 303, 307, 400, 402, 403, 406, 408, 409, 411, 412, 413, 415, 417, 421, 422, 426, 451}
    | {
        500,
        502,
        503,
        504,
        505,
    }
)
# Nobody was told for how long, so not for longer than this.
_LONGEST_HEURISTIC = 86_400.0


def date_value(head: Head, received_at: float) -> float:
    """When an answer was made: its `Date`, else when it came (RFC 9110 section 6.6.1)."""
    lines = head.values.get(b"date")
    if lines is None:
        return received_at
    date = _remembered(lines[0]) or http_date(head.first(b"date"), received_at)
    return received_at if date is None else date


@functools.lru_cache(maxsize=512)
def _remembered(line: bytes) -> float | None:
    """The date that nearly every answer has, those of the same second in the same words."""
    return http_date(line.decode("latin-1")) if len(line) == 29 and line.endswith(b" GMT") else None


def age_value(head: Head) -> float | None:
    """What `Age` says in seconds: 0 if it is not there, None if it cannot be trusted.

    Of several members the first counts (RFC 9111 section 5.1). But where they are all the same, or come in several lines,
    or are no numbers, caches on the way did not do what they should, and how much it aged is not known.
    """
    lines = head.values.get(b"age")
    if lines is None:
        return 0.0
    members = lines[0].decode("latin-1").split(",")
    first = members[0].strip(" \t")
    if len(lines) > 1 or (len(members) > 1 and all(member.strip(" \t") == first for member in members)):
        return None
    return delta_seconds(first)


def initial_age(head: Head, date: float, requested_at: float, received_at: float) -> float | None:
    """How old an answer was when it came (section 4.2.3), or None if that is not known.

    Args:
        head: its fields.
        date: when it was made.
        requested_at: when it was asked for, in wall time ...
        received_at: ... and when it came.
    """
    age = 0.0 if head.plain else age_value(head)
    if age is None:
        return None
    if received_at > requested_at:
        age += received_at - requested_at
    # A date is the beginning of a second: what came within that very second is not old yet.
    apparent = math.floor(received_at) - date
    return apparent if apparent > age else age  # noqa: FURB136 - max() costs three times that


def said(head: Head, rules: CachingRules) -> bool:
    """Whether an answer says itself that it may be kept (RFC 9111 section 3): for how long, or for whom."""
    directives = head.directives
    return (
        head.terms.max_age is not None
        or "public" in directives
        or b"expires" in head.values
        or ("s-maxage" if rules.shared else "private") in directives
    )


def lifetime(head: Head, status: int, rules: CachingRules, date: float) -> float:
    """For how many seconds of age an answer is fresh (section 4.2.1); 0 if it never is.

    What the answer says comes first, then what the operator says, then a guess: a part of the time for which it has not
    been changed (section 4.2.2).

    Args:
        head: its fields.
        status: its status.
        rules: the operator's.
        date: when it was made.
    """
    told = _told(head, rules, date)
    at_most = rules.negative_ttl.get(status)
    if at_most is not None:
        return at_most if told is None else min(told, at_most)
    if told is not None:
        return told
    directives = head.directives
    if not (status in HEURISTIC or "public" in directives):
        return 0.0
    if not directives and "no-cache" in (head.get(b"pragma") or "").lower():
        return 0.0  # how it was said before there was `Cache-Control`
    if rules.ttl is not None and status < 400:
        return rules.ttl
    modified = http_date(head.first(b"last-modified"), date)
    if modified is None or modified > date:
        return 0.0
    return min(rules.heuristic * (date - modified), _LONGEST_HEURISTIC)


def _told(head: Head, rules: CachingRules, date: float) -> float | None:
    terms = head.terms
    if rules.shared and terms.s_maxage is not None:
        return terms.s_maxage
    if terms.max_age is not None:
        return terms.max_age
    expires = head.first(b"expires")
    if expires is None:
        return None
    moment = http_date(expires, date)
    return 0.0 if moment is None else max(0.0, moment - date)
