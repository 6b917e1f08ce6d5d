"""Names under which answers are invalidated together (RFC 9875).

Rules of this file: a field is a list of strings (RFC 9651); one that is malformed says nothing at all. Bounded.
"""

from __future__ import annotations

import functools
import re

__all__ = ["CACHE_GROUPS", "GROUP_INVALIDATION", "strings"]

CACHE_GROUPS, GROUP_INVALIDATION = b"cache-groups", b"cache-group-invalidation"
# RFC 9875 section 2 asks for 32 groups of 32 characters at least.
_GROUPS, _LONGEST = 64, 4096
_CHARACTERS = r'"((?:[\x20\x21\x23-\x5b\x5d-\x7e]|\\["\\])*)"'
_STRING = re.compile(_CHARACTERS)
# A key, and a value of any type that such a list may have there: parameters are passed over.
_NUMBER, _BOOLEAN, _BYTES = r"-?[0-9]{1,15}(?:\.[0-9]{1,3})?", r"\?[01]", r":[A-Za-z0-9+/=]*:"
_TOKEN = r"[A-Za-z*][!#$%&'*+.^_`|~0-9A-Za-z:/-]*"
_PARAMETER = re.compile(rf"; *[a-z*][a-z0-9_.*-]*(?:=(?:{_CHARACTERS}|{_NUMBER}|{_BOOLEAN}|{_BYTES}|{_TOKEN}))?")
_COMMA = re.compile(r"[ \t]*,[ \t]*")
_ESCAPED = re.compile(r'\\(["\\])')


def strings(value: str | None) -> tuple[str, ...]:
    """The strings of a list, each once; none if it is no list of strings, or too long for anybody's good."""
    return () if value is None or len(value) > _LONGEST else _read(value)


@functools.lru_cache(maxsize=256)
def _read(value: str) -> tuple[str, ...]:
    value = value.strip(" ")
    found: dict[str, None] = {}
    at = 0
    while at < len(value):
        if at:
            comma = _COMMA.match(value, at)
            if comma is None:
                return ()
            at = comma.end()
        string = _STRING.match(value, at)
        if string is None:
            return ()
        found[_ESCAPED.sub(r"\1", string.group(1))] = None
        at = string.end()
        while (parameter := _PARAMETER.match(value, at)) is not None:
            at = parameter.end()
    return tuple(found) if len(found) <= _GROUPS else ()
