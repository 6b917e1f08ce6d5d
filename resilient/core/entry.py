"""What a cache keeps: answers, what is known of the variants of a URI, and marks that tell old answers from new ones.

Rules of this file: records only, parsed once when they are made. No clock: `now` is monotonic time, `wall` seconds since
1970. What is kept is never changed afterwards, except that an answer which comes from another process is placed in time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from email.utils import formatdate
from typing import Any, TypeAlias

from .asked import Asked
from .caching import CachingRules, forbids_stale, kept_fields
from .groups import CACHE_GROUPS, strings
from .head import Fields, Head
from .lifetime import date_value, initial_age, lifetime
from .vary import selected, vary_names

__all__ = ["FIELD", "KEYS", "OVERHEAD", "SPECS", "Entry", "Mark", "Record", "Variants", "described"]

# What an entry takes besides its body and fields, and a field besides its name and value, in bytes: as measured on CPython,
# where each field is a tuple and two objects, which have heads of their own.
OVERHEAD = 1024
FIELD = 144
# How much is remembered of the variants of one URI.
SPECS, KEYS = 4, 32


@dataclass(slots=True, kw_only=True)
class Entry:
    """A stored answer, or the value of a function.

    Attributes:
        status: the answer's; 0 for a function's value.
        fields: its header fields as they may be given out, `Age` excepted (RFC 9111 section 3.1).
        body: its content, whole, as it came over the wire.
        value: what a function returned.
        requested_at, received_at: when it was asked for and when its head was here, in wall time.
        arrived: when its head was here, in monotonic time; NaN until `place` is called for one that another process stored.
        initial_age: how old it was then, in seconds (RFC 9111 section 4.2.3).
        lifetime: seconds of age below which it is fresh (section 4.2.1).
        took: seconds that it took to fetch.
        stale_while_revalidate, stale_if_error: seconds beyond its lifetime, as the origin said; 0 if it did not (RFC 5861).
        needs_validation: it may never be used without asking the origin (`no-cache`).
        strict: it may never be used stale (`must-revalidate`; in a shared cache also `proxy-revalidate` and `s-maxage`).
        open: the origin means it for everybody (`public`, `s-maxage`).
        etag, last_modified: its validators, as they came.
        date: when it was made, in wall time by the origin's clock; when it came, if that is not known.
        vary: names of the request's fields that chose it, in lower case ...
        selected: ... and what they said, in a normal form; None for one that was not there.
        groups: what it can be invalidated together with (RFC 9875).
        generation: tells it from answers to the same request before and after a write.
        size: bytes that it counts for.
    """

    status: int = 0
    fields: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""
    value: Any = None
    requested_at: float = 0.0
    received_at: float = 0.0
    arrived: float = field(default=math.nan, compare=False)
    initial_age: float = 0.0
    lifetime: float = 0.0
    took: float = 0.0
    stale_while_revalidate: float = 0.0
    stale_if_error: float = 0.0
    needs_validation: bool = False
    strict: bool = False
    open: bool = False
    etag: str | None = None
    last_modified: str | None = None
    date: float = 0.0
    vary: tuple[str, ...] = ()
    selected: tuple[str | None, ...] = ()
    groups: tuple[str, ...] = ()
    generation: str = ""
    size: int = OVERHEAD

    def age(self, now: float) -> float:
        """Seconds since it was made or last validated at the origin (RFC 9111 section 4.2.3)."""
        resident = now - self.arrived
        return self.initial_age + resident if resident > 0 else self.initial_age

    def ttl(self, now: float) -> float:
        """Seconds that it stays fresh; negative once it is stale: then so many seconds too old, and 0 is too old as well."""
        return self.lifetime - self.age(now)

    def place(self, now: float, wall: float) -> Entry:
        """Give an entry from another process its place in this one's time; returns itself.

        Two processes have no monotonic clock in common, so the wall clocks' difference is what it has aged meanwhile. A
        clock that was set back in between makes it no younger than it was when it came.
        """
        self.arrived = now - max(0.0, wall - self.received_at)
        return self

    @classmethod
    def made(
        cls,
        asked: Asked,
        status: int,
        fields: Fields,
        body: bytes,
        *,
        requested_at: float,
        received_at: float,
        now: float,
        rules: CachingRules,
        generation: str = "",
        chance: float = 0.0,
    ) -> Entry:
        """An answer, read once: what a later request needs of it are comparisons.

        Whether it may be kept is another question (`why_not_stored`), to be asked first.

        Args:
            asked: the request.
            status: the answer's status.
            fields: its header fields.
            body: its content.
            requested_at: when it was asked for, in wall time ...
            received_at: ... and when its head was here ...
            now: ... which is this moment in monotonic time.
            rules: the operator's.
            generation: of the marks that were read before it was asked for.
            chance: a number in [0, 1), by which the operator's lifetimes are spread; 0 leaves them as they are.
        """
        head = Head.of(fields)
        entry = object.__new__(cls)  # each field by its name here or in `described`, for which the constructor takes twice as long
        entry.status, entry.body, entry.value = status, body, None
        entry.requested_at, entry.received_at, entry.arrived = requested_at, received_at, now
        entry.took = received_at - requested_at if received_at > requested_at else 0.0
        entry.vary = vary = () if head.plain else vary_names(head) or ()
        entry.selected = selected(asked, vary) if vary else ()
        entry.groups, entry.generation = (), generation
        return described(entry, head, rules, partition=asked.partition, chance=chance)

    @classmethod
    def of_value(
        cls,
        value: Any,
        *,
        ttl: float,
        stale_if_error: float = 0.0,
        stale_while_revalidate: float = 0.0,
        now: float,
        wall: float,
        took: float = 0.0,
        size: int = 0,
        generation: str = "",
    ) -> Entry:
        """A function's value, fresh for `ttl` seconds from `now` on.

        Args:
            value: what it returned.
            ttl: seconds of freshness.
            stale_if_error: seconds after that for which it stands in for an error ...
            stale_while_revalidate: ... and for which it is used while a new one is fetched.
            now: the present moment, by the monotonic clock ...
            wall: ... and by the wall clock.
            took: seconds that the function took.
            size: bytes that the value takes; what an entry takes besides is added.
            generation: as of an answer.
        """
        return cls(
            value=value,
            requested_at=wall - took,
            received_at=wall,
            arrived=now,
            lifetime=ttl,
            took=took,
            stale_if_error=stale_if_error,
            stale_while_revalidate=stale_while_revalidate,
            date=wall,
            generation=generation,
            size=size + OVERHEAD,
        )


def described(entry: Entry, head: Head, rules: CachingRules, *, partition: str | None, chance: float) -> Entry:
    """Fill in what the head of an answer says of it; returns the entry, which nobody else may know yet."""
    received_at = entry.received_at
    date = date_value(head, received_at)
    age = initial_age(head, date, entry.requested_at, received_at)
    fresh = lifetime(head, entry.status, rules, date)
    if chance and rules.by_operator(head, entry.status):
        fresh *= 1 - rules.jitter * chance
    entry.lifetime = fresh
    entry.initial_age = fresh if age is None else age  # not known: no longer fresh
    terms = head.terms
    entry.stale_while_revalidate, entry.stale_if_error = terms.stale_while_revalidate, terms.stale_if_error
    entry.needs_validation = terms.validated
    entry.strict = forbids_stale(head, rules)
    entry.open = terms.everybody
    entry.etag = head.first(b"etag")
    entry.last_modified = head.first(b"last-modified")
    entry.date = date
    if not head.plain and CACHE_GROUPS in head.values:
        entry.groups = strings(head.get(CACHE_GROUPS))
    fields = kept_fields(head, rules, everybody=entry.open, partition=partition)
    whole = len(fields) == len(head.lines)
    size = head.size if whole else sum([len(name) + len(value) for name, value in fields])
    if b"date" not in head.values:  # RFC 9110 section 6.6.1: who keeps an undated answer dates it
        dated = b"Date", formatdate(received_at, usegmt=True).encode("ascii")
        fields = (*fields, dated)
        size += len(dated[0]) + len(dated[1])
    entry.fields = fields
    entry.size = OVERHEAD + len(entry.body) + size + FIELD * len(fields)
    return entry


@dataclass(frozen=True, slots=True)
class Variants:
    """What is known of a URI whose answers vary.

    Attributes:
        specs: the sets of field names that its answers' `Vary` named, the newest first, at most 4.
        keys: the keys under which its variants are stored, the oldest first, at most 32.
    """

    specs: tuple[tuple[str, ...], ...] = ()
    keys: tuple[str, ...] = ()

    def added(self, spec: tuple[str, ...], key: str) -> tuple[Variants, tuple[str, ...]]:
        """The same with one more variant, or with one that is known as the newest; and the keys for which there is no room."""
        specs = (spec, *(known for known in self.specs if known != spec))[:SPECS]
        keys = (*(known for known in self.keys if known != key), key)
        return Variants(specs, keys[-KEYS:]), keys[:-KEYS]


@dataclass(frozen=True, slots=True)
class Mark:
    """A generation of answers: who stores one reads it before asking the origin, and invalidating replaces it.

    Attributes:
        token: tells it from others.
        first: it is to be kept only where there is none yet; one that replaces another is not.
    """

    token: str
    first: bool = field(default=False, compare=False)


Record: TypeAlias = Entry | Variants | Mark
