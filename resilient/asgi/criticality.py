"""How much an inbound request matters: by its route, by what a trusted caller says, or by a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from ..context import Criticality
from ..core.route import Route
from .deadline import Trusted, trust
from .protocols import Scope
from .responses import FIELD_NAME

__all__ = ["Criticalities", "InboundCriticality", "path_of", "patterns"]

Criticalities = Mapping[str, Criticality | str] | Callable[[Scope], Criticality | str | None]

LONGEST = 32  # bytes of a header that is worth reading
_WORDS = {member.name.lower().encode(): member for member in Criticality}


class InboundCriticality:
    """Says how much a request matters.

    Args:
        criticality: by route, `{"POST /checkout": "critical_plus", "/search/{rest:path}": "sheddable"}`, of which the narrowest
            counts; or a function of the ASGI scope, which returns a `Criticality`, its name, or None.
        header: the name of the field in which trusted callers say it, with the word that they would use for
            `Criticality`: in any case, with a hyphen or an underscore.
        trusted: whose header is believed, as for deadlines. By default nobody's.

    Attributes:
        asks: whether there is anything to ask: a function, trusted callers, or routes.
        ignored: how many headers of trusted peers were unreadable, and how many times the function failed.
    """

    __slots__ = ("_ask", "_header", "_routes", "_trusts", "asks", "ignored")

    def __init__(self, criticality: Criticalities | None = None, *, header: str = "X-Criticality", trusted: Trusted = ()) -> None:
        if not isinstance(header, str) or not FIELD_NAME.fullmatch(header):
            raise ValueError(f"criticality_header: expected the name of a header field, got {header!r}")
        self._header = header.lower().encode("ascii")
        self._trusts = trust(trusted)
        self._ask = criticality if callable(criticality) else None
        self._routes = () if criticality is None or self._ask else _by_route(criticality)
        self.asks: bool = bool(self._ask or self._trusts or self._routes)
        self.ignored: int = 0

    def of(self, scope: Scope) -> Criticality | None:
        """What the function says, else a trusted caller, else the route; None where nobody says anything."""
        if self._ask is not None:
            try:
                said = self._ask(scope)
                if said is not None:
                    return Criticality.of(said)
            except Exception:  # noqa: BLE001 - counted; a request is served whatever it matters
                self.ignored += 1
        if self._trusts is not None:
            told = self._told(scope)
            if told is not None:
                return told
        if self._routes:
            method, path = scope.get("method", "GET"), path_of(scope)
            for route, value in self._routes:
                if route.matches(method, None, path):
                    return value
        return None

    def _told(self, scope: Scope) -> Criticality | None:
        """What a trusted caller says. Of several fields the last one: it was added nearest to us."""
        said = [value for name, value in scope["headers"] if name == self._header]
        if not said or self._trusts is None or not self._trusts(scope):
            return None
        value = said[-1]
        known = _WORDS.get(value.strip().lower().replace(b"-", b"_")) if len(value) <= LONGEST else None
        if known is None:
            self.ignored += 1
        return known


def _by_route(given: Any) -> tuple[tuple[Route, Criticality], ...]:
    if not isinstance(given, Mapping):
        raise TypeError(f"criticality: expected a dict of routes or a function of the ASGI scope, got {given!r}")
    found = [(route, Criticality.of(value)) for route, value in zip(patterns("criticality", given), given.values(), strict=True)]
    return tuple(sorted(found, key=lambda pair: pair[0].order))


def patterns(name: str, given: Any) -> list[Route]:
    """Patterns of routes of this very service."""
    listed = None if isinstance(given, str) or not isinstance(given, Iterable) else [Route(one, name=name) for one in given]
    if listed is None:
        raise TypeError(f"{name}: expected a list of patterns such as '/health' or 'POST /orders/{{id}}', got {given!r}")
    foreign = next((route.pattern for route in listed if route.origin is not None), None)
    if foreign is not None:
        raise ValueError(f"{name}: expected patterns without an origin, got {foreign!r}")
    return listed


def path_of(scope: Scope) -> str:
    """The request's path, beneath where the app is mounted."""
    path: str = scope["path"]
    root = scope.get("root_path", "")
    return path[len(root) :] or "/" if root and path.startswith(root) else path
