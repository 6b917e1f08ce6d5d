"""What a write makes invalid (RFC 9111 section 4.4, RFC 9875).

Rules of this file: text in, text out. What another origin names is none of its business.
"""

from __future__ import annotations

from urllib.parse import SplitResult, urljoin, urlsplit, urlunsplit

from .groups import GROUP_INVALIDATION, strings
from .head import Fields, Head
from .origin import PORTS

__all__ = ["SAFE", "invalidated_by"]

# RFC 9110 section 9.2.1, and QUERY. A method that is not known may have changed anything.
SAFE = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "QUERY", "PROPFIND", "REPORT", "SEARCH"})
_LONGEST = 8192


def invalidated_by(method: str, status: int, uri: str, fields: Fields) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The URIs and the groups of which a stored answer is out of date after an exchange; none after one that failed.

    Args:
        method: of the request.
        status: of its answer.
        uri: of the request.
        fields: of the answer: `Location`, `Content-Location` and `Cache-Group-Invalidation` count, the first two for
            URIs of the same origin.

    Returns:
        URIs without fragments, that of the request as it was given and first; and groups of the origin.
    """
    if method in SAFE or not 200 <= status < 400:
        return (), ()
    head = Head.of(fields)
    target = uri.partition("#")[0]
    found = {target: None}
    for name in (b"location", b"content-location"):
        other = _resolved(target, head.first(name))
        if other is not None:
            found[other] = None
    return tuple(found), strings(head.get(GROUP_INVALIDATION))


def _resolved(uri: str, reference: str | None) -> str | None:
    """A reference as a URI, if it leads to the same origin."""
    if reference is None or len(reference) > _LONGEST:
        return None
    try:
        here, there = urlsplit(uri), urlsplit(urljoin(uri, reference))
        same = _origin(here) == _origin(there)
    except ValueError:
        return None
    # The user's name and password are no part of what is asked for, and the origin is written as in the request.
    return urlunsplit((here.scheme, here.netloc, there.path or "/", there.query, "")) if same else None


def _origin(parts: SplitResult) -> tuple[str, str | None, int | None]:
    return parts.scheme, parts.hostname, parts.port or PORTS.get(parts.scheme)
