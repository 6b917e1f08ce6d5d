"""Interrupting what is awaited on asyncio: nobody else is hit, shields hold, and nothing is armed that need not be."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import time
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable, Generator, Iterator
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilient import wheel
from resilient.interruption import EXPIRED, Interruption, interruptible

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


async def within(seconds: float, awaitable: Awaitable[Any], *, exact: bool = True) -> Any:
    return await interruptible(awaitable, time.monotonic() + seconds, time.monotonic, exact)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_what_never_suspends_arms_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def arm(*args: Any) -> None:
        raise AssertionError("armed")

    monkeypatch.setattr(Interruption, "__init__", arm)

    async def value() -> int:
        return 7

    assert await within(1, value()) == 7
    with pytest.raises(AssertionError, match="armed"):
        await within(1, anyio.sleep(0))


@pytest.mark.parametrize("exact", [True, False])
async def test_it_is_cut_and_the_task_is_not_cancelled(exact: bool) -> None:
    seen: list[BaseException] = []

    async def work() -> None:
        try:
            await forever()
        except asyncio.CancelledError as error:
            seen.append(error)
            raise

    assert await within(0.01, work(), exact=exact) is EXPIRED
    assert len(seen) == 1
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0
    await asyncio.sleep(0)


async def test_slots_are_given_back() -> None:
    await within(30, anyio.sleep(0.001), exact=False)
    assert not [slot for slot in wheel._wheel(asyncio.get_running_loop()).slots.values() if slot]


async def test_a_slot_that_came_early_takes_nobody_in() -> None:
    """As on a loop whose clock is coarse: a timer of Windows may come 15 ms before its time."""
    loop = asyncio.get_running_loop()
    soon = wheel.slot_in(loop, 5.0)
    made = wheel._wheel(loop)
    (at,) = (at for at, slot in made.slots.items() if slot is soon)
    made._expire(at)
    later = wheel.slot_in(loop, 5.0)
    assert any(slot is later for slot in made.slots.values())


@pytest.mark.parametrize(
    "wait",
    [
        pytest.param(forever, id="future"),
        pytest.param(lambda: asyncio.gather(forever(), forever()), id="gather"),
        pytest.param(lambda: asyncio.wait_for(forever(), 10), id="wait_for"),
        pytest.param(lambda: asyncio.ensure_future(forever()), id="task"),
        pytest.param(lambda: asyncio.get_running_loop().create_future(), id="bare future"),
        pytest.param(lambda: asyncio.shield(asyncio.get_running_loop().create_future()), id="shield"),
        pytest.param(lambda: anyio.sleep(10), id="anyio"),
        pytest.param("_in_group", id="anyio task group"),
        pytest.param("_in_asyncio_group", id="asyncio task group"),
        pytest.param("_yielding", id="busy"),
        pytest.param("_Custom", id="object of its own"),
    ],
)
async def test_every_kind_of_wait_is_cut(wait: Callable[[], Awaitable[Any]] | str) -> None:
    awaitable = globals()[wait]() if isinstance(wait, str) else wait()
    assert await within(0.01, awaitable) is EXPIRED


async def _in_group() -> None:
    async with anyio.create_task_group() as group:
        group.start_soon(forever)
        await forever()


async def _in_asyncio_group() -> None:
    async with asyncio.TaskGroup() as group:
        group.create_task(forever())


async def _yielding() -> None:
    while True:
        await asyncio.sleep(0)


class _Custom:
    """An awaitable whose iterator has neither `send` nor `throw`."""

    def __await__(self) -> Iterator[Any]:
        return map(_as_awaited, iter(asyncio.get_running_loop().create_future, None))


def _as_awaited(future: Any) -> Any:
    future._asyncio_future_blocking = True  # as `Future.__await__` says that it is to be waited for
    return future


class _Letter:
    """An awaitable with methods of its own that are called as a coroutine's are."""

    def send(self, to: Any) -> str:
        return f"sent to {to}"

    def throw(self, where: Any) -> str:
        return f"thrown {where}"

    def __await__(self) -> Generator[Any, None, str]:
        yield from asyncio.sleep(0).__await__()
        return "answer"


async def test_an_awaitable_is_awaited_whatever_else_it_can() -> None:
    assert await within(1, _Letter()) == "answer"


async def test_an_error_and_a_value_pass() -> None:
    async def fail() -> None:
        await asyncio.sleep(0)
        raise KeyError("theirs")

    with pytest.raises(KeyError, match="theirs") as raised:
        await within(1, fail())
    assert raised.value.__context__ is None
    assert await within(1, asyncio.sleep(0, "value")) == "value"


async def test_a_cancellation_of_the_task_is_not_taken_for_its_own() -> None:
    async def cut() -> Any:
        return await within(0.01, forever())

    for _ in range(20):
        task = asyncio.create_task(cut())
        # In the same turn of the loop as the deadline, now before it and now after it.
        asyncio.get_running_loop().call_later(0.01, task.cancel)
        await asyncio.wait([task])
        assert task.cancelled() or task.result() is EXPIRED
        if task.cancelling():
            assert task.cancelled()


async def test_both_at_once_is_a_cancellation() -> None:
    async def cut() -> Any:
        return await within(0.0, forever())

    task = asyncio.create_task(cut())
    await asyncio.sleep(0)
    # Expired in this turn of the loop, so that task.cancel() finds the future cancelled already.
    await asyncio.sleep(0)
    task.cancel()
    await asyncio.wait([task])
    assert task.cancelled()


async def test_an_outer_scope_that_expires_as_well_hears_of_it() -> None:
    for inner, outer in ((0.01, 0.01), (0.01, 0.0101), (0.0101, 0.01)):
        reached = False
        with anyio.move_on_after(outer) as scope:
            await within(inner, forever())
            await anyio.sleep(1)
            reached = True
        assert scope.cancelled_caught and not reached


async def test_an_outer_scope_that_expires_while_the_code_cleans_up_cancels_what_comes_next() -> None:
    """The code has heard of both, and raises the one that it heard of first: ours, which the scope would not know."""

    async def work() -> None:
        try:
            await forever()
        except asyncio.CancelledError:
            with contextlib.suppress(asyncio.CancelledError):
                await forever()
            raise

    with anyio.move_on_after(0.03) as scope:
        assert await within(0.01, work()) is EXPIRED
        await anyio.sleep(10)
    task = asyncio.current_task()
    assert scope.cancelled_caught
    assert task is not None and task.cancelling() == 0


async def test_nested_deadlines_each_cut_their_own() -> None:
    async def inner() -> str:
        assert await within(0.01, forever()) is EXPIRED
        await asyncio.sleep(10)
        return "went on"

    assert await within(0.03, inner()) is EXPIRED


async def test_the_outer_one_reaches_code_that_cleans_up_after_the_inner_one() -> None:
    async def slow_to_leave() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(10)

    async def inner() -> str:
        value = await within(0.01, slow_to_leave())
        await asyncio.sleep(10)
        return f"went on after {value!r}"

    assert await within(0.03, inner()) is EXPIRED


async def test_an_outer_scope_that_is_cancelled_while_the_code_cleans_up_hears_of_it() -> None:
    """A task group that waits for its children keeps our cancellation, and not that of the scope further out."""

    async def slow_to_leave() -> None:
        try:
            await forever()
        finally:
            with anyio.CancelScope(shield=True):
                await anyio.sleep(0.05)

    async def work() -> None:
        async with anyio.create_task_group() as group:
            group.start_soon(slow_to_leave)
            await forever()

    with anyio.move_on_after(0.03) as scope:
        assert await within(0.01, work()) is EXPIRED
        await anyio.sleep(10)
    assert scope.cancelled_caught
    task = asyncio.current_task()
    assert task is not None and task.cancelling() == 0


async def test_a_shield_holds_and_the_deadline_comes_right_after_it() -> None:
    events: list[str] = []

    async def work() -> None:
        await asyncio.sleep(0)
        with anyio.CancelScope(shield=True):
            await anyio.sleep(0.03)
            events.append("the shielded part came to its end")
        await anyio.sleep(10)
        events.append("went on")

    assert await within(0.01, work()) is EXPIRED
    assert events == ["the shielded part came to its end"]


async def test_a_shield_around_the_call_is_no_shield_inside_it() -> None:
    with anyio.CancelScope(shield=True):
        assert await within(0.01, forever()) is EXPIRED


async def test_a_thread_that_may_not_be_abandoned_is_waited_for() -> None:
    done: list[bool] = []

    def block() -> None:
        time.sleep(0.05)
        done.append(True)

    value = await within(0.01, anyio.to_thread.run_sync(block))
    assert done == [True]
    assert value in (None, EXPIRED)


async def test_code_that_goes_on_is_interrupted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilient.interruption.AGAIN", 0.02)
    times = 0

    async def stubborn() -> None:
        nonlocal times
        for _ in range(3):
            try:
                await forever()
            except asyncio.CancelledError:
                times += 1
        await forever()

    assert await within(0.01, stubborn()) is EXPIRED
    assert times == 3


class _Movable:
    scope: Any = None


async def test_one_that_was_brought_forward_does_not_come_again_at_its_old_time() -> None:
    cleaned: list[bool] = []
    call: Any = _Movable()

    async def work() -> None:
        try:
            await forever()
        finally:
            await asyncio.sleep(0.06)
            cleaned.append(True)

    asyncio.get_running_loop().call_later(0.01, lambda: call.scope.bring_forward(0))
    assert await interruptible(work(), time.monotonic() + 0.03, time.monotonic, False, call) is EXPIRED
    assert cleaned == [True]
    assert call.scope is None


async def test_a_result_that_is_there_is_given() -> None:
    future = asyncio.get_running_loop().create_future()

    async def read() -> Any:
        return await future

    # Resolved in the same turn of the loop in which the deadline comes, and before it.
    asyncio.get_running_loop().call_later(0.01, future.set_result, "there")
    assert await within(0.0101, read()) in ("there", EXPIRED)
    done = asyncio.get_running_loop().create_future()
    done.set_result("there")
    assert await within(-1, _read(done)) == "there"


async def _read(future: Awaitable[Any]) -> Any:
    return await future


async def test_an_abandoned_coroutine_is_closed_all_the_way() -> None:
    closed: list[bool] = []

    async def work() -> None:
        try:
            await forever()
        finally:
            closed.append(True)

    coroutine = within(10, work())
    coroutine.send(None)  # type: ignore[attr-defined]
    coroutine.close()  # type: ignore[attr-defined]
    assert closed == [True]


async def test_generators_go_on_after_a_cut_read() -> None:
    async def items() -> AsyncIterator[int]:
        yield 1
        await asyncio.sleep(10)
        yield 2

    source = items()
    assert await within(1, anext(source)) == 1
    assert await within(0.01, anext(source)) is EXPIRED
    with pytest.raises(StopAsyncIteration):
        await within(1, source.__anext__())


class Big:
    pass


@pytest.mark.parametrize("how", ["error", "cut"])
async def test_a_failure_keeps_nothing_alive(how: str) -> None:
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    alive: list[weakref.ref[Big]] = []

    async def fail() -> None:
        local = Big()
        alive.append(weakref.ref(local))
        await asyncio.shield(future)

    if how == "error":
        asyncio.get_running_loop().call_later(0.005, future.set_exception, KeyError("theirs"))
    gc.collect()
    gc.disable()
    try:
        with contextlib.suppress(KeyError):
            assert await within(0.05, fail()) is EXPIRED
        await asyncio.sleep(0)
        # An error that a future keeps holds the frames it went through for as long as the future lives.
        future = asyncio.get_running_loop().create_future()
        await asyncio.sleep(0)
        assert alive[0]() is None
    finally:
        gc.enable()


async def test_a_task_that_fails_is_not_kept_by_its_own_error() -> None:
    alive: list[weakref.ref[Big]] = []

    async def fail() -> None:
        local = Big()
        alive.append(weakref.ref(local))
        await asyncio.sleep(0)
        raise KeyError("theirs")

    gc.collect()
    gc.disable()
    try:
        task = asyncio.create_task(within(1, fail()))
        with contextlib.suppress(KeyError):
            await task
        del task
        await asyncio.sleep(0)
        assert alive[0]() is None
    finally:
        gc.enable()
