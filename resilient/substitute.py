"""What is served in place of an answer that did not come."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable
from typing import Any

from .core.degradation import Level

__all__ = ["Substitute"]


class Substitute:
    """A fallback: a value, a function or a class that makes one.

    Args:
        fallback: a list, dict, set or tuple is copied for each use, nested ones too; a function is called with the
            arguments of the use, or without any if it takes none; a class is called without arguments; anything else
            is served as it is.

    Attributes:
        level: "reduced" for a function, whose answer is made for the use, else "static".
    """

    __slots__ = ("_copied", "_takes_arguments", "_value", "level")

    def __init__(self, fallback: Any) -> None:
        made = callable(fallback)
        self.level = Level.REDUCED if made and not inspect.isclass(fallback) else Level.STATIC
        self._copied = isinstance(fallback, list | dict | set | tuple)
        # A copy from the start: neither what is served nor what the program does with its own object may change it.
        self._value = copy.deepcopy(fallback) if self._copied else fallback
        # A class is the maker of a default: list("42") would not be one.
        self._takes_arguments = made and not inspect.isclass(fallback) and _takes_arguments(fallback)

    @property
    def value(self) -> Any:
        """The value, or what makes it."""
        return self._value

    def make(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._copied:
            return copy.deepcopy(self._value)
        if not callable(self._value):
            return self._value
        return self._value(*args, **kwargs) if self._takes_arguments else self._value()

    def check(self, fn: Callable[..., Any], *, is_async: bool) -> None:
        """Find out now, not in the outage, that the fallback cannot be called in place of `fn`."""
        if not is_async and inspect.iscoroutinefunction(self._value):
            raise TypeError(f"fallback: {self._value!r} is async, but {fn!r} is not, so nobody would await it")
        if not self._takes_arguments:
            return
        try:
            parameters = inspect.signature(fn).parameters.values()
        except (TypeError, ValueError):
            return  # not every callable tells what it takes
        positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
        named = {p.name: p for p in parameters if p.kind is p.KEYWORD_ONLY}
        try:
            inspect.signature(self._value).bind(*positional, **named)
        except TypeError as error:
            raise TypeError(f"fallback: {self._value!r} cannot be called with the arguments of {fn!r}: {error}") from None


def _takes_arguments(function: Callable[..., Any]) -> bool:
    try:
        return bool(inspect.signature(function).parameters)
    except (TypeError, ValueError):
        return False
