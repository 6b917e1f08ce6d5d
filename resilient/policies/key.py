"""What calls are told apart by, where a policy keeps a state for each of several keys."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from ..call import Call

__all__ = ["KEYS", "MAX_KEYS", "NO_KEY", "Key", "check_key", "finder", "forgiving_finder"]

logger = logging.getLogger("resilient")
MAX_KEYS = 1000  # states that a policy keeps by default; a circuit takes about a kilobyte
NO_KEY: Hashable = object()
"""The key of a call whose own could not be computed."""

Key = Literal["route", "origin", "partition"] | Callable[..., Hashable]
"""A name in `KEYS`, or a function of the call's arguments (of the request, over HTTP)."""

KEYS: dict[str, Callable[[Call], Hashable]] = {
    "route": lambda call: call.route,
    "origin": lambda call: call.origin,
    "partition": lambda call: call.partition,
}


def check_key(key: Any) -> None:
    """Require a key.

    Raises:
        TypeError, ValueError: it is none.
    """
    if isinstance(key, str) and key not in KEYS:
        raise ValueError(f"key must be one of {', '.join(KEYS)}, not {key!r}")
    if not isinstance(key, str) and not callable(key):
        raise TypeError(f"key: expected {', '.join(map(repr, KEYS))} or a function of the call's arguments, got {key!r}")


def finder(key: Key) -> Callable[[Call], Hashable]:
    """The function that finds a call's key. It raises what the program's own raises."""
    if isinstance(key, str):
        return KEYS[key]

    def find(call: Call) -> Hashable:
        args, kwargs = call.arguments()
        return key(*args, **kwargs)

    return find


def forgiving_finder(key: Key, whose: str, shared: str) -> Callable[[Call], Hashable]:
    """As `finder`, but NO_KEY for a key that cannot be computed or kept by, which is logged once.

    Args:
        key: what calls are told apart by.
        whose: what the key was given to, for the log.
        shared: what such calls share, for the log.
    """
    find, told = finder(key), False

    def ask(call: Call) -> Hashable:
        nonlocal told
        try:
            found = find(call)
            hash(found)
        except Exception:
            if not told:
                told = True
                logger.exception("key, given to a %s, failed; such calls share a %s, further failures are not logged", whose, shared)
            return NO_KEY
        return found

    return ask
