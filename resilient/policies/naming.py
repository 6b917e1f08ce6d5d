"""What a call of a function is known by, where its value is kept: the function's name and the arguments, as one word.

Two calls that are not the same never have the same word. Where that cannot be made sure, there is a TypeError: a name that
several functions have, or an argument that does not show all that it is, would hand out one caller's value to another.
"""

from __future__ import annotations

import datetime
import functools
import hashlib
import inspect
import itertools
import os
import sys
import threading
import types
import weakref
from collections.abc import Callable, Iterator, Mapping
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

__all__ = ["Names", "opened", "own_name", "said", "word"]

DEEPEST = 32
LINKS = 50  # wrappers around one function
ATOMS = frozenset({str, bytes, int, float, bool, complex, type(None)})
SPEAKING = frozenset({UUID, Decimal, datetime.date, datetime.timedelta})  # whose repr is all that they are
TIMES = frozenset({datetime.datetime, datetime.time})
CONTAINERS = frozenset({list, tuple, set, frozenset, dict})


def word(name: str, key: Any) -> str:
    """A word for what `said` has made of a call of the function of this name; of a fixed length."""
    text = repr((name, key)).encode("utf-8", "surrogatepass")
    return "call:" + hashlib.blake2b(text, digest_size=24).hexdigest()


# -- arguments --------------------------------------------------------------------------------------------------------


def said(value: Any, depth: int = 0) -> Any:
    """A value in a form of which `repr` tells everything: atoms as they are, all else as a list that begins with its kind.

    Raises:
        TypeError: it is of a kind of which that is not known.
    """
    kind = type(value)
    if kind in ATOMS:
        return value
    if depth > DEEPEST:
        raise TypeError(f"what is nested more than {DEEPEST} deep")
    if kind in CONTAINERS:
        return _said_of_many(kind, value, depth + 1)
    if kind in SPEAKING:
        return [kind.__name__, repr(value)]
    if kind in TIMES:
        return [kind.__name__, value.isoformat(), value.fold, str(value.tzinfo)]
    if isinstance(value, Enum) and (name := own_name(kind)):
        return ["enum", name, said(value.value, depth + 1)]
    if isinstance(value, type) and (name := own_name(value)):
        return ["class", name]
    raise TypeError(f"{kind.__name__}")


def _said_of_many(kind: type, value: Any, depth: int) -> list[Any]:
    if kind is dict:
        return ["dict", *sorted(([said(key, depth), said(item, depth)] for key, item in value.items()), key=repr)]
    items = [said(item, depth) for item in value]
    return [kind.__name__, *(items if kind in (list, tuple) else sorted(items, key=repr))]


def opened(function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Any, tuple[Any, ...], Mapping[str, Any]]:
    """A call as that of a plain function: what a partial holds, and the object that a method is of, are arguments."""
    while True:
        if isinstance(function, functools.partial):
            function, args, kwargs = function.func, (*function.args, *args), {**function.keywords, **kwargs}
        elif isinstance(function, types.MethodType):
            function, args = function.__func__, (function.__self__, *args)
        elif inspect.isroutine(function) or isinstance(function, type):
            return function, args, kwargs
        else:
            function, args = type(function).__call__, (function, *args)


# -- functions --------------------------------------------------------------------------------------------------------


def own_name(thing: Any) -> str | None:
    """The name by which anybody finds this very function or class, in whichever process; None if it has no such name."""
    module, path = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    if not isinstance(module, str) or not isinstance(path, str):
        return None
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = inspect.getattr_static(found, part, None)
    if not any(link is thing for link in _links(found)):
        return None  # a local one, a lambda, or one whose name another one has taken
    program = _program() if module == "__main__" else module
    return None if program is None else f"{program}.{path}"


def _links(thing: Any) -> Iterator[Any]:
    """A function and what it wraps."""
    for _ in range(LINKS):
        if thing is None:
            return
        yield thing
        thing = getattr(thing, "__wrapped__", None)


def _program() -> str | None:
    """What other processes would know this program by: each has a `__main__` of its own."""
    main = sys.modules["__main__"]
    spec = getattr(main, "__spec__", None)
    if spec is not None:
        return str(spec.name)
    path = getattr(main, "__file__", None)
    return None if path is None else os.path.abspath(path)


class Names:
    """Names of functions: that by which everybody finds one, else one that no other has for as long as this process runs."""

    __slots__ = ("_known", "_lock", "_numbers")

    def __init__(self) -> None:
        # By identity, and kept no longer than the functions are: another one in the same place is another one.
        self._known: dict[int, tuple[weakref.ref[Any], str, inspect.Signature | None, bool]] = {}
        self._lock = threading.Lock()
        self._numbers = itertools.count(1)

    def of(self, function: Any, *, lasting: bool = False) -> tuple[str, inspect.Signature | None]:
        """The name of a function, and its signature if that is known.

        Args:
            function: not a method, nor a partial (see `opened`).
            lasting: whether other processes must know it by that name.

        Raises:
            TypeError: it has no such name, or none can be given.
        """
        known = self._known.get(id(function))
        if known is None or known[0]() is not function:
            known = self._new(function)
        if lasting and not known[3]:
            raise TypeError(
                f"Fallback.cached: {function!r} has no name of its own by which others who share the store would know it;"
                " give a function or a method of a module"
            )
        return known[1], known[2]

    def wrapped(self, function: Any) -> Any:
        """What was called where `function`, or what it wraps, was: the first of them that has a name already, or an own one."""
        for link in _links(function):
            known = self._known.get(id(link))
            if (known is not None and known[0]() is link) or own_name(link):
                return link
        return function

    def _new(self, function: Any) -> tuple[weakref.ref[Any], str, inspect.Signature | None, bool]:
        name, at = own_name(function), id(function)
        signature = _signature(function)
        with self._lock:
            known = self._known.get(at)
            if known is not None and known[0]() is function:
                return known  # another thread was quicker
            try:
                ref = weakref.ref(function, self._forgetter(at))
            except TypeError:
                raise TypeError(f"Fallback.cached: nothing tells {function!r} apart from others; wrap it into a function") from None
            kept = name or f"{getattr(function, '__module__', '')}.{getattr(function, '__qualname__', '')}~{next(self._numbers)}"
            made = self._known[at] = ref, kept, signature, name is not None
        return made

    def _forgetter(self, at: int) -> Callable[[Any], None]:
        known = self._known

        def forget(ref: Any) -> None:
            # The garbage collector calls, perhaps while the lock is held.
            if (there := known.get(at)) is not None and there[0] is ref:
                known.pop(at, None)

        return forget


def _signature(function: Any) -> inspect.Signature | None:
    try:
        return inspect.signature(function)
    except (TypeError, ValueError):
        return None  # not every callable tells what it takes
