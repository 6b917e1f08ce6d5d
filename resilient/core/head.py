"""The header fields of one message, by name.

Rules of this file: bytes in, text out, read as Latin-1, which no byte is foreign to. Looked through once; whoever asks
for several things about an answer makes a `Head` of its fields first and hands that around instead.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TypeAlias

from .directives import Directives
from .terms import NOTHING_SAID, Terms, terms_of

__all__ = ["HOP_BY_HOP", "Fields", "Head", "Lines", "joined"]

Lines: TypeAlias = Sequence[tuple[bytes, bytes]]

# RFC 9110 section 7.6.1 and RFC 9111 section 3.1. A stored answer has no trailers, so nothing is said of them either.
HOP_BY_HOP = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authentication-info",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"transfer-encoding",
        b"upgrade",
    }
)
_SPECIAL = HOP_BY_HOP | {b"age", b"cache-groups", b"content-range", b"set-cookie", b"vary"}


class Head:
    """The fields of one message.

    Attributes:
        lines: the fields as they came.
        values: the same by name, in lower case, the values of several lines in a list.
        terms: what `Cache-Control` says ...
        directives: ... and in which words.
        size: bytes of all names and values.
        plain: nothing of it but `terms`, dates and validators means anything to a cache, as of nearly every answer.
    """

    __slots__ = ("directives", "lines", "plain", "size", "terms", "values")

    def __init__(self, lines: Lines) -> None:
        self.lines = lines
        self.values: dict[bytes, list[bytes]] = {}
        values = self.values
        size = 0
        for name, value in lines:
            low = name.lower()
            size += len(name) + len(value)
            if low in values:
                values[low].append(value)
            else:
                values[low] = [value]
        self.size = size
        self.plain = _SPECIAL.isdisjoint(values)
        said = values.get(b"cache-control")
        self.terms: Terms = NOTHING_SAID if said is None else terms_of(said[0].decode("latin-1") if len(said) == 1 else joined(said))
        self.directives: Directives = self.terms.directives

    @classmethod
    def of(cls, fields: Fields) -> Head:
        """The head that these fields are; one that is one already, as it is."""
        return fields if isinstance(fields, cls) else cls(fields)  # type: ignore[arg-type]

    def __contains__(self, name: bytes) -> bool:
        return name in self.values

    def first(self, name: bytes) -> str | None:
        """The value of a field's first line, or None."""
        lines = self.values.get(name)
        return None if lines is None else lines[0].decode("latin-1").strip(" \t")

    def get(self, name: bytes) -> str | None:
        """A field's value, lines joined by commas, or None."""
        lines = self.values.get(name)
        return None if lines is None else joined(lines)

    @property
    def length(self) -> int | None:
        """Of the body, where that is said in digits; of several lines the last."""
        lines = self.values.get(b"content-length")
        if lines is None or len(lines[-1]) > 15 or not lines[-1].isdigit():
            return None
        return int(lines[-1])

    def hop_by_hop(self) -> frozenset[bytes]:
        """The names of what is meant for this one connection only, those that `Connection` lists among them."""
        value = self.get(b"connection")
        if value is None:
            return HOP_BY_HOP
        return HOP_BY_HOP.union(name.strip(" \t").lower().encode("latin-1") for name in value.split(","))


Fields: TypeAlias = "Lines | Head"


def joined(lines: Iterable[bytes]) -> str:
    """Several lines of a field as one (RFC 9110 section 5.3)."""
    return ", ".join([line.decode("latin-1").strip(" \t") for line in lines])
