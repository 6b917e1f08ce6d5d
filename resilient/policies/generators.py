"""Generators under a pipeline: the first item is the answer, the last one is its end."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..body import END, Body
from ..runtime import drive

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["guard_async_generator", "guard_generator"]


def guard_async_generator(pipeline: Pipeline, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` under `pipeline`: retries end with the first item, permits are held to the last one."""

    async def begin(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        generator = fn(*args, **kwargs)
        return generator, await anext(generator, END)

    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        if not pipeline.enabled:
            async for item in fn(*args, **kwargs):
                yield item
            return
        call = pipeline.begin(begin, args, kwargs)
        generator, item = await pipeline.open(call)
        body = Body(call, call.outcome_of(item))
        if item is END:
            body.end()
            return
        try:
            while item is not END:
                yield item
                item = await body.next(lambda: anext(generator, END))
        except GeneratorExit:
            body.close()
            raise
        except BaseException as error:
            body.fail(error)
            raise
        finally:
            await generator.aclose()

    return guarded


def guard_generator(pipeline: Pipeline, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a plain generator."""

    def begin(*args: Any, **kwargs: Any) -> tuple[Any, Any]:
        generator = fn(*args, **kwargs)
        return generator, next(generator, END)

    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        if not pipeline.enabled:
            yield from fn(*args, **kwargs)
            return
        call = pipeline.begin(begin, args, kwargs, sync=True)
        generator, item = drive(pipeline.open(call))
        body = Body(call, call.outcome_of(item))
        if item is END:
            body.end()
            return
        try:
            while item is not END:
                yield item
                item = drive(body.next(lambda: next(generator, END)))
        except GeneratorExit:
            body.close()
            raise
        except BaseException as error:
            body.fail(error)
            raise
        finally:
            generator.close()

    return guarded
