"""A feature's function in three makes: awaited on asyncio, awaited on trio, and plain."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import anyio
import pytest

WORLDS = ("asyncio", "trio", "sync")
in_each_world = pytest.mark.parametrize("world", WORLDS)


class Uses:
    """Uses of a feature, called plainly in each world; `calls` counts how often the function itself was asked.

    Args:
        feature: decorates the function.
        answer: what the function does: a value to return, or an exception (class) to raise. It may be changed.
    """

    def __init__(self, world: str, feature: Callable[[Any], Any], answer: Any = "own") -> None:
        self.calls = 0
        self.answer = answer

        def plain(*args: Any) -> Any:
            self.calls += 1
            if isinstance(self.answer, BaseException) or (isinstance(self.answer, type) and issubclass(self.answer, BaseException)):
                raise self.answer
            return self.answer

        async def awaited(*args: Any) -> Any:
            return plain(*args)

        self._decorated = feature(plain if world == "sync" else awaited)
        self._call = self._decorated if world == "sync" else functools.partial(anyio.run, self._decorated, backend=world)

    def __call__(self, *args: Any) -> Any:
        return self._call(*args)
