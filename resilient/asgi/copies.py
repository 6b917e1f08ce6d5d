"""One request as its last good answer is concerned: what stands in for an error, and what is kept of a good answer."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote, urlsplit

import anyio

from ..context import RECORD
from ..core.asked import Asked
from ..core.caching import why_not_stored
from ..core.degradation import Level
from ..core.entry import Entry
from ..core.head import Head
from ..core.invalidation import invalidated_by
from ..core.validation import answer_to
from ..core.vary import vary_names
from ..events import CacheUsed, FeatureDegraded
from ..protocols import Runtime
from .protocols import Message, Scope, Surroundings
from .responses import MESSAGE_BODY, MESSAGE_START
from .shelf import NEWS

if TYPE_CHECKING:
    from .stale import StaleResponses

__all__ = ["Copy", "uri_of"]

NOTHING: frozenset[int] = frozenset()
LOOKUP = 1.0  # seconds that a store which blocks has to say what stands in for an error
RESULTS = {"fresh": "hit", "stale-if-error": "stale_if_error", "fallback": "fallback"}
PLAIN_HOST = re.compile(r"[a-z0-9._:\[\]-]{1,255}")
SAFE_IN_PATH = "/:@!$&'()*+,;=~"


class Copy:
    """What is known of one request.

    Attributes:
        failures: the statuses that something may stand in for.
        unsafe: whether the request may change what is kept.
        taking: whether the body of the answer is being kept.
    """

    __slots__ = (
        "_asked", "_at", "_chunks", "_exposes", "_fields", "_known", "_length", "_received", "_resilience", "_runtime", "_scope",
        "_size", "_stale", "_status", "_wall", "_writes", "failures", "taking", "unsafe",
    )  # fmt: skip

    def __init__(
        self,
        stale: StaleResponses,
        scope: Scope,
        resilience: Surroundings,
        runtime: Runtime,
        exposes: Callable[[Scope], bool] | None,
        *,
        unsafe: bool = False,
    ) -> None:
        self._stale = stale
        self._scope = scope
        self._resilience = resilience
        self._runtime = runtime
        self._exposes = exposes
        self.unsafe = unsafe
        self.failures = NOTHING if unsafe else stale.rules.stale_statuses
        self.taking = False
        self._known = False
        self._asked: Asked | None = None
        self._fields: list[tuple[bytes, bytes]] | None = None
        self._length: int | None = None
        self._chunks: list[bytes] = []
        self._size = 0
        self._wall = time.time()
        self._writes = stale.shelf.writes

    # -- who asks for what ----------------------------------------------------------------------------------------

    def _ask(self) -> Asked | None:
        """The request as a cache sees it; None if it is not clear what is asked for, or by whom."""
        if self._known:
            return self._asked
        self._known = True
        stale, scope = self._stale, self._scope
        asked = Asked(scope["method"], "", scope["headers"], identity=stale.identity)
        uri = uri_of(scope, asked.get("host"))
        if uri is None:
            return None
        try:
            asked.uri, asked.partition = uri, stale.whose(scope)
        except Exception as error:  # noqa: BLE001 - told; whose answer it is nobody knows, so it is left alone
            stale.tell_wrong_partition(error)
            return None
        if asked.partition is not None or asked.identified or not _known_otherwise(scope):
            self._asked = stale.stock.own(asked)
        return self._asked

    # -- in the place of an error ---------------------------------------------------------------------------------

    async def instead(self, cause: str, status: int) -> tuple[Message, Message] | None:
        """The two messages of an answer that may be given in the place of an error, or None.

        Args:
            cause: what went wrong, as a word.
            status: what the client would be answered otherwise.
        """
        asked = None if self.unsafe else self._ask()
        if asked is None or asked.for_origin:
            return None
        stale, runtime = self._stale, self._runtime
        entry: Entry | None = None
        if stale.store.blocking:
            with anyio.move_on_after(LOOKUP):
                entry = (await stale.stock.find(asked, runtime)).entry
        else:
            entry = (await stale.stock.find(asked, runtime)).entry
        now = runtime.now()
        detail = None if entry is None else stale.permitted(entry, asked, now)
        if entry is None or detail is None:
            self._tell(CacheUsed(at=now, result="error"))
            return None
        self._tell(CacheUsed(at=now, result=RESULTS[detail]))
        self._tell(FeatureDegraded(at=now, feature=stale.name, level=Level.REDUCED, cause=cause))
        record = RECORD.get()
        if record is not None:
            record.add(stale.name, Level.REDUCED, cause, age=entry.age(now))
        return self._messages(asked, entry, now, f"fwd=stale; fwd-status={status}; ttl={math.floor(entry.ttl(now))}; detail={detail}")

    def _messages(self, asked: Asked, entry: Entry, now: float, member: str) -> tuple[Message, Message]:
        status, fields, body = answer_to(asked, entry) or (entry.status, entry.fields, entry.body)
        # The date that an undated answer was given with when it was kept is left out: servers of ASGI add one of theirs.
        headers = [(name.lower(), value) for name, value in fields if name != b"Date"]
        if status not in (204, 304) and not any(name == b"content-length" for name, _ in headers):
            headers.append((b"content-length", b"%d" % len(entry.body)))
        headers.append((b"age", b"%d" % entry.age(now)))
        if self._exposes is not None and self._exposes(self._scope):
            headers.append((b"cache-status", f"{self._stale.name}; {member}".encode("ascii")))
        return {"type": MESSAGE_START, "status": status, "headers": headers}, {"type": MESSAGE_BODY, "body": body}

    def _tell(self, event: CacheUsed | FeatureDegraded) -> None:
        self._resilience.outbox.emit(event)

    # -- a good answer --------------------------------------------------------------------------------------------

    def begun(self, start: Message) -> Message:
        """The app's answer begins, and is no error. Returns the message to send."""
        stale, status = self._stale, start["status"]
        reads = self._scope["method"] == "GET"
        if not (reads or stale.advice):
            return start
        if not isinstance(start.get("headers"), list | tuple):
            start = {**start, "headers": [*start.get("headers", ())]}  # it may be read only once
        head = Head(start["headers"])
        if (status < 300 and "no-store" in head.directives) or (asked := self._ask()) is None:
            return start
        if reads and not start.get("trailers", False):
            self._consider(asked, status, head)
        return start if stale.advice is None else stale.advice.added(start, head, asked)

    def _consider(self, asked: Asked, status: int, head: Head) -> None:
        """Decide whether the answer is kept."""
        stale = self._stale
        unkeyed = asked.suspicious - stale.rules.unkeyed
        if unkeyed and vary_names(head) is not None:
            # They may have chosen the answer: who has others gets it not.
            head = Head([*head.lines, (b"vary", ", ".join(sorted(unkeyed)).encode("latin-1"))])
        length = head.first(b"content-length")
        self._length = int(length) if length is not None and length.isascii() and length.isdigit() else None
        self._status, self._at, self._received = status, self._runtime.now(), time.time()
        fits = self._length is None or self._length <= stale.max_body
        if fits and not _is_degraded() and why_not_stored(asked, status, head, stale.rules, received_at=self._wall) is None:
            self._fields = [(name, value) for name, value in head.lines]
        self.taking = self._fields is not None or status in NEWS

    def take(self, message: Message) -> bool:
        """The next message of the answer. Whether it was the last one, so that nothing is missing."""
        if message["type"] != MESSAGE_BODY:
            self.drop()
            return False
        chunk = message.get("body", b"")
        if chunk and self._fields is not None:
            size = len(chunk)
            if self._size + size > self._stale.max_body or not self._stale.shelf.hold(size):
                self._fields = None
                self._let_go()
                self.taking = self._status in NEWS
            else:
                self._chunks.append(bytes(chunk))
                self._size += size
        return self.taking and not message.get("more_body", False)

    def complete(self) -> None:
        """The answer was sent to its end."""
        asked, stale, entry = self._asked, self._stale, None
        if not self.taking or asked is None:
            return
        if self._fields is not None and self._length in (None, self._size) and not _is_degraded():
            entry = Entry.made(
                asked, self._status, self._fields, b"".join(self._chunks),
                requested_at=self._wall, received_at=self._received, now=self._at, rules=stale.rules,
            )  # fmt: skip
        self.drop()
        if entry is not None and stale.permitted(entry, None, self._at) is not None:
            stale.shelf.put(asked, entry, self._writes, self._runtime)
        elif self._status in NEWS:
            stale.shelf.retire(asked, self._status, self._runtime)

    def drop(self) -> None:
        """Keep nothing of the answer."""
        self.taking = False
        self._let_go()

    def _let_go(self) -> None:
        if self._size:
            self._stale.shelf.release(self._size)
            self._size = 0
            self._chunks.clear()

    # -- a change -------------------------------------------------------------------------------------------------

    async def forget(self, start: Message) -> None:
        """Let what a request has changed, if it has, be served no more."""
        scope, status, stale = self._scope, start["status"], self._stale
        if not 200 <= status < 400:
            return
        uri = uri_of(scope, Asked(scope["method"], "", scope["headers"]).get("host"))
        if uri is not None:
            uris, groups = invalidated_by(scope["method"], status, uri, [*start.get("headers", ())])
            # What is kept at none of these was never kept.
            covered = [one for one in uris if stale.covers(unquote(urlsplit(one).path), scope.get("root_path", ""))]
            await stale.shelf.forget(covered, [(uri, group) for group in groups], self._runtime)


def uri_of(scope: Scope, host: str | None) -> str | None:
    """The URI that a request is for; None if the request leaves that in doubt.

    The path is the one that the app sees, not the one that was sent: middleware further out may have changed it. Where a
    slash was sent encoded the two may mean different things.
    """
    if host is None:
        server = scope.get("server") or ("", None)
        host = server[0] if server[1] is None else f"{server[0]}:{server[1]}"
    host, path = host.lower(), scope["path"]
    query: bytes = scope.get("query_string", b"")
    if not PLAIN_HOST.fullmatch(host) or not path.startswith("/") or b"%2f" in (scope.get("raw_path") or b"").lower() or b"\n" in query:
        return None
    # What stands behind a number sign is no part of a URI, but of a path it is.
    asked = "?" + query.decode("latin-1").replace("#", "%23") if query else ""
    return f"{scope.get('scheme', 'http')}://{host}{quote(path, safe=SAFE_IN_PATH)}{asked}"


def _known_otherwise(scope: Scope) -> bool:
    """Whether the app knows who asks by something else than the fields of the request."""
    if getattr(scope.get("user"), "is_authenticated", False):
        return True
    tls = (scope.get("extensions") or {}).get("tls") or {}
    return bool(tls.get("client_cert_name") or tls.get("client_cert_chain"))


def _is_degraded() -> bool:
    """Whether the answer is less than it should be: then it is not the last good one."""
    record = RECORD.get()
    return record is not None and bool(record.entries or record.late)
