"""A moment that many wait for, on several loops and threads."""

from __future__ import annotations

import asyncio
import threading

import anyio
import pytest

from resilient.runtime import AsyncRuntime, SyncRuntime, drive
from resilient.testing import FakeClock
from resilient.waiters import AsyncioWaiter, Moment, ThreadWaiter, waiter_here


@pytest.mark.anyio
async def test_all_who_wait_are_woken_and_nobody_waits_for_what_has_come(clock: FakeClock) -> None:
    moment, woken = Moment(), []

    async def wait(number: int) -> None:
        await moment.wait()
        woken.append(number)

    async with anyio.create_task_group() as group:
        for number in range(3):
            group.start_soon(wait, number)
        await anyio.sleep(5)
        assert woken == [] and repr(moment) == "<Moment to come>"
        assert moment.set() is True
        assert moment.set() is False
    await moment.wait()
    assert sorted(woken) == [0, 1, 2] and moment.is_set() and repr(moment) == "<Moment come>"
    moment.clear()
    assert not moment.is_set()
    with anyio.move_on_after(1) as scope:
        await moment.wait()
    assert scope.cancelled_caught
    assert moment._waiters == set()


@pytest.mark.anyio
async def test_a_pause_is_as_long_as_it_was_to_be_or_shorter(clock: FakeClock) -> None:
    moment, runtime, began = Moment(), AsyncRuntime(clock), clock.now()
    assert await moment.pause(runtime, 3) is False
    assert clock.now() - began == pytest.approx(3, abs=0.01)
    async with anyio.create_task_group() as group:

        async def come() -> None:
            await anyio.sleep(2)
            moment.set()

        group.start_soon(come)
        assert await moment.pause(runtime, 60) is True
    assert clock.now() - began == pytest.approx(5, abs=0.01)
    assert await moment.pause(runtime, 60) is True
    assert clock.now() - began == pytest.approx(5, abs=0.01)


def test_a_pause_of_a_thread() -> None:
    clock, moment = FakeClock(), Moment()
    runtime = SyncRuntime(clock)
    assert drive(moment.pause(runtime, 3)) is False
    clock.call_later(1, moment.set)
    assert drive(moment.pause(runtime, 60)) is True
    assert clock.now() == 1004


@pytest.mark.anyio
async def test_it_comes_from_another_thread() -> None:
    moment = Moment()
    thread = threading.Thread(target=moment.set)
    with anyio.fail_after(10):
        async with anyio.create_task_group() as group:
            group.start_soon(moment.wait)
            await anyio.wait_all_tasks_blocked()
            thread.start()
    thread.join()


def test_who_has_left_is_not_woken() -> None:
    moment, waiter = Moment(), ThreadWaiter()
    assert moment.add(waiter)
    moment.discard(waiter)
    moment.set()
    assert not waiter.event.is_set()
    assert not moment.add(waiter)


@pytest.mark.anyio
@pytest.mark.parametrize("elsewhere", [False, True])
async def test_one_who_waits_is_woken_from_any_thread(elsewhere: bool) -> None:
    waiter = waiter_here()
    assert not waiter.is_set()
    if elsewhere:
        thread = threading.Thread(target=waiter.wake)
        thread.start()
    else:
        waiter.wake()
    with anyio.fail_after(20):
        assert await waiter.wait() and await waiter.wait()
    assert waiter.is_set()


@pytest.mark.anyio
async def test_one_may_wait_again_after_he_gave_up(clock: FakeClock) -> None:
    runtime = AsyncRuntime(clock)
    waiter = runtime.waiter()
    for _ in range(2):
        assert not await runtime.wait(waiter, clock.now() + 1)
    assert waiter.wake() and waiter.wake()
    assert await runtime.wait(waiter, clock.now() + 1)


def test_nobody_is_woken_on_a_loop_that_is_closed() -> None:
    loop = asyncio.new_event_loop()
    waiter = AsyncioWaiter(loop)
    loop.close()
    assert not waiter.wake() and not waiter.is_set()
