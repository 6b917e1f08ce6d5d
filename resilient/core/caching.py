"""Which answers a cache keeps, and which it may give to several who asked at once.

Rules of this file: pure functions of a request, the head of its answer and the operator's rules. Each says why not, in
one word for a metric; None says yes. Where nothing is said, nobody gets what was meant for somebody else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from .asked import UNKEYED, Asked
from .bounds import flag, fraction, not_negative
from .head import Fields, Head
from .lifetime import HEURISTIC, UNDERSTOOD, age_value, date_value, lifetime, said
from .vary import vary_names

__all__ = [
    "CachingRules",
    "forbids_stale",
    "kept_fields",
    "means_everybody",
    "tells_all",
    "wants_validation",
    "why_not_shared",
    "why_not_stored",
]

STALE_STATUSES = frozenset({500, 502, 503, 504})
_LARGEST_HEAD = 65_536
# Answers to who asks rather than to what is asked for; they may be kept where the origin means them for everybody.
_ABOUT_IDENTITY = frozenset({401, 403, 407})
# RFC 6585 forbids to keep these; 412, 416 and 417 answer a condition, a range or an expectation of one request.
_NEVER = frozenset({206, 304, 412, 416, 417, 421, 425, 428, 429, 431, 511})
_NO_FIELDS: frozenset[bytes] = frozenset()
_ENDLESS = (b"text/event-stream", b"multipart/x-mixed-replace")
_CONTENT_RANGE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+ +([0-9]+-[0-9]+|\*)/([0-9]+|\*)")


@dataclass(frozen=True, slots=True, kw_only=True)
class CachingRules:
    """What the operator of a cache decides.

    Args:
        shared: it answers for many users (RFC 9111 section 1); False for one that belongs to a single user.
        stale_if_error: seconds that an answer may be too old and still stand in for an error, where the origin does not
            forbid it; 0 leaves it to the origin.
        stale_while_revalidate: seconds that it may be too old and be used while a new one is fetched, likewise.
        ttl: seconds for which a good answer is fresh that says nothing about that; None leaves it to a guess.
        negative_ttl: seconds for which an answer of a status is fresh at most, by status; also where it says nothing.
        heuristic: part of the time since it was last changed for which an answer is fresh that says nothing.
        jitter: part by which `ttl` and `negative_ttl` may be shortened, so that not everything expires at once.
        max_stale: the seconds above which no permission counts, whoever gave it.
        per_user: a partition is one user: what is meant for a user alone is kept, in its partition.
        ignore_origin_prohibition: answers may stand in for errors even where the origin forbids it.
        stale_statuses: what counts as an error of the origin: 5xx but not 501, and 429.
        unkeyed: of the fields that might choose an answer without the origin saying so, those that do not here.
        set_cookie: answers that set cookies are kept, and set them for whoever gets them.
    """

    shared: bool = True
    stale_if_error: float = 0.0
    stale_while_revalidate: float = 0.0
    ttl: float | None = None
    negative_ttl: Mapping[int, float] = field(default_factory=dict)
    heuristic: float = 0.1
    jitter: float = 0.1
    max_stale: float = 86_400.0
    per_user: bool = False
    ignore_origin_prohibition: bool = False
    stale_statuses: frozenset[int] = STALE_STATUSES
    unkeyed: frozenset[str] = frozenset()
    set_cookie: bool = False

    def __post_init__(self) -> None:
        for name in ("shared", "per_user", "ignore_origin_prohibition", "set_cookie"):
            flag(name, getattr(self, name))
        for name in ("stale_if_error", "stale_while_revalidate", "max_stale"):
            not_negative(name, getattr(self, name))
        if self.ttl is not None:
            not_negative("ttl", self.ttl)
        for name in ("heuristic", "jitter"):
            fraction(name, getattr(self, name), zero=True)
        for status, seconds in self.negative_ttl.items():
            if not 300 <= status <= 599 or status in _NEVER or status in _ABOUT_IDENTITY:
                raise ValueError(f"negative_ttl: answers of status {status!r} cannot be kept that way")
            not_negative(f"negative_ttl[{status}]", seconds)
        for status in self.stale_statuses:
            if status != 429 and not (500 <= status <= 599 and status != 501):
                raise ValueError(f"stale_statuses must be 429 or 5xx other than 501, not {status!r}")
        unknown = self.unkeyed - UNKEYED
        if any(not name.startswith("x-forwarded-") for name in unknown):
            raise ValueError(f"unkeyed: {sorted(unknown)} are none of the fields that are watched: {sorted(UNKEYED)}")

    def by_operator(self, head: Head, status: int) -> bool:
        """Whether the lifetime of an answer comes from `ttl` or `negative_ttl`, rather than from the origin."""
        if status in self.negative_ttl:
            return True
        terms = head.terms
        return self.ttl is not None and status < 400 and b"expires" not in head and terms.max_age is None and terms.s_maxage is None


def means_everybody(fields: Fields) -> bool:
    """Whether the origin says that anybody may have an answer, whoever asked for it: `public` or `s-maxage`."""
    return Head.of(fields).terms.everybody


def wants_validation(head: Head) -> bool:
    """Whether an answer may never be used without asking the origin: a `no-cache` that names no fields (section 5.2.2.4)."""
    return head.terms.validated


def forbids_stale(head: Head, rules: CachingRules) -> bool:
    """Whether an answer may never be used stale (RFC 9111 section 4.2.4)."""
    return head.terms.strict_if_shared if rules.shared else head.terms.strict


def why_not_stored(asked: Asked, status: int, fields: Fields, rules: CachingRules, *, received_at: float = 0.0) -> str | None:
    """Why an answer may not be kept (RFC 9111 section 3), or is not worth it; None if it is.

    Args:
        asked: the request.
        status: the answer's status.
        fields: its header fields.
        rules: the operator's.
        received_at: when it came, in wall time; matters only to an answer that has no `Date`.

    Returns:
        None, or "method" (only answers to GET are kept), "body" (the request had one), "request-no-store", "status" (not a
        final answer, or one about the asking), "partial", "no-store", "private", "authorization", "identity" (it says who
        asks, no partition was given for it, and the answer is not for everybody), "set-cookie", "vary", "unkeyed",
        "event-stream", "fields" (too large a head), or "no-lifetime" (it could never be used).
    """
    head = Head.of(fields)
    if _is_ordinary(asked, status, head):
        return _why_worthless(status, head, rules, received_at)
    return (
        _why_not_this_request(asked)
        or _why_not_this_kind(asked, status, head)
        or _why_not_by_directives(asked, status, head, rules)
        or _why_not_safe(asked, head, rules)
        or _why_worthless(status, head, rules, received_at)
    )


def why_not_shared(asked: Asked, status: int, fields: Fields, rules: CachingRules, *, received_at: float = 0.0) -> str | None:
    """Why those who wait for an answer may not all have the one that came for the first of them; None if they may.

    Those who wait asked the same and are in the same partition (`Asked.collapse_key`). What could not be kept for a later
    request is not shared (RFC 9111 section 4), nor what would have to be validated at once. An error is: it says of the
    origin what all of them are about to find out.

    Returns:
        None, or what `why_not_stored` returns, or "no-cache" or "stale" (it is used by nobody else without asking the
        origin, or was too old when it came).
    """
    head = Head.of(fields)
    why = (
        _why_not_this_request(asked)
        or _why_not_this_kind(asked, status, head)
        or ("status" if status in _ABOUT_IDENTITY else None)
        or _why_not_by_directives(asked, status, head, rules)
        or _why_not_safe(asked, head, rules)
    )
    if why is not None or status in rules.stale_statuses:
        return why
    if wants_validation(head):
        return "no-cache"
    age = age_value(head)
    fresh = lifetime(head, status, rules, date_value(head, received_at))
    if not forbids_stale(head, rules):
        fresh += head.terms.stale_while_revalidate
    return "stale" if age is None or fresh <= age else None


def _is_ordinary(asked: Asked, status: int, head: Head) -> bool:
    """Whether all that can keep an answer from being stored is for how long it is of use: as of nearly every one."""
    if status != 200 or not (head.plain and head.terms.mild and asked.ordinary) or head.size > _LARGEST_HEAD:
        return False
    return not _endless(head)


def _endless(head: Head) -> bool:
    """Whether the body may never end, going by any of the lines that say what it is."""
    return any(content_type.strip(b" \t").lower().startswith(_ENDLESS) for content_type in head.values.get(b"content-type", ()))


def tells_all(status: int) -> bool:
    """Whether all who wait for an answer may be told that it was a failure, though its body is not for them.

    They asked the very same, in the same partition. That the origin is out of order concerns each of them; what it says to one who is
    not known, or who asks too often, does not.
    """
    return status not in _ABOUT_IDENTITY and status not in _NEVER


def _why_not_this_request(asked: Asked) -> str | None:
    if asked.method != "GET":
        return "method"
    if asked.has_content:
        return "body"
    return "request-no-store" if asked.no_store else None


def _why_not_this_kind(asked: Asked, status: int, head: Head) -> str | None:
    """Whether it is a whole and final answer, and one to what was asked for."""
    if status == 206 or (status == 416 and asked.ranged):
        return "partial"
    if status < 200 or status > 599 or status in _NEVER:
        return "status"
    content_range = head.first(b"content-range")
    if content_range is not None and _CONTENT_RANGE.fullmatch(content_range):
        return "partial"  # means nothing here (RFC 9110 section 14.4), unless a proxy made a 200 of a 206
    if status in _ABOUT_IDENTITY and not means_everybody(head):
        return "status"
    if _endless(head):
        return "event-stream"
    if vary_names(head) is None:
        return "vary"
    return "fields" if head.size > _LARGEST_HEAD else None


def _why_not_by_directives(asked: Asked, status: int, head: Head, rules: CachingRules) -> str | None:
    directives = head.directives
    if "must-understand" in directives:
        if status not in UNDERSTOOD:
            return "status"
    elif "no-store" in directives:
        return "no-store"
    if not rules.shared or (rules.per_user and asked.partition is not None):
        return None
    if head.terms.private:
        return "private"
    if asked.get("authorization") is not None and directives.keys().isdisjoint(("public", "s-maxage", "must-revalidate")):
        return "authorization"
    return None


def _why_not_safe(asked: Asked, head: Head, rules: CachingRules) -> str | None:
    """What no standard forbids."""
    if asked.partition is None and asked.identified and not means_everybody(head):
        return "identity"
    if b"set-cookie" in head and not rules.set_cookie and b"set-cookie" not in _left_out(head, rules, means_everybody(head)):
        return "set-cookie"
    suspicious = asked.suspicious
    if suspicious and not (suspicious - rules.unkeyed).issubset(vary_names(head) or ()):
        return "unkeyed"
    return None


def _why_worthless(status: int, head: Head, rules: CachingRules, received_at: float) -> str | None:
    if status not in HEURISTIC and not (status in rules.negative_ttl or said(head, rules)):
        return "no-lifetime"
    if b"etag" in head.values or b"last-modified" in head.values:
        return None
    terms = head.terms
    by_operator = status < 400 and rules.stale_if_error > 0
    if wants_validation(head):
        return None if by_operator and rules.ignore_origin_prohibition else "no-lifetime"
    if lifetime(head, status, rules, date_value(head, received_at)) > 0:
        return None
    if forbids_stale(head, rules):
        return None if by_operator and rules.ignore_origin_prohibition else "no-lifetime"
    if terms.stale_if_error or terms.stale_while_revalidate:
        return None
    return None if by_operator or (status < 400 and rules.stale_while_revalidate > 0) else "no-lifetime"


def kept_fields(head: Head, rules: CachingRules, *, everybody: bool, partition: str | None) -> tuple[tuple[bytes, bytes], ...]:
    """The fields of an answer that are kept (RFC 9111 section 3.1).

    Not kept are those of the connection, `Age`, which is counted on, those that the origin wants validated before they
    are used again (`no-cache="..."`), and in a shared cache those that are for one user (`private="..."`).

    Args:
        head: the answer's fields.
        rules: the operator's.
        everybody: it is kept for everybody ...
        partition: ... or for these.
    """
    if head.plain and head.terms.mild:
        return tuple(head.lines)
    names = head.values.keys()
    left_out = head.hop_by_hop()
    if own := _left_out(head, rules, everybody or partition is None):
        left_out |= own
    if left_out.isdisjoint(names) and b"age" not in names:
        return tuple(head.lines)
    return tuple([line for line in head.lines if (low := line[0].lower()) not in left_out and low != b"age"])


def _left_out(head: Head, rules: CachingRules, everybody: bool) -> frozenset[bytes]:
    names = head.terms.unvalidated_fields
    if rules.shared and (everybody or not rules.per_user):
        names |= head.terms.private_fields
    return frozenset([name.encode("latin-1") for name in names]) if names else _NO_FIELDS
