"""The `Degraded` response header, a List of RFC 9651: what the client was served below its full level."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable
from dataclasses import replace

from ..core.degradation import Degradation
from .exposure import exposure
from .inbound import Inbound
from .protocols import ASGIApp, Surroundings
from .responses import FIELD_NAME

__all__ = ["DegradationHeader", "DegradationMiddleware", "degraded_field"]

_TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")
_STRING = re.compile(r"[ -~]*")
UNNAMED = "dependency"
"""What a dependency that fell back outside of every feature is called before those who may not know its name."""
_LARGEST = 999_999_999_999_999  # of an Integer, RFC 9651 section 3.3.1


def degraded_field(degradations: Iterable[Degradation], *, expose_causes: bool = False) -> str:
    """The value of the field: `recommendations;level=static, reviews;level=off`.

    With `expose_causes` each member also has its cause, its dependency and the age of what was served. Without, all
    dependencies that fell back on their own are one member without a name, at their worst.
    """
    return ", ".join(_member(one, expose_causes) for one in (degradations if expose_causes else _nameless(degradations)))


def _nameless(degradations: Iterable[Degradation]) -> Iterable[Degradation]:
    told: dict[str, Degradation] = {}
    for one in degradations:
        name = UNNAMED if one.own else one.feature
        known = told.get(name)
        if known is None or one.level.severity > known.level.severity:
            told[name] = replace(one, feature=name)
    return told.values()


def _member(degradation: Degradation, expose_causes: bool) -> str:
    member = f"{_bare_item(degradation.feature)};level={degradation.level}"
    if expose_causes:
        member += f";cause={_bare_item(degradation.cause)}"
        if degradation.dependency:
            member += f";dependency={_bare_item(degradation.dependency)}"
        if degradation.age is not None and degradation.age >= 0:
            member += f";age={math.floor(min(degradation.age, _LARGEST))}"
    return member


def _bare_item(text: str) -> str:
    """A Token if the text is one, else a String, else a Display String. Whatever a name holds, the field stays parsable."""
    if _TOKEN.fullmatch(text):
        return text
    if _STRING.fullmatch(text):
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'
    escaped = (chr(byte) if 0x20 <= byte < 0x7F and byte not in b'%"' else f"%{byte:02x}" for byte in text.encode(errors="replace"))
    return '%"' + "".join(escaped) + '"'


class DegradationHeader:
    """Writes the field into the headers of a response.

    Args:
        name: the field's name.
    """

    __slots__ = ("_name",)

    def __init__(self, name: str = "Degraded") -> None:
        if not isinstance(name, str) or not FIELD_NAME.fullmatch(name):
            raise ValueError(f"degraded_header: expected the name of a header field, got {name!r}")
        self._name = name.lower().encode("ascii")

    def field(self, degradations: Iterable[Degradation], *, expose_causes: bool) -> tuple[bytes, bytes]:
        """The header as ASGI wants it; arguments as of `degraded_field`."""
        return self._name, degraded_field(degradations, expose_causes=expose_causes).encode("ascii")


class DegradationMiddleware(Inbound):
    """Keeps the degradation record of each request and tells the client of it.

    The header is added to what the app sends, so that a `Degraded` field that it sends itself remains.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        degraded_header: the field's name.
        expose_causes: tell causes, dependencies and ages too.
    """

    def __init__(self, app: ASGIApp, resilience: Surroundings, *, degraded_header: str = "Degraded", expose_causes: bool = False) -> None:
        super().__init__(app, resilience)
        self.degradation: DegradationHeader | None = DegradationHeader(degraded_header)
        self._exposes = exposure(expose_causes)
