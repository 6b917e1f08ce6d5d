"""Which requests something is meant for: a method, an origin, and the template of a path.

Rules of this file: a pattern is read once, where the program is put together, and afterwards only compared. The length
of a path is all that a comparison costs: no part of a template can match in more than one way.
"""

from __future__ import annotations

import re
from typing import Any

from .origin import PORTS, Origin

__all__ = ["Route"]

_PATTERN = re.compile(r"(?:(?P<methods>[A-Z-]+(?:,[A-Z-]+)*)(?: +|$))?(?P<origin>[a-z]+://[^/\s]+)?(?P<path>/\S*)?")
_PARAMETER = re.compile(r"\{[a-zA-Z_]\w*(?P<rest>:path)?\}")
EXAMPLE = "such as 'POST /orders/{id}' or 'GET,HEAD https://api.example.com/files/{name:path}'"
LITERAL, PARAMETER, REST, ANYTHING = range(4)


class Route:
    """A pattern of requests: `POST /orders/{id}`.

    Any of its three parts may be left out: methods (several with commas), origin, and path. `{id}` stands for one
    segment of the path, `{name:path}` at the end for all the rest of it.

    Args:
        pattern: the text.
        below: the beginning of every path, which the pattern does not repeat.
        name: what the pattern is called in errors.

    Attributes:
        template: the path as written, or None.
        order: sorts patterns so that the narrower one comes first.

    Raises:
        TypeError, ValueError: it cannot be read; the message names the parameter.
    """

    __slots__ = ("_matches", "_shape", "methods", "order", "origin", "pattern", "template")

    def __init__(self, pattern: str, *, below: str = "", name: str = "route") -> None:
        if not isinstance(pattern, str):
            raise TypeError(f"{name}: expected a pattern {EXAMPLE}, got {pattern!r}")
        read = _PATTERN.fullmatch(pattern)
        if read is None or not pattern:
            raise ValueError(f"{name}: expected a pattern {EXAMPLE}, got {pattern!r}")
        self.pattern: str = pattern
        self.methods: frozenset[str] | None = frozenset(read["methods"].split(",")) if read["methods"] else None
        self.origin: Origin | None = Origin(read["origin"]) if read["origin"] else None
        self.template: str | None = read["path"]
        kinds, self._shape = [ANYTHING], None
        if self.template is not None:
            kinds, expression = _read(self.template, name)
            self._shape = re.escape(below) + expression
        self._matches = None if self._shape is None else re.compile(self._shape, re.DOTALL).fullmatch
        self.order: tuple[Any, ...] = (kinds, self.methods is None, self.origin is None)

    def matches(self, method: str, url: Any, path: str) -> bool:
        """Whether a request is meant. Its path is given too, since it costs something to ask a URL for it."""
        if self.methods is not None and method not in self.methods:
            return False
        if self.origin is not None and self.origin.key != (url.scheme, url.host, url.port or PORTS.get(url.scheme)):
            return False
        return self._matches is None or self._matches(path) is not None

    def twin(self, other: Route) -> bool:
        """Whether some request would be meant by both, with nothing to tell which of them is the narrower one."""
        ours, theirs = self.origin, other.origin
        if self._shape != other._shape or (ours and ours.key) != (theirs and theirs.key):
            return False
        if self.methods is None or other.methods is None:
            return self.methods is other.methods
        return not self.methods.isdisjoint(other.methods)

    def __str__(self) -> str:
        return self.pattern


def _read(template: str, name: str) -> tuple[list[int], str]:
    """The kinds of a template's segments, and the regular expression that they come to."""
    segments = template[1:].split("/")
    kinds, expression = [], ""
    for number, segment in enumerate(segments, 1):
        parameter = _PARAMETER.fullmatch(segment)
        if parameter is None:
            if "{" in segment or "}" in segment:
                raise ValueError(f"{name}: a parameter is a whole segment such as {{id}}, got {segment!r} in {template!r}")
            kinds.append(LITERAL)
            expression += "/" + re.escape(segment)
        elif parameter["rest"] is None:
            kinds.append(PARAMETER)
            expression += "/[^/]+"
        elif number == len(segments):
            kinds.append(REST)
            expression += "/.*"
        else:
            raise ValueError(f"{name}: {segment} takes the rest of the path, so nothing can follow it in {template!r}")
    return kinds, expression
