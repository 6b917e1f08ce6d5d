"""The ways of calling that a breaker inherits from pybreaker: call, calling, the decorator; and what they do better."""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import anyio
import pytest

from resilient import CircuitBreaker, CircuitOpen, Pipeline
from resilient.testing import FakeClock


def on(clock: FakeClock, breaker: CircuitBreaker) -> CircuitBreaker:
    """The breaker, told the time by `clock`."""
    clock.pipeline = Pipeline(breaker, clock=clock)  # type: ignore[attr-defined]  # kept alive with the clock
    return breaker


@pytest.mark.anyio
async def test_ground_33_a_coroutine_function_given_to_call_raises(anyio_backend: Any) -> None:
    async def work() -> None: ...

    async def items() -> AsyncIterator[int]:
        yield 1

    class Worker:
        async def __call__(self) -> None: ...

    breaker = CircuitBreaker(1)
    for function in (work, items, Worker(), functools.partial(asyncio.sleep, 0)):
        with pytest.raises(TypeError, match="decorat|await"):
            breaker.call(function)
    with pytest.raises(TypeError, match="tornado"):
        breaker.call_async(work)
    with pytest.raises(TypeError, match="tornado"):
        breaker(work, __pybreaker_call_async=True)
    assert breaker.current_state == "closed" and breaker.fail_counter == 0


def test_fault_an_async_function_trips_it() -> None:
    """Fault 1 of pybreaker: decorated coroutine functions never tripped it."""
    breaker = CircuitBreaker(2)

    @breaker
    async def broken() -> None:
        raise KeyError

    for _ in range(2):
        with pytest.raises(KeyError):
            asyncio.run(broken())
    with pytest.raises(CircuitOpen):
        asyncio.run(broken())


@pytest.mark.parametrize("brackets", [True, False])
def test_the_decorator_with_and_without_brackets(brackets: bool) -> None:
    breaker = CircuitBreaker()

    def double(number: int) -> int:
        return 2 * number

    decorated = (breaker() if brackets else breaker)(double)
    assert decorated(21) == 42 and decorated.__name__ == "double"


def test_fault_pitfall_11_the_lock_is_not_held_while_the_function_runs() -> None:
    """Fault 2: ten threads took turns. Here each waits for all the others, inside."""
    breaker = CircuitBreaker()
    all_inside = threading.Barrier(10)
    threads = [threading.Thread(target=breaker.call, args=(all_inside.wait, 10)) for _ in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not all_inside.broken


def test_a_block_is_guarded(clock: FakeClock) -> None:
    breaker = on(clock, CircuitBreaker(1, 20, 1))
    with pytest.raises(KeyError), breaker.calling():
        raise KeyError
    with pytest.raises(CircuitOpen), breaker.calling():
        raise AssertionError("the block must not run")
    clock.advance(20)
    with breaker.calling():
        pass
    assert breaker.current_state == "closed"


@pytest.mark.anyio
async def test_a_block_may_await(anyio_backend: Any) -> None:
    breaker = CircuitBreaker(1)
    with breaker.calling():
        await anyio.sleep(0)
    with pytest.raises(KeyError):
        with breaker.calling():
            await anyio.sleep(0)
            raise KeyError
    assert breaker.current_state == "open"


def test_a_generator_counts_at_its_end() -> None:
    breaker = CircuitBreaker(1)

    def items() -> Iterator[int]:
        yield 1
        raise ValueError("in the middle")

    generator = breaker.call(items)
    assert next(generator) == 1 and breaker.current_state == "closed"
    with pytest.raises(ValueError, match="in the middle"):
        next(generator)
    assert breaker.current_state == "open"


@pytest.mark.parametrize("way", ["call", "decorator", "calling", "pipeline"])
def test_fault_the_tripping_error_is_kept_unless_asked_for(way: str) -> None:
    """Fault 7. With `throw_new_error_on_trip` all ways agree too."""

    def broken() -> None:
        raise KeyError("mine")

    def go(breaker: CircuitBreaker) -> None:
        if way == "calling":
            with breaker.calling():
                broken()
        elif way == "decorator":
            breaker(broken)()
        elif way == "pipeline":
            Pipeline(breaker).call_sync(broken)
        else:
            breaker.call(broken)

    with pytest.raises(KeyError, match="mine"):
        go(CircuitBreaker(1))
    with pytest.raises(CircuitOpen) as caught:
        go(CircuitBreaker(1, throw_new_error_on_trip=True))
    assert isinstance(caught.value.__cause__, KeyError)
    with pytest.raises(KeyError, match="mine"):
        go(CircuitBreaker(2, throw_new_error_on_trip=True))  # did not trip


def test_switched_off_by_the_environment_every_way_is_open(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENT_ENABLED", "0")
    breaker = CircuitBreaker()
    breaker.open()
    with breaker.calling():
        assert breaker.call(int, "5") == breaker(partial(int))("5") == 5


def test_one_function_at_a_time_is_decorated() -> None:
    with pytest.raises(TypeError, match="one function"):
        CircuitBreaker()(int, str)
