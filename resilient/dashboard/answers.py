"""Answers of the dashboard: each with the headers that keep it to itself."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from starlette.responses import Response

from .board import dumped

__all__ = ["HEADERS", "Refusal", "json_answer"]

HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
        "frame-ancestors 'none'; base-uri 'none'; form-action 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of every answer. There is no header that lets another origin read it."""

LONGEST_DETAIL = 500


class Refusal(Exception):
    """What a client is told instead of what it asked for: problem details (RFC 9457), which name the field that is wrong.

    Args:
        status: of the answer.
        detail: for people.
        field: which member of the body, which header or parameter is wrong; empty if it is none of them.
        headers: more of them.
    """

    def __init__(self, status: int, detail: str, *, field: str = "", headers: Mapping[str, str] | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.field = field
        self._headers = dict(headers or {})

    def answer(self) -> Response:
        """The response."""
        document: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": str(self)[:LONGEST_DETAIL],
        }
        if self.field:
            document["field"] = self.field
        return Response(dumped(document), self.status, {**self._headers, **HEADERS}, "application/problem+json")


def json_answer(text: str) -> Response:
    """JSON that was written already."""
    return Response(text, 200, HEADERS, "application/json")
