"""What an operator asks for: read from a request, bounded, and nothing in it that is not understood."""

from __future__ import annotations

import json
from contextlib import aclosing
from typing import Any, NamedTuple, NoReturn

import anyio
from starlette.requests import ClientDisconnect, Request

from ..core.orders import LONGEST_TEXT
from .answers import Refusal

__all__ = ["MOST_BYTES", "Order", "read"]

MOST_BYTES = 16 * 1024
"""Of the body of a control."""

PATIENCE = 10.0  # seconds for it to arrive
MOST = {"until": (0.001, 366 * 86400.0), "share": (0.0, 1.0), "delay": (0.0, 3600.0)}
"""The least and the most that numbers may be."""

NAMED = frozenset({"name"})

FIELDS: dict[str, frozenset[str]] = {
    "isolate": NAMED,
    "half_open": NAMED,
    "close": NAMED,
    "set_level": frozenset({"name", "level", "until", "tenant", "share"}),
    "clear": frozenset({"name", "tenant"}),
    "read_only": frozenset({"until"}),
    "read_write": frozenset(),
    "drain": frozenset({"delay"}),
}
"""What each action may be told besides why."""

NEEDED = ("name", "level")
"""Of those, what it must be told."""


class Order(NamedTuple):
    """One use of a control, as it was asked for.

    Attributes:
        until: seconds from now.
        delay: seconds before new work is refused; None: as usual.
    """

    action: str
    name: str = ""
    why: str = ""
    level: str = ""
    until: float | None = None
    tenant: str | None = None
    share: float = 1.0
    delay: float | None = None


async def read(request: Request, actions: tuple[str, ...]) -> Order:
    """The order in a request, one of those `actions`.

    Raises:
        Refusal: there is none, which says what is wrong and where.
    """
    media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if media_type != "application/json":  # which no form can send
        raise Refusal(415, "Send application/json.", field="Content-Type")
    document = _parsed(await _body(request))
    action = document.pop("action", None)
    if not isinstance(action, str) or action not in actions:
        raise Refusal(400, f"action: expected one of {', '.join(actions)}.", field="action")
    allowed = FIELDS[action] | {"why"}
    for name in document:
        if name not in allowed:
            raise Refusal(400, f"{action} takes {', '.join(sorted(allowed))}, and nothing else.", field=name[:LONGEST_TEXT])
    for name in NEEDED:
        if name in allowed and name not in document:
            raise Refusal(400, f"{name}: {action} needs it.", field=name)
    return Order(action, **{name: _value(name, value) for name, value in document.items()})


async def _body(request: Request) -> bytes:
    body = bytearray()
    try:
        with anyio.move_on_after(PATIENCE) as scope:
            async with aclosing(request.stream()) as chunks:
                async for chunk in chunks:
                    body += chunk
                    if len(body) > MOST_BYTES:
                        raise Refusal(413, f"Send at most {MOST_BYTES} bytes.")
    except ClientDisconnect:
        raise Refusal(400, "The body did not arrive.") from None
    if scope.cancelled_caught:
        raise Refusal(408, "The body did not arrive in time.")
    return bytes(body)


def _parsed(body: bytes) -> dict[str, Any]:
    try:
        document = json.loads(body.decode(), object_pairs_hook=_once, parse_constant=_no_number)
    except (ValueError, RecursionError):  # a decoding error is one, too
        raise Refusal(400, "The body is no JSON object.") from None
    if not isinstance(document, dict):
        raise Refusal(400, "The body is no JSON object.")
    return document


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    document = dict(pairs)
    if len(document) != len(pairs):
        raise ValueError("a member is there twice")
    return document


def _no_number(word: str) -> NoReturn:
    raise ValueError(f"{word} is no number")


def _value(name: str, value: Any) -> Any:
    """What was said, if it is of the right kind."""
    if value is None and name in ("until", "delay", "tenant"):
        return None  # as if it had not been said
    if name in MOST:
        least, most = MOST[name]
        if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value <= most:
            raise Refusal(400, f"{name}: expected a number from {least:g} to {most:g}.", field=name)
        return float(value)
    if not isinstance(value, str) or len(value) > LONGEST_TEXT:
        raise Refusal(400, f"{name}: expected at most {LONGEST_TEXT} characters.", field=name)
    # Who types may use more than one line; a log record has one.
    return "".join(letter if letter.isprintable() else " " for letter in value)
