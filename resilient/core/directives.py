"""The small languages of the caching fields: directives, seconds and dates.

Rules of this file: text in, values out. What cannot be read is nothing, or what allows less; nothing here raises.
Everything is bounded, and what was read lately is remembered, since an origin says the same few things again and again.
"""

from __future__ import annotations

import functools
import re
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TypeAlias

__all__ = ["LONGEST", "REMEMBERED", "TOKEN", "Directives", "delta_seconds", "http_date", "parse_directives"]

Directives: TypeAlias = MappingProxyType[str, "str | None"]

TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
# RFC 9111 section 1.2.2: a cache takes what is larger for this many seconds.
LONGEST = 2**31
# Directives that are remembered although nobody here knows them.
_UNKNOWN = 64
# Of these a bare one forbids more than one that names fields: it wins, wherever it stands.
_QUALIFIED = frozenset({"private", "no-cache"})
_KNOWN = _QUALIFIED | {
    "max-age",
    "s-maxage",
    "no-store",
    "must-revalidate",
    "proxy-revalidate",
    "public",
    "must-understand",
    "stale-while-revalidate",
    "stale-if-error",
    "max-stale",
    "min-fresh",
    "only-if-cached",
}
# Characters of a value that is worth remembering, and of one that is read at all: a longer one is taken for `no-store`.
REMEMBERED, _READ = 512, 16_384

# A member of a list: quoted strings, in which a comma separates nothing, and everything else up to a comma.
_MEMBER = re.compile(r'(?:[^",]|"(?:[^"\\]|\\.)*+")+', re.DOTALL)
_STRING = re.compile(r'"(?:[^"\\]|\\.)*+("?)', re.DOTALL)
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"', re.DOTALL)
_ESCAPED = re.compile(r"\\(.)", re.DOTALL)


def parse_directives(value: str) -> Directives:
    """The directives of a `Cache-Control` field, names in lower case, with their arguments (RFC 9111 section 5.2).

    Of a directive that is there twice the first counts (section 4.2.1), except that a `private` or `no-cache` without
    names of fields counts before one with, and the names of two such come together. The argument is None where there
    is none, and the empty string where it is neither a token nor a quoted string, which no directive takes for a value.

    Args:
        value: the field's value, the lines of several joined by commas.
    """
    if len(value) <= REMEMBERED:
        return _remembered(value)
    return _parsed(value) if len(value) <= _READ else _NOTHING_KEPT


def _parsed(value: str) -> Directives:
    found: dict[str, str | None] = {}
    for member in _members(value) if '"' in value else value.split(","):
        text = member.strip(" \t")
        match = TOKEN.match(text)
        if match is None:
            continue
        name = match.group().lower()
        if len(found) >= _UNKNOWN and name not in _KNOWN:
            continue
        argument = _argument(text[match.end() :])
        if name not in found:
            found[name] = argument
        elif name in _QUALIFIED:
            before = found[name]
            found[name] = f"{before},{argument}" if before and argument else None
    return MappingProxyType(found)


def _members(value: str) -> list[str]:
    """The members of a list. A quotation that does not end is none: or it would hide the `no-store` behind it."""
    for string in _STRING.finditer(value):
        if not string.group(1):
            start = string.start()
            return [*_MEMBER.findall(value[:start]), *value[start + 1 :].split(",")]
    return _MEMBER.findall(value)


def _argument(text: str) -> str | None:
    if not text:
        return None
    if text[0] != "=":
        return ""
    quoted = _QUOTED.fullmatch(text, 1)
    if quoted is not None:
        return _ESCAPED.sub(r"\1", quoted.group(1))
    return text[1:] if TOKEN.fullmatch(text, 1) else ""


_NOTHING_KEPT = _parsed("no-store")
_remembered = functools.lru_cache(maxsize=512)(_parsed)


def delta_seconds(text: str | None) -> int | None:
    """A number of seconds (RFC 9111 section 1.2.2), or None if it is none: signs, fractions, words, nothing."""
    if not text or not (text.isascii() and text.isdigit()):
        return None
    digits = text.lstrip("0")
    return LONGEST if len(digits) > 10 else min(int(digits or "0"), LONGEST)


_DAY = "(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)"
_MONTHS = {"Jan": 1, "Feb": 2, "Mar": 3, "Apr": 4, "May": 5, "Jun": 6, "Jul": 7, "Aug": 8, "Sep": 9, "Oct": 10, "Nov": 11, "Dec": 12}
_MONTH = f"({'|'.join(_MONTHS)})"
_TIME = r"([0-9]{2}):([0-9]{2}):([0-9]{2})"
_IMF = re.compile(rf"{_DAY}, ([0-9]{{2}}) {_MONTH} ([0-9]{{4}}) {_TIME} GMT")
_RFC850 = re.compile(rf"(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, ([0-9]{{2}})-{_MONTH}-([0-9]{{2}}) {_TIME} GMT")
_ASCTIME = re.compile(rf"{_DAY} {_MONTH} ([0-9]{{2}}| [0-9]) {_TIME} ([0-9]{{4}})")
# Two digits of a year mean the last century if they lie more than 50 years ahead. What "ahead" means in a program of today:
_THIS_YEAR = 2026


def http_date(text: str | None, wall: float | None = None) -> float | None:
    """Seconds since 1970 of an HTTP-date in one of its three forms (RFC 9110 section 5.6.7), or None if it is none.

    Strict, for a date that is not one is in the past where it is an `Expires` (RFC 9111 section 5.3): another zone than
    GMT, a missing comma, another case than the specified one make it none.

    Args:
        text: the field's value.
        wall: the present in wall time, by which the years of two digits are read.
    """
    if text is None or len(text) > 40:
        return None
    return _imf(text) if text.endswith("GMT") and len(text) == 29 else _old(text, wall)


@functools.lru_cache(maxsize=512)
def _imf(text: str) -> float | None:
    match = _IMF.fullmatch(text)
    if match is None:
        return _old(text, None)
    day, month, year, *time = match.groups()
    return _moment(int(year), month, int(day), time)


def _old(text: str, wall: float | None) -> float | None:
    if (match := _RFC850.fullmatch(text)) is not None:
        day, month, short, *time = match.groups()
        present = _THIS_YEAR if wall is None else 1970 + int(wall // 31_556_952)
        year = 2000 + int(short)
        return _moment(year - 100 if year > present + 50 else year, month, int(day), time)
    if (match := _ASCTIME.fullmatch(text)) is not None:
        month, day, *time, year_text = match.groups()
        return _moment(int(year_text), month, int(day), time)
    return None


def _moment(year: int, month: str, day: int, time: list[str]) -> float | None:
    hour, minute, second = map(int, time)
    leap = second == 60
    try:
        return datetime(year, _MONTHS[month], day, hour, minute, 59 if leap else second, tzinfo=UTC).timestamp() + leap
    except ValueError:
        return None
