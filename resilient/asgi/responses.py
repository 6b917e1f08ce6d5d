"""Answers that this library gives in the app's place: problem details (RFC 9457), never cached, free of internals."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from .protocols import Message, Scope

__all__ = ["FIELD_NAME", "MESSAGE_BODY", "MESSAGE_START", "Problem", "json_messages", "told_to_close"]

FIELD_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]+")
MESSAGE_START = "http.response.start"
MESSAGE_BODY = "http.response.body"
CLOSE = (b"connection", b"close")


@dataclass(frozen=True, slots=True, kw_only=True)
class Problem:
    """A problem detail, before it is put into bytes.

    `type` is "about:blank" and `title` the phrase of the status, as RFC 9457 section 4.2.1 wants it: what went wrong is
    told by `error`, for machines, and `detail`, for people.

    Attributes:
        error: a token of RFC 9209 section 2.3.
        retry_after: whole seconds after which another try may succeed.
        dependency: which dependency failed; only for callers who may know.
    """

    status: int
    error: str
    detail: str
    retry_after: int | None = None
    dependency: str | None = None

    def messages(self, *, head: bool = False) -> tuple[dict[str, Any], dict[str, Any]]:
        """The two ASGI messages of the response; without the body's bytes if it answers a HEAD request."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
            "error": self.error,
        }
        headers = [(b"cache-control", b"no-store")]
        if self.retry_after is not None:
            document["retry_after"] = self.retry_after
            headers.append((b"retry-after", b"%d" % self.retry_after))
        if self.dependency is not None:
            document["dependency"] = self.dependency
        return json_messages(self.status, document, "application/problem+json", headers, head=head)


def json_messages(
    status: int, document: Mapping[str, Any], media_type: str, headers: list[tuple[bytes, bytes]], *, head: bool
) -> tuple[dict[str, Any], dict[str, Any]]:
    """The ASGI messages of a JSON response."""
    content = json.dumps(document, separators=(",", ":")).encode()
    described = [(b"content-type", media_type.encode()), (b"content-length", b"%d" % len(content)), *headers]
    start = {"type": MESSAGE_START, "status": status, "headers": described}
    return start, {"type": MESSAGE_BODY, "body": b"" if head else content}


def told_to_close(start: Message, scope: Scope) -> Message:
    """The start of an answer that tells an HTTP/1 client to use its connection no more; HTTP/2 has another way (GOAWAY)."""
    if not scope.get("http_version", "1.1").startswith("1") or start["status"] == 101:
        return start
    headers = [line for line in start.get("headers", ()) if line[0].lower() != b"connection"]
    return {**start, "headers": [*headers, CLOSE]}
