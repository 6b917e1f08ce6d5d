"""Whatever is decorated stays what it was: a function, a method, a callable object, a generator, async or not."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from resilient import Bulkhead, CircuitBreaker, CircuitOpen, Dependency, Pipeline, Resilience

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
    assert pipeline(functools.partial(int, base=2))("101") == 5 and pipeline(len)([1]) == 1
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


class Shop:
    """One of each, to be called through a dependency or decorated."""

    lamps = 4

    def count(self) -> int:
        return self.lamps

    async def ask(self) -> int:
        return self.lamps

    @classmethod
    async def ask_class(cls) -> int:
        return cls.lamps

    @staticmethod
    async def ask_nobody() -> int:
        return 4

    def later(self) -> Any:
        """A plain function that returns what has to be awaited, as redis-py's methods are."""
        return self.ask()

    def each(self) -> Iterator[int]:
        yield from range(self.lamps)

    async def ask_each(self) -> AsyncIterator[int]:
        for number in range(self.lamps):
            yield number


class AsyncCaller:
    async def __call__(self, lamps: int = 4) -> int:
        return lamps


class Caller:
    def __call__(self, lamps: int = 4) -> int:
        return lamps


class Yielder:
    def __call__(self) -> Iterator[int]:
        yield from range(4)


class AsyncYielder:
    async def __call__(self) -> AsyncIterator[int]:
        for number in range(4):
            yield number


def guarded() -> Dependency:
    return Dependency("shop", Bulkhead(max_concurrent=1, queue=0), CircuitBreaker())


def counts(dependency: Dependency) -> dict[str, int]:
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 0
    return {word: count for word, count in dependency.stats.snapshot().counts.items() if count}


@pytest.mark.parametrize(
    "fn",
    [
        Shop().ask,
        Shop.ask_class,
        Shop.ask_nobody,
        Shop().ask_nobody,
        AsyncCaller(),
        AsyncCaller().__call__,
        functools.partial(Shop().ask),
        functools.partial(AsyncCaller(), 4),
        functools.partial(functools.partial(AsyncCaller()), lamps=4),
        functools.partial(Shop.ask, Shop()),
    ],
    ids=range(10),
)
async def test_whatever_is_awaited(anyio_backend: Any, fn: Any) -> None:
    dependency = guarded()
    assert await dependency.call(fn) == await dependency(fn)() == 4
    assert counts(dependency) == {"success": 2}


@pytest.mark.parametrize(
    "fn",
    [
        Shop().count,
        Caller(),
        Caller().__call__,
        functools.partial(Caller(), 4),
        functools.partial(int, "4"),
        functools.partial(len, "lamp"),
    ],
    ids=range(6),
)
def test_whatever_returns(anyio_backend: Any, fn: Any) -> None:
    dependency = guarded()
    assert dependency.call_sync(fn) == dependency(fn)() == 4
    assert counts(dependency) == {"success": 2}


@pytest.mark.parametrize("fn", [Shop().each, Yielder(), functools.partial(Shop().each), functools.partial(Yielder())], ids=range(4))
def test_whatever_yields_holds_its_slot_to_the_end(anyio_backend: Any, fn: Any) -> None:
    dependency = guarded()
    items = dependency(fn)()
    assert next(items) == 0
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 1
    assert list(items) == [1, 2, 3]
    assert counts(dependency) == {"success": 1}


@pytest.mark.parametrize(
    "fn", [Shop().ask_each, AsyncYielder(), functools.partial(Shop().ask_each), functools.partial(AsyncYielder())], ids=range(4)
)
async def test_whatever_yields_asynchronously_does_too(anyio_backend: Any, fn: Any) -> None:
    dependency = guarded()
    items = dependency(fn)()
    assert await anext(items) == 0
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 1
    assert [item async for item in items] == [1, 2, 3]
    assert counts(dependency) == {"success": 1}


async def test_a_plain_function_that_returns_an_awaitable_is_called_and_not_decorated(anyio_backend: Any) -> None:
    dependency = guarded()
    assert await dependency.call(Shop().later) == 4
    assert await dependency.call(lambda: Shop().ask()) == 4
    with pytest.raises(TypeError, match="yet to run: use `await"):
        dependency(Shop().later)()
    assert counts(dependency) == {"success": 2, "ignored": 1}


async def test_methods_of_a_class_and_of_what_inherits_from_it(anyio_backend: Any) -> None:
    dependency = Dependency("shop", Bulkhead(max_concurrent=2), CircuitBreaker())

    class Base:
        @dependency
        async def name(self) -> str:
            return type(self).__name__

        @classmethod
        @dependency
        async def of_class(cls) -> str:
            return cls.__name__

        @staticmethod
        @dependency
        def of_nobody() -> str:
            return "nobody"

        @dependency
        async def items(self) -> AsyncIterator[str]:
            yield type(self).__name__

        @dependency
        def plain_items(self) -> Iterator[str]:
            yield type(self).__name__

    class Derived(Base):
        @dependency
        async def name(self) -> str:
            return "derived " + await super().name()

    derived = Derived()
    assert await derived.name() == "derived Derived"
    assert await Derived.of_class() == await derived.of_class() == "Derived"
    assert Base.of_nobody() == derived.of_nobody() == "nobody"
    assert [item async for item in derived.items()] == list(derived.plain_items()) == ["Derived"]
    assert inspect.signature(derived.name) == inspect.Signature(return_annotation="str")
    assert counts(dependency) == {"success": 8}


async def test_arguments_arrive_as_they_were_given(anyio_backend: Any) -> None:
    """Names that the machinery uses itself included."""
    dependency = guarded()

    @dependency
    async def tell(*args: Any, fn: Any = None, call: Any = None, self: Any = None, **others: Any) -> Any:
        return args, fn, call, self, others

    def tell_now(*args: Any, fn: Any = None, sync: Any = None) -> Any:
        return args, fn, sync

    expected = ((1, 2), 3, 4, 5, {"inner": 6, "clock": 7})
    assert await tell(1, 2, fn=3, call=4, self=5, inner=6, clock=7) == expected
    assert await dependency.call(tell.__wrapped__, 1, 2, fn=3, call=4, inner=6, clock=7) == (expected[0], 3, 4, None, expected[4])  # type: ignore[attr-defined]
    assert dependency.call_sync(tell_now, 1, fn=2, sync=3) == ((1,), 2, 3)


@pytest.mark.anyio
async def test_a_generator_function_that_is_called_is_told_to_be_decorated() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1

    pipeline = Pipeline()
    with pytest.raises(TypeError, match="returned async_generator, which cannot be awaited: decorate a generator function"):
        await pipeline.call(items)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="returned generator, which cannot be awaited: decorate a generator function"):
        await pipeline.call(lambda: (item for item in range(3)))  # type: ignore[arg-type,return-value]
    assert pipeline.stats.snapshot().counts["ignored"] == 2


def test_a_class_is_refused_rather_than_made_a_function(anyio_backend: Any) -> None:
    class Client:
        pass

    for decorate in (Dependency("shop"), Pipeline(), CircuitBreaker(), CircuitBreaker()()):
        with pytest.raises(TypeError, match="decorate the methods of Client, or a function that makes one"):
            decorate(Client)
    with pytest.raises(TypeError, match="^feature shop: decorate the methods of Client, or a function that makes one"):
        Resilience().feature("shop")(Client)
