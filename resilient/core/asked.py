"""One request, as a cache sees it.

Rules of this file: made of bytes once for each request and asked many times, so looked through once, and nothing is
decoded that nobody asks for. Field names are in lower case, the lines of a field are joined by commas.
"""

from __future__ import annotations

from collections.abc import Hashable

from .directives import Directives, parse_directives
from .head import Lines

__all__ = ["IDENTITY", "UNKEYED", "Asked"]

# What says who asks, unless the operator knows of more.
IDENTITY = frozenset({"authorization", "proxy-authorization", "cookie", "x-api-key"})
# What some origins let choose the answer although hardly any says so in `Vary`.
UNKEYED = frozenset(
    {
        "forwarded",
        "x-forwarded-for",
        "x-forwarded-host",
        "x-forwarded-path",
        "x-forwarded-port",
        "x-forwarded-prefix",
        "x-forwarded-proto",
        "x-forwarded-scheme",
        "x-forwarded-server",
        "x-forwarded-ssl",
        "x-host",
        "x-http-host-override",
        "x-http-method",
        "x-http-method-override",
        "x-method-override",
        "x-original-host",
        "x-original-url",
        "x-rewrite-url",
    }
)
_UNKEYED = frozenset(name.encode() for name in UNKEYED)
_FORWARDED = b"x-forwarded-"
_CONDITIONS = frozenset({b"if-none-match", b"if-modified-since", b"if-match", b"if-unmodified-since", b"if-range"})
_FOR_ORIGIN = frozenset({b"if-match", b"if-unmodified-since"})
# Without these a request leaves it all to the answer.
_DEMANDS = frozenset({b"cache-control", b"pragma"})
_SPECIAL = _DEMANDS | _CONDITIONS | {b"range"}
# What differs from call to call and chooses nothing.
_INCIDENTAL = frozenset({b"traceparent", b"tracestate", b"baggage", b"x-request-id", b"user-agent", b"date"})
_NOBODY: frozenset[str] = frozenset()
_IDENTITIES = {IDENTITY: frozenset(name.encode() for name in IDENTITY)}
# Without these, and where nothing was forwarded, a request has nothing that could keep its answer from everybody.
_NOTABLE = _UNKEYED | _IDENTITIES[IDENTITY] | {b"content-length", b"transfer-encoding", b"upgrade"}

_NO_CACHE = parse_directives("no-cache")
_NOTHING = parse_directives("")


class Asked:
    """One request.

    Attributes:
        method: as it was sent; methods are case-sensitive.
        uri: without its fragment.
        fields: the lines of its head.
        partition: whose stored answers it may have besides those that are for everybody; None for nobody's.
        identity: names of the fields that say who asks.
        plain: it has neither directives nor conditions nor a range: everything is as the stored answer says.
    """

    __slots__ = ("_directives", "_ordinary", "_values", "fields", "identity", "method", "partition", "plain", "uri")

    def __init__(
        self, method: str, uri: str, fields: Lines = (), *, partition: str | None = None, identity: frozenset[str] = IDENTITY
    ) -> None:
        self.method = method
        self.uri = uri.partition("#")[0] if "#" in uri else uri
        self.fields = fields
        self.partition = partition
        self.identity = identity
        self._directives: Directives | None = None
        values = {name.lower(): value for name, value in fields}
        if len(values) != len(fields):
            values = _joined(fields)
        self._values: dict[bytes, bytes] = values
        self.plain = _SPECIAL.isdisjoint(values)
        self._ordinary: bool = (
            self.plain
            and method == "GET"
            and _NOTABLE.isdisjoint(values)
            and (identity is IDENTITY or not self.identified)
            and _FORWARDED not in b" ".join(values)
        )

    @classmethod
    def of(cls, method: str, uri: str, fields: Lines, *, partition: str | None = None, identity: frozenset[str] = IDENTITY) -> Asked:
        """The same as the constructor."""
        return cls(method, uri, fields, partition=partition, identity=identity)

    @property
    def ordinary(self) -> bool:
        """It is a plain GET by nobody in particular, without a body or anything `suspicious`, as nearly all are."""
        return self._ordinary and self.partition is None  # which may be found out later than the rest

    def get(self, name: str) -> str | None:
        """The value of a field, its name given in lower case, or None."""
        value = self._values.get(name.encode("latin-1", "replace"))
        return None if value is None else value.decode("latin-1")

    @property
    def directives(self) -> Directives:
        """Those of `Cache-Control`; where there is none, those that `Pragma` stands for (RFC 9111 section 5.4)."""
        found = self._directives
        if found is None:
            value = self._values.get(b"cache-control")
            if value is not None:
                found = parse_directives(value.decode("latin-1"))
            else:
                pragma = self._values.get(b"pragma")
                found = _NO_CACHE if pragma is not None and b"no-cache" in pragma.lower() else _NOTHING
            self._directives = found
        return found

    @property
    def conditional(self) -> bool:
        """Whether it has a condition of its own."""
        return not self.plain and not _CONDITIONS.isdisjoint(self._values)

    @property
    def for_origin(self) -> bool:
        """Whether it has a condition that only the origin can judge (RFC 9110 sections 13.1.1 and 13.1.4)."""
        return not self.plain and not _FOR_ORIGIN.isdisjoint(self._values)

    @property
    def ranged(self) -> bool:
        """Whether it wants a part of the answer."""
        return not self.plain and b"range" in self._values

    @property
    def identified(self) -> bool:
        """Whether it says who asks."""
        names = _IDENTITIES.get(self.identity) or frozenset(name.encode("latin-1", "replace") for name in self.identity)
        return not names.isdisjoint(self._values)

    @property
    def suspicious(self) -> frozenset[str]:
        """Fields that it has, and that might choose the answer without the origin saying so."""
        found = [name.decode("latin-1") for name in self._values if name in _UNKEYED or name[:12] == _FORWARDED]
        return frozenset(found) if found else _NOBODY

    @property
    def upgrades(self) -> bool:
        """Whether it wants to go on in another protocol, so that no answer is to come that could be kept."""
        return b"upgrade" in self._values

    @property
    def no_store(self) -> bool:
        """Whether it forbids to keep the answer (RFC 9111 section 5.2.1.5)."""
        return not self.plain and "no-store" in self.directives

    @property
    def only_if_cached(self) -> bool:
        """Whether it wants a stored answer or none (section 5.2.1.7)."""
        return not self.plain and "only-if-cached" in self.directives

    @property
    def has_content(self) -> bool:
        """Whether it has a body that might choose the answer."""
        values = self._values
        return b"transfer-encoding" in values or values.get(b"content-length", b"0").strip() not in (b"0", b"")

    def collapse_key(self) -> Hashable:
        """The same for requests that may wait for one answer: all but what differs from call to call is the same.

        It is not known before the first answer what `Vary` will name, and anything narrower can hand out a wrong variant.
        """
        return self.method, self.uri, self.partition, frozenset([item for item in self._values.items() if item[0] not in _INCIDENTAL])


def _joined(fields: Lines) -> dict[bytes, bytes]:
    """The values by name, where some name is there more than once."""
    values: dict[bytes, bytes] = {}
    for name, value in fields:
        low = name.lower()
        values[low] = values[low] + b", " + value if low in values else value
    return values
