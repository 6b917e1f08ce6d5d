"""Generators under a pipeline: the first item is the answer, the last one is its end."""

from __future__ import annotations

import functools
import sys
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from types import FrameType
from typing import TYPE_CHECKING, Any

from ..body import END, Body
from ..call import Call
from ..core.outcome import Outcome
from ..runtime import drive
from .collected import may_hold_locks

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["guard_async_generator", "guard_generator"]

UNSTARTED: Any = object()


class _Begun(Call):
    """A call of a generator function: its answer is the generator and the first item, or END where there is none."""

    def verdict(self, result: Any, error: Exception | None) -> Outcome | None:
        """What `classify` says of the first item, or of an error; the generator and the end are no results."""
        if error is None:
            _, result = result
            if result is END or result is UNSTARTED:
                return None
        return super().verdict(result, error)


class _AsyncStream(_Begun):
    """The same of an async generator function."""

    streamed = True

    def replacement(self, value: Any) -> Any:
        if not isinstance(value, AsyncIterator | Iterable) and not hasattr(value, "__aiter__"):
            raise _no_stream(value)
        return _replay_async(value), UNSTARTED

    async def discard(self, result: Any) -> None:
        await result[0].aclose()

    def _call_instead(self, function: Callable[..., Any]) -> None:
        self.fn = functools.partial(self.fn.func, function)  # type: ignore[attr-defined]


class _Stream(_Begun):
    """The same of a plain generator function."""

    streamed = True

    def replacement(self, value: Any) -> Any:
        if not isinstance(value, Iterable):
            raise _no_stream(value)
        return _replay(value), UNSTARTED

    async def discard(self, result: Any) -> None:
        result[0].close()

    def _call_instead(self, function: Callable[..., Any]) -> None:
        self.fn = functools.partial(self.fn.func, function)  # type: ignore[attr-defined]


def _no_stream(value: Any) -> TypeError:
    return TypeError(f"fallback: expected items to yield in place of a generator, got {value!r}")


async def _replay_async(value: Any) -> AsyncIterator[Any]:
    if hasattr(value, "__aiter__"):
        async for item in value:
            yield item
    else:
        for item in value:
            yield item


def _replay(value: Iterable[Any]) -> Iterator[Any]:
    yield from value


def guard_async_generator(pipeline: Pipeline, fn: Callable[..., Any]) -> Callable[..., Any]:
    """`fn` under `pipeline`: retries and fallbacks end with the first item, permits are held to the last one."""

    async def begin(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
        generator = fn(*args, **kwargs)
        return generator, await _async_step(generator)

    @functools.wraps(fn)
    async def guarded(*args: Any, **kwargs: Any) -> Any:
        body = None
        if pipeline.enabled:
            call = _AsyncStream(pipeline, pipeline.runtime, functools.partial(begin, fn), args, kwargs)
            generator, item = begun = await pipeline.open(call)
            body = Body(call, call.outcome_of(begun))
            del begun  # an item is the reader's alone
        else:
            generator, item = await begin(fn, *args, **kwargs)
        try:
            if body is not None and item is UNSTARTED:
                item = await body.next(functools.partial(_async_step, generator))
            elif body is not None and item is END:
                body.end()
            while item is not END:
                sent = thrown = None
                try:
                    sent = yield item
                except GeneratorExit:
                    if body is not None:
                        body.close()
                    raise
                except BaseException as error:  # noqa: BLE001  # the generator's to deal with
                    thrown = error
                step = functools.partial(_async_step, generator, sent, thrown)
                item = await (step() if body is None else _next(body, step, thrown))
                del step, thrown  # whoever keeps the error must not keep this frame
        finally:
            await generator.aclose()

    return guarded


def guard_generator(pipeline: Pipeline, fn: Callable[..., Any]) -> Callable[..., Any]:
    """The same for a plain generator."""

    @functools.wraps(fn)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        returned: list[Any] = []

        def begin(fn: Callable[..., Any], *args: Any, **kwargs: Any) -> tuple[Any, Any]:
            generator = fn(*args, **kwargs)
            return generator, _step(generator, returned)

        body = None
        if pipeline.enabled:
            call = _Stream(pipeline, pipeline.sync_runtime, functools.partial(begin, fn), args, kwargs)
            generator, item = begun = drive(pipeline.open(call))
            body = Body(call, call.outcome_of(begun))
            del begun
        else:
            generator, item = begin(fn, *args, **kwargs)
        try:
            if body is not None and item is UNSTARTED:
                item = drive(body.next(functools.partial(_step, generator, returned)))
            elif body is not None and item is END:
                body.end()
            while item is not END:
                sent = thrown = None
                try:
                    sent = yield item
                except GeneratorExit:
                    if body is not None:
                        _close(pipeline, body, sys._getframe().f_back)
                    raise
                except BaseException as error:  # noqa: BLE001
                    thrown = error
                step = functools.partial(_step, generator, returned, sent, thrown)
                item = step() if body is None else drive(_next(body, step, thrown))
                del step, thrown
        finally:
            generator.close()
        return returned[0] if returned else None

    return guarded


async def _async_step(generator: Any, sent: Any = None, thrown: BaseException | None = None) -> Any:
    try:
        return await (generator.asend(sent) if thrown is None else generator.athrow(thrown))
    except StopAsyncIteration:
        return END


def _step(generator: Any, returned: list[Any], sent: Any = None, thrown: BaseException | None = None) -> Any:
    try:
        return generator.send(sent) if thrown is None else generator.throw(thrown)
    except StopIteration as stop:
        returned.append(stop.value)
        return END


async def _next(body: Body, step: Callable[[], Any], thrown: BaseException | None) -> Any:
    if thrown is not None:
        # Thrown in by whoever reads: should it come out again, it says nothing of the dependency.
        body.call.ignore(thrown)
    return await body.next(step)


def _close(pipeline: Pipeline, body: Body, closer: FrameType | None) -> None:
    """The reader has had enough, or the generator is being collected."""
    if may_hold_locks(closer):
        pipeline.abandoned.append(body.close)
    else:
        body.close()
