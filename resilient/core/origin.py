"""Where requests go: scheme, host and port, and the beginning of a path.

Rules of this file: text in, comparisons out. A URL is anything with `scheme`, `host`, `port` (None for the scheme's own)
and `path`.
"""

from __future__ import annotations

from collections.abc import Set
from hashlib import blake2b
from urllib.parse import unquote, urlsplit

__all__ = ["LONGEST_NAME", "PORTS", "Origin", "name_of"]

PORTS = {"http": 80, "https": 443}
LONGEST_NAME = 100
"""Characters of the name of a dependency."""


class Origin:
    """Where requests to a dependency go: scheme, host and port, and perhaps the beginning of a path."""

    __slots__ = ("host", "path", "port", "scheme")

    def __init__(self, url: str) -> None:
        if not isinstance(url, str):
            raise TypeError(f"origin: expected a URL such as https://api.example.com, got {url!r}")
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"origin: expected a URL such as https://api.example.com or https://api.example.com/v1, got {url!r}")
        self.scheme = parts.scheme
        self.host = parts.hostname
        try:
            self.port = parts.port or PORTS[parts.scheme]
        except ValueError as error:
            raise ValueError(f"origin: {error}, got {url!r}") from None
        self.path = unquote(parts.path).rstrip("/")  # as requests show theirs

    @property
    def key(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def covers(self, path: str) -> bool:
        """Whether a request's path lies at or below this origin's."""
        own = self.path
        return not own or path == own or path.startswith(own + "/")

    def __str__(self) -> str:
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{port}{self.path}"


def name_of(key: tuple[str, str, int], taken: Set[str]) -> str:
    """The origin itself; where that is too long or taken, its beginning and a digest, the same in every process."""
    scheme, host, port = key
    shown = f"[{host}]" if ":" in host else host
    origin = name = f"{scheme}://{shown}:{port}"
    tries = 0
    while len(name) > LONGEST_NAME or name in taken:
        digest = blake2b(f"{origin} {tries}".encode(), digest_size=8).hexdigest()
        name = f"{origin[: LONGEST_NAME - 1 - len(digest)]}~{digest}"
        tries += 1
    return name
