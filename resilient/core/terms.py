"""What an answer's `Cache-Control` comes to, worked out once for all answers that say the same.

Rules of this file: pure functions of text. What is remembered is bounded, since an origin says the same few things again
and again; what is too long to be remembered is worked out anew.
"""

from __future__ import annotations

import functools

from .directives import REMEMBERED, TOKEN, Directives, delta_seconds, parse_directives

__all__ = ["NOTHING_SAID", "Terms", "terms_of"]

# What keeps an answer from being stored, or parts of it, or asks for more than numbers to be compared.
_RESTRICTIVE = frozenset({"no-store", "private", "no-cache", "must-understand"})
_NO_NAMES: frozenset[str] = frozenset()


class Terms:
    """What the directives of an answer say.

    Attributes:
        directives: as they are there.
        max_age, s_maxage: seconds; 0 where they cannot be read, None where they are not there.
        stale_while_revalidate, stale_if_error: seconds; 0 where they are not there.
        everybody: anybody may have it, whoever asked for it: `public` or `s-maxage`.
        private: it is for one user, all of it.
        validated: it may never be used without asking the origin: a `no-cache` that names no fields (RFC 9111 section 5.2.2.4).
        strict, strict_if_shared: it may never be used stale (section 4.2.4), by any cache or by a shared one.
        unvalidated_fields, private_fields: the names of fields that `no-cache="..."` and `private="..."` name.
        mild: nothing of it keeps an answer from being stored, or from being given out as it is.
    """

    __slots__ = (
        "directives",
        "everybody",
        "max_age",
        "mild",
        "private",
        "private_fields",
        "s_maxage",
        "stale_if_error",
        "stale_while_revalidate",
        "strict",
        "strict_if_shared",
        "unvalidated_fields",
        "validated",
    )

    def __init__(self, directives: Directives) -> None:
        self.directives = directives
        self.max_age = _seconds(directives, "max-age")
        self.s_maxage = _seconds(directives, "s-maxage")
        self.stale_while_revalidate = _seconds(directives, "stale-while-revalidate") or 0.0
        self.stale_if_error = _seconds(directives, "stale-if-error") or 0.0
        self.private_fields = _names(directives.get("private"))
        self.unvalidated_fields = _names(directives.get("no-cache"))
        self.private = "private" in directives and not self.private_fields
        self.validated = "no-cache" in directives and not self.unvalidated_fields
        self.everybody = ("public" in directives or "s-maxage" in directives) and not self.private
        self.strict = "must-revalidate" in directives
        self.strict_if_shared = self.strict or "proxy-revalidate" in directives or "s-maxage" in directives
        self.mild = _RESTRICTIVE.isdisjoint(directives)


def terms_of(value: str) -> Terms:
    """What a `Cache-Control` field says, the lines of several joined by commas."""
    return _remembered(value) if len(value) <= REMEMBERED else _worked_out(value)


def _worked_out(value: str) -> Terms:
    return Terms(parse_directives(value))


def _seconds(directives: Directives, name: str) -> float | None:
    return float(delta_seconds(directives[name]) or 0) if name in directives else None


def _names(argument: str | None) -> frozenset[str]:
    """The fields that `private="..."` or `no-cache="..."` name; none if they cannot be read: then it means all."""
    if not argument:
        return _NO_NAMES
    names = {name.strip(" \t").lower() for name in argument.split(",")} - {""}
    return frozenset(names) if all(TOKEN.fullmatch(name) for name in names) else _NO_NAMES


_remembered = functools.lru_cache(maxsize=512)(_worked_out)
NOTHING_SAID = terms_of("")
