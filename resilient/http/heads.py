"""What stored answers are given out with: their fields, how old they are, and what the cache did (RFC 9211)."""

from __future__ import annotations

import functools
import re
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

    from ..core.head import Lines

__all__ = ["Heads", "member_of", "shared_extensions"]

LIMIT = 256  # heads that are remembered; beyond it all are forgotten
LARGEST = 64  # fields of a head that is
UNSHARED = ("network_stream",)  # of a response: what belongs to its connection
TOKEN = re.compile(r"[A-Za-z*][A-Za-z0-9!#$%&'*+.^_`|~:/-]*")


class Heads:
    """The library's `Headers` of what is given out again and again, which need to be made once a second.

    Args:
        module: httpx or httpx2.
    """

    __slots__ = ("_known", "_module")

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._known: dict[Lines, tuple[int, str, Any]] = {}

    def response(self, status: int, fields: Lines, age: int, member: str, body: bytes) -> Any:
        """An answer with these stored fields.

        Args:
            status: its status.
            fields: as they are stored.
            age: its seconds.
            member: what `Cache-Status` says.
            body: its content.
        """
        module = self._module
        known = self._known.get(fields) if type(fields) is tuple else None
        if known is not None and known[0] == age and known[1] == member:
            headers = known[2]
        else:
            headers = module.Headers([*fields, (b"Age", b"%d" % age), (b"Cache-Status", member.encode("ascii"))])
            if type(fields) is tuple and len(fields) <= LARGEST:
                if len(self._known) >= LIMIT:
                    self._known.clear()
                self._known[fields] = age, member, headers
        response = module.Response(status, headers=headers, stream=module.ByteStream(body), extensions={"http_version": b"HTTP/1.1"})
        # It would be found out anew for each, by decoding all of them.
        response.headers.encoding = headers.encoding
        return response

    def passed(self, head: Any, member: str, stream: Any, *, relayed: bool, alone: bool = False) -> Any:
        """An answer that has just come, with what the cache did as a last line.

        Args:
            head: the answer, whose body was or is read from elsewhere.
            member: what `Cache-Status` says.
            stream: where its body is.
            relayed: it has a line of another cache already.
            alone: nobody else has it or will get it, so that it need not be made anew.
        """
        headers = head.headers
        if relayed:
            headers = self._module.Headers([*headers.raw, (b"Cache-Status", member.encode("ascii"))])
            return self._module.Response(head.status_code, headers=headers, stream=stream, extensions=shared_extensions(head))
        if alone and not head.is_closed:
            _add(headers, member)
            head.stream = stream
            for name in UNSHARED:
                head.extensions.pop(name, None)
            return head
        response = self._module.Response(head.status_code, headers=headers, stream=stream, extensions=shared_extensions(head))
        response.headers.encoding = headers.encoding
        _add(response.headers, member)
        return response


def _add(headers: Any, member: str) -> None:
    """Say `Cache-Status`, of which there is no line yet."""
    lines = getattr(headers, "_list", None)
    if type(lines) is list and lines and len(lines[0]) == 3:  # or it would look through all of them, and guess how they are encoded
        lines.append((b"Cache-Status", b"cache-status", member.encode("ascii")))
    else:
        headers["Cache-Status"] = member


def shared_extensions(head: Any) -> dict[str, Any]:
    """The extensions of a response that may be given to others."""
    return {name: value for name, value in head.extensions.items() if name not in UNSHARED}


@functools.lru_cache(LIMIT)
def member_of(name: str) -> str:
    """How a cache names itself in `Cache-Status`: as a token, else as a string of structured fields (RFC 8941)."""
    name = name or "resilient"
    if TOKEN.fullmatch(name):
        return name
    escaped = re.sub(r"[^ -~]", "?", name).replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
