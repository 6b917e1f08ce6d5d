"""Values that are kept for several readers: copies for each, and how many bytes they take."""

from __future__ import annotations

import copy
import datetime
import sys
from collections import deque
from decimal import Decimal
from types import BuiltinFunctionType, FunctionType, MethodType, ModuleType
from typing import Any
from uuid import UUID

__all__ = ["own_copy", "size_of"]

ATOMS = frozenset(
    {str, bytes, int, float, bool, complex, type(None), range, Decimal, UUID, datetime.date, datetime.datetime, datetime.time}
    | {datetime.timedelta, frozenset}
)
NOT_ITS_OWN = (type, ModuleType, FunctionType, BuiltinFunctionType, MethodType)


def own_copy(value: Any) -> Any:
    """What its reader may change without changing what others read.

    Raises:
        Exception: it cannot be copied; whatever its class raises (`__deepcopy__`, `__reduce_ex__`).
    """
    if type(value) in ATOMS:
        return value
    try:
        return _copied(value)
    except RecursionError:  # it holds itself: that is for the slower way
        return copy.deepcopy(value)


def _copied(value: Any) -> Any:
    # The kinds that JSON has, several times as quick as copy.deepcopy is with them.
    kind = type(value)
    if kind in ATOMS:
        return value
    if kind is dict:
        return {key: _copied(item) for key, item in value.items()}
    if kind is list:
        return [_copied(item) for item in value]
    if kind is tuple:
        return tuple([_copied(item) for item in value])
    return copy.deepcopy(value)


def size_of(value: Any, limit: int) -> int:
    """About how many bytes a value takes with all that it holds; counting ends above `limit`."""
    total, seen, rest = 0, set(), [value]
    while rest and total <= limit:
        one = rest.pop()
        if id(one) in seen or isinstance(one, NOT_ITS_OWN):
            continue
        seen.add(id(one))
        total += sys.getsizeof(one, 64)
        if isinstance(one, dict):
            rest.extend(one)
            rest.extend(one.values())
        elif isinstance(one, list | tuple | set | frozenset | deque):
            rest.extend(one)
        rest.extend(_held(one))
    return total


def _held(thing: Any) -> list[Any]:
    """What an object has in its attributes."""
    held = [vars(thing)] if hasattr(thing, "__dict__") else []
    for kind in type(thing).__mro__:
        slots = vars(kind).get("__slots__", ())
        names = (slots,) if isinstance(slots, str) else slots
        held += [getattr(thing, name) for name in names if hasattr(thing, name)]
    return held
