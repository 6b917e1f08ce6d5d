"""Where a cache keeps what: the keys of its records, and the things that have marks.

A thing is a URI, a path above it, or a group of an origin. Each has a mark, by which all below it can be invalidated.
"""

from __future__ import annotations

import functools
import hashlib
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from ..core.origin import PORTS
from ..core.vary import selected

if TYPE_CHECKING:
    from ..core.asked import Asked

__all__ = ["checked_prefix", "entry_key", "group_of", "mark_key", "normal", "places_of", "things_of", "variant_key"]

DEPTH = 6  # segments of a path that have a mark of their own
REMEMBERED = 1024  # choices of a variant that are remembered, and URIs with their places


def normal(name: str, url: str) -> str:
    """A URL as the client libraries write it: scheme and host in lower case, no port of the scheme's own, no fragment.

    Raises:
        TypeError, ValueError: it is none; the message begins with `name`.
    """
    if not isinstance(url, str):
        raise TypeError(f"{name}: expected a URL such as https://api.example.com/orders, got {url!r}")
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"{name}: expected a URL such as https://api.example.com/orders, got {url!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, PORTS[parts.scheme]) else f":{parts.port}"
    query = f"?{parts.query}" if "?" in url.partition("#")[0] else ""
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}{query}"


def checked_prefix(prefix: str) -> str:
    """Require the beginning of URLs that ends with a whole segment of a path.

    Raises:
        ValueError: it does not, or has so many segments that what lies below it is not told apart.
    """
    if not prefix.endswith("/") or "?" in prefix:
        raise ValueError(f"prefix: expected the beginning of URLs up to a slash, such as https://api.example.com/orders/, got {prefix!r}")
    if prefix.count("/") - 3 > DEPTH:
        raise ValueError(f"prefix: expected at most {DEPTH} segments, got {prefix!r}")
    return prefix


def entry_key(uri: str, base: str) -> str:
    """Of the entry for whom it may concern, or of the note of what answers vary by."""
    return f"e\n{uri}\n{base}"


def variant_key(uri: str, base: str, asked: Asked, names: tuple[str, ...]) -> str:
    """Of the variant that a request with these fields gets."""
    return f"v\n{uri}\n{base}\n{_digest(names, selected(asked, names))}"


@functools.lru_cache(REMEMBERED)
def _digest(names: tuple[str, ...], values: tuple[str | None, ...]) -> str:
    return hashlib.blake2b(repr((names, values)).encode("utf-8", "surrogateescape"), digest_size=16).hexdigest()


def mark_key(thing: str) -> str:
    """Of the mark of a thing."""
    return f"m\n{thing}\n"


def group_of(uri: str, group: str) -> str:
    """A group of the origin of `uri`, as a thing."""
    return f"{_origin(uri)}#{group}"


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


@functools.lru_cache(REMEMBERED)
def places_of(uri: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The things of an entry, and the keys that are looked at for who is nobody in particular: its own, and those of their marks."""
    things = things_of(uri)
    return things, (entry_key(uri, ""), *map(mark_key, things))


def things_of(uri: str) -> tuple[str, ...]:
    """What has marks that an entry of `uri` has to have: itself, the paths above it, and the groups of its origin."""
    bare = uri.partition("?")[0]
    start = bare.find("/", bare.find("://") + 3)
    things = [uri]
    depth = 0
    while start != -1 and depth <= DEPTH:
        things.append(bare[: start + 1])
        start = bare.find("/", start + 1)
        depth += 1
    return tuple(things)
