"""Whatever is decorated stays what it was: a function, a method, a callable object, a generator, async or not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from resilient import CircuitBreaker, CircuitOpen, Pipeline

pytestmark = pytest.mark.anyio


async def test_every_kind_of_callable_keeps_its_kind(anyio_backend: Any) -> None:
    pipeline = Pipeline()

    async def work(number: int = 1) -> int:
        return number

    class Worker:
        async def __call__(self) -> int:
            return 2

        @pipeline
        async def method(self) -> int:
            return 3

        @pipeline
        @staticmethod
        async def static() -> int:
            return 4

        @pipeline
        @classmethod
        def cls(cls) -> str:
            return cls.__name__

    class Stream:
        async def __call__(self) -> AsyncIterator[int]:
            yield 5

    assert await pipeline(work)() == 1 and inspect.iscoroutinefunction(pipeline(work))
    assert await pipeline(functools.partial(work, 7))() == 7
    assert await pipeline(Worker())() == 2
    assert await Worker().method() == 3 and await Worker.static() == 4 and Worker().cls() == "Worker"
    assert pipeline(int)("5") == 5 and pipeline(len)([1]) == 1
    assert [item async for item in pipeline(Stream())()] == [5]

    def items() -> Iterator[int]:
        yield 6

    async def async_items() -> AsyncIterator[int]:
        yield 7

    assert inspect.isgeneratorfunction(pipeline(items)) and inspect.isasyncgenfunction(pipeline(async_items))
    assert pipeline(work).__name__ == "work" and pipeline(items).__wrapped__ is items  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="expected a function"):
        pipeline(5)  # type: ignore[type-var]


async def test_each_of_them_goes_through_the_policies(anyio_backend: Any) -> None:
    breaker = CircuitBreaker()
    breaker.open()
    pipeline = Pipeline(breaker)

    class Worker:
        async def __call__(self) -> None: ...

        @pipeline
        def method(self) -> None: ...

    @pipeline
    async def async_items() -> AsyncIterator[int]:
        yield 1

    @pipeline
    def items() -> Iterator[int]:
        yield 1

    with pytest.raises(CircuitOpen):
        await pipeline(Worker())()
    with pytest.raises(CircuitOpen):
        Worker().method()
    with pytest.raises(CircuitOpen):
        next(items())
    with pytest.raises(CircuitOpen):
        await anext(async_items())
