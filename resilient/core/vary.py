"""Which of the answers of one URI a request may have (RFC 9111 section 4.1).

Rules of this file: two requests get the same answer only if what `Vary` names is the same in both, up to what is known to
make no difference: white space, how a list is spread over lines and, of codings and languages, case and order.
"""

from __future__ import annotations

import functools
import hashlib
import re

from .asked import Asked
from .directives import TOKEN
from .head import Fields, Head, joined

__all__ = ["LONGEST", "selected", "vary_names"]

# So many fields choose no answer.
LONGEST = 32
# Characters of a value that is worth remembering: clients say the same few things again and again.
_REMEMBERED = 256
_COMMAS = re.compile(r"[ \t]*,[ \t]*")
# Lists of which the specification says that case and order mean nothing (RFC 9110 sections 12.5.2 to 12.5.4).
_SETS = frozenset({"accept-charset", "accept-encoding", "accept-language"})
_WEIGHT = re.compile(r"[ \t]*;[ \t]*q=([01](?:\.[0-9]{0,3})?)")


def vary_names(fields: Fields) -> tuple[str, ...] | None:
    """The names of the fields that chose an answer, in lower case and in order; None if no other request may have it."""
    head = Head.of(fields)
    if b"vary" not in head.values:
        return ()
    value = joined(head.values[b"vary"])
    names = {name.strip(" \t").lower() for name in value.split(",")} - {""}
    if "*" in names or len(names) > LONGEST or not all(TOKEN.fullmatch(name) for name in names):
        return None
    return tuple(sorted(names))


def selected(asked: Asked, names: tuple[str, ...]) -> tuple[str | None, ...]:
    """What a request says in those fields, in a normal form, and None for one that it has not.

    What says who asks is not kept as it is, but as a digest: it is stored, and compared, and nobody need read it.
    """
    return tuple([_normal(asked, name) for name in names])


def _normal(asked: Asked, name: str) -> str | None:
    value = asked.get(name)
    if value is None:
        return None
    if name in asked.identity:
        return hashlib.sha256(value.encode("latin-1")).hexdigest()
    value = value.strip(" \t")
    if '"' in value:  # within quotation marks white space does mean something
        return value
    if name in _SETS:
        return _remembered(value) if len(value) <= _REMEMBERED else _as_set(value)
    return _COMMAS.sub(",", value) if "," in value else value


def _as_set(value: str) -> str:
    return ",".join(sorted({_weighed(member) for member in value.lower().split(",")} - {""}))


_remembered = functools.lru_cache(maxsize=512)(_as_set)


def _weighed(member: str) -> str:
    member = member.strip(" \t")
    match = _WEIGHT.search(member)
    if match is None or match.end() != len(member):
        return member
    weight = float(match.group(1))
    return member[: match.start()] + ("" if weight == 1 else f";q={weight:g}")
