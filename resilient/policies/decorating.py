"""Functions under the policies of a pipeline: `@dependency`, on whatever can be called."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

from .generators import guard_async_generator, guard_generator

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["decorated"]

F = TypeVar("F", bound=Callable[..., Any])


def decorated(pipeline: Pipeline, fn: F) -> F:
    """`fn` under the policies: a function, plain or async, a generator, plain or async, or a method.

    Raises:
        TypeError: it is a class, or cannot be called.
    """
    if isinstance(fn, staticmethod | classmethod):
        return cast("F", type(fn)(pipeline(fn.__func__)))
    if isinstance(fn, type):
        raise TypeError(f"a class stays a class: decorate the methods of {fn.__name__}, or a function that makes one")
    if not callable(fn):
        raise TypeError(f"expected a function to decorate, got {fn!r}")
    # An object with an async __call__ is a coroutine function that does not look like one, in a partial too.
    target: Any = fn
    while isinstance(target, functools.partial):
        target = target.func
    target = target if inspect.isroutine(target) else type(target).__call__
    if inspect.isasyncgenfunction(target):
        return cast("F", guard_async_generator(pipeline, fn))
    if inspect.isgeneratorfunction(target):
        return cast("F", guard_generator(pipeline, fn))
    if inspect.iscoroutinefunction(target):

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await pipeline.call(fn, *args, **kwargs)

        return cast("F", _named_like(fn, awaited))

    def called(*args: Any, **kwargs: Any) -> Any:
        return pipeline.call_sync(fn, *args, **kwargs)

    return cast("F", _named_like(fn, called))


def _named_like(fn: Any, wrapper: Any) -> Any:
    # Instances have no __name__; functools.wraps takes what is there.
    return functools.wraps(fn)(wrapper)
