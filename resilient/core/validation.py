"""Asking the origin whether a stored answer still holds, and answering the same question to others.

Rules of this file: pure functions of entries, requests and fields. Where validators differ nothing is updated.
RFC 9110 sections 8.8, 13, 14 and 15.4.5; RFC 9111 sections 3.2, 4.3.4 and 4.3.5.
"""

from __future__ import annotations

import re
from dataclasses import replace
from typing import TypeAlias

from .asked import Asked
from .caching import CachingRules
from .directives import http_date
from .entry import Entry, described
from .head import Fields, Head
from .vary import selected, vary_names

__all__ = ["Answer", "answer_to", "conditions", "freshened", "strong", "updated_by_head", "weakly_equal"]

Answer: TypeAlias = tuple[int, tuple[tuple[bytes, bytes], ...], bytes]

# They tell of the stored body, which a 304 does not change (RFC 9111 section 3.2), or of the body of the 304 itself.
_OF_THE_BODY = frozenset({b"content-length", b"content-encoding", b"content-range", b"content-md5", b"content-digest", b"digest"})
_OF_THE_WHOLE = _OF_THE_BODY - {b"content-encoding", b"digest"}
# RFC 9110 section 15.4.5.
_OF_A_304 = frozenset({b"cache-control", b"content-location", b"date", b"etag", b"expires", b"vary"})
_TAG = re.compile(r'(?:W/)?"[^"]*"|[^",\s]+')
_RANGE = re.compile(r"bytes[ \t]*=[ \t]*(?:([0-9]{1,18})-([0-9]{0,18})|-([0-9]{1,18}))[ \t]*", re.IGNORECASE)
# A date is a strong validator if the answer was made so many seconds later at least (RFC 9110 section 8.8.2.2).
_STRONG_AFTER = 1.0


def conditions(entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
    """The fields with which to ask the origin whether an answer still holds; none if it has no validators."""
    found: list[tuple[bytes, bytes]] = []
    if entry.etag:
        found.append((b"If-None-Match", entry.etag.encode("latin-1")))
    if entry.last_modified:
        found.append((b"If-Modified-Since", entry.last_modified.encode("latin-1")))
    return tuple(found)


def strong(etag: str | None) -> bool:
    """Whether an entity tag says the same of two bodies only if they are equal byte by byte."""
    return etag is not None and not etag.startswith("W/")


def weakly_equal(one: str, other: str) -> bool:
    """Whether two entity tags are the same but for weakness (RFC 9110 section 8.8.3.2)."""
    return one.removeprefix("W/") == other.removeprefix("W/")


def freshened(
    entry: Entry,
    fields304: Fields,
    *,
    requested_at: float,
    received_at: float,
    now: float,
    rules: CachingRules,
    asked: Asked | None = None,
    chance: float = 0.0,
) -> Entry | None:
    """A stored answer after the origin has said that it still holds (RFC 9111 section 4.3.4).

    Whether it may be kept from now on is for `why_not_stored` to say, of the fields that it has then. A cookie that the
    304 sets is for the one who asked; it does not become part of the answer.

    Args:
        entry: the answer whose validators the request had.
        fields304: the fields of the 304.
        requested_at: when it was asked for, in wall time ...
        received_at: ... and when it came ...
        now: ... which is this moment in monotonic time.
        rules: the operator's.
        asked: the request; needed only if the answer varies by other fields from now on.
        chance: as of `Entry.made`.

    Returns:
        None if the 304 is for another answer, for its validators differ: then nothing is known, and what the caller wants
        has to be asked for without conditions.
    """
    head = Head.of(fields304)
    if not _same_validators(entry, head):
        return None
    return _updated(entry, head, requested_at, received_at, now, rules, asked, chance)


def _same_validators(entry: Entry, head: Head) -> bool:
    etag = head.first(b"etag")
    if etag is not None:
        if entry.etag is None:
            return False
        return etag == entry.etag if strong(etag) else weakly_equal(etag, entry.etag)
    modified = head.first(b"last-modified")
    return modified is None or entry.last_modified is None or modified == entry.last_modified


def updated_by_head(
    entry: Entry,
    fields: Fields,
    *,
    requested_at: float,
    received_at: float,
    now: float,
    rules: CachingRules,
    asked: Asked | None = None,
    chance: float = 0.0,
) -> Entry | None:
    """A stored 200 after the origin has answered 200 to a HEAD that it would have been chosen for (RFC 9111 section 4.3.5).

    The arguments are those of `freshened`.

    Returns:
        None if the two are not alike: then the stored answer is out of date, and must not be used unvalidated.
    """
    head = Head.of(fields)
    length = head.first(b"content-length")
    alike = (
        entry.status == 200
        and head.first(b"etag") in (None, entry.etag)
        and head.first(b"last-modified") in (None, entry.last_modified)
        and length in (None, str(len(entry.body)))
    )
    return _updated(entry, head, requested_at, received_at, now, rules, asked, chance) if alike else None


def _updated(
    entry: Entry, new: Head, requested_at: float, received_at: float, now: float, rules: CachingRules, asked: Asked | None, chance: float
) -> Entry | None:
    """The same answer with newer fields: what is new takes the place of what was there (RFC 9111 section 3.2)."""
    left_out = new.hop_by_hop() | _OF_THE_BODY
    if not rules.set_cookie:
        left_out |= {b"set-cookie"}
    # The date is that of the newer message, or else the moment when it came.
    replaced = (new.values.keys() - left_out) | {b"date"}
    head = Head(
        [line for line in entry.fields if line[0].lower() not in replaced] + [line for line in new.lines if line[0].lower() not in left_out]
    )
    vary = vary_names(head)
    if vary is None:
        return None
    chosen = entry.selected
    if vary != entry.vary:
        if asked is None:
            return None
        chosen = selected(asked, vary)
    fresh = replace(
        entry,
        requested_at=requested_at,
        received_at=received_at,
        arrived=now,
        took=max(0.0, received_at - requested_at),
        vary=vary,
        selected=chosen,
    )
    return described(fresh, head, rules, partition=None if asked is None else asked.partition, chance=chance)


def answer_to(asked: Asked, entry: Entry) -> Answer | None:
    """What a request with conditions or a range of its own gets of a stored answer that may be used for it.

    `If-Match` and `If-Unmodified-Since` are for the origin (`Asked.for_origin`) and are passed over here.

    Returns:
        Status, fields and body: 304 if its conditions say that it has the same answer already (RFC 9111 section 4.3.2),
        206 or 416 if it wants one range of a whole one (RFC 9110 section 14), the answer without its body for HEAD. None:
        the whole answer, as it is stored; also for several ranges at once, which nobody has to honour.
    """
    if not asked.plain:
        if 200 <= entry.status < 300 and _has_it_already(asked, entry):
            return 304, _fields_of_a_304(entry), b""
        if asked.method == "GET" and entry.status == 200 and entry.body:
            part = _part(asked, entry)
            if part is not None:
                return part
    return (entry.status, entry.fields, b"") if asked.method == "HEAD" else None


def _has_it_already(asked: Asked, entry: Entry) -> bool:
    tags = asked.get("if-none-match")
    if tags is not None:
        if tags.strip() == "*":
            return True
        etag = entry.etag
        return etag is not None and any(weakly_equal(tag, etag) for tag in _TAG.findall(tags))
    since = http_date(asked.get("if-modified-since"), entry.received_at)
    if since is None:
        return False
    modified = http_date(entry.last_modified, entry.received_at)
    return (entry.date if modified is None else modified) <= since


def _fields_of_a_304(entry: Entry) -> tuple[tuple[bytes, bytes], ...]:
    names = _OF_A_304 if entry.etag is not None else _OF_A_304 | {b"last-modified"}
    return tuple(line for line in entry.fields if line[0].lower() in names)


def _part(asked: Asked, entry: Entry) -> Answer | None:
    wanted = asked.get("range")
    match = None if wanted is None else _RANGE.fullmatch(wanted.strip(" \t"))
    if match is None or not _same_representation(asked.get("if-range"), entry):
        return None
    first, last, suffix = match.groups()
    length = len(entry.body)
    if suffix is not None:
        start, end = max(0, length - int(suffix)), length
    else:
        start, end = int(first), min(int(last) + 1, length) if last else length
        if last and int(last) < start:
            return None  # not a range at all (RFC 9110 section 14.1.1)
    if start >= length:
        return 416, ((b"Content-Range", b"bytes */%d" % length), (b"Content-Length", b"0")), b""
    kept = [line for line in entry.fields if line[0].lower() not in _OF_THE_WHOLE]
    kept += [(b"Content-Range", b"bytes %d-%d/%d" % (start, end - 1, length)), (b"Content-Length", b"%d" % (end - start))]
    return 206, tuple(kept), entry.body[start:end]


def _same_representation(condition: str | None, entry: Entry) -> bool:
    """Whether `If-Range` lets a range be answered: its validator is the stored one, and a strong one (RFC 9110 section 13.1.5)."""
    if condition is None:
        return True
    if '"' in condition:
        return strong(condition) and condition == entry.etag
    modified = http_date(entry.last_modified, entry.received_at)
    return modified is not None and condition == entry.last_modified and entry.date - modified >= _STRONG_AFTER
