"""Work on a thread that a task waits for: what comes of it, and of who leaves."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import weakref
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilient.runtime import AsyncRuntime, ThreadsBusy
from resilient.threads import AsyncioErrand, Threads

pytestmark = pytest.mark.anyio

RUNTIME = AsyncRuntime()


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(10):
        while not condition():
            await anyio.sleep(0)


async def test_what_comes_of_it_is_the_callers() -> None:
    here = threading.get_ident()
    assert await RUNTIME.offload(threading.get_ident) != here

    def fail() -> None:
        raise KeyError("gone")

    with pytest.raises(KeyError, match="gone"):
        await RUNTIME.offload(fail)


async def test_many_at_a_time_have_each_their_own() -> None:
    got: dict[int, int] = {}

    async def ask(number: int) -> None:
        got[number] = await RUNTIME.offload(lambda: number * number, patient=True)

    async with anyio.create_task_group() as group:
        for number in range(200):
            group.start_soon(ask, number)
    assert got == {number: number * number for number in range(200)}


async def test_who_is_cancelled_leaves_at_once_and_it_goes_on_to_its_end() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()
    left: list[str] = []

    def act() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    async def ask() -> None:
        try:
            await RUNTIME.offload(act)
        finally:
            left.append("left")

    async with anyio.create_task_group() as group:
        group.start_soon(ask)
        await until(begun.is_set)
        group.cancel_scope.cancel()
    assert left == ["left"] and not ended.is_set()
    go_on.set()
    assert ended.wait(10)
    await anyio.sleep(0)
    assert await RUNTIME.offload(lambda: "next") == "next"


async def test_who_was_cancelled_before_he_waits_leaves_too() -> None:
    with anyio.CancelScope() as scope:
        scope.cancel()
        await RUNTIME.offload(lambda: None)
        await anyio.sleep(0)  # where the thread was done before the scope could say so
    assert scope.cancelled_caught


async def test_a_time_limit_ends_the_wait() -> None:
    go_on = threading.Event()
    with pytest.raises(TimeoutError), anyio.fail_after(0.01):
        await RUNTIME.offload(lambda: go_on.wait(10))
    go_on.set()


async def test_with_every_thread_busy_it_is_not_done_unless_one_has_patience() -> None:
    threads, go_on, done = Threads(limit=1), threading.Event(), []
    assert threads.start(lambda: go_on.wait(10))
    with pytest.raises(ThreadsBusy):
        await RUNTIME.offload(lambda: done.append("impatient"), threads=threads)
    await RUNTIME.offload(lambda: done.append("patient"), threads=threads, patient=True)
    assert done == ["patient"]
    go_on.set()


class Held:
    """Something that a caller's work leads to."""


async def test_nothing_of_it_is_kept_once_it_is_over() -> None:
    threads = Threads(limit=1)
    helds: list[weakref.ref[Held]] = []

    async def ask(*, fail: bool) -> None:
        held = Held()
        helds.append(weakref.ref(held))

        def act(of: Held = held) -> Held:
            if fail:
                raise ValueError(of)
            return of

        with contextlib.suppress(ValueError):
            await RUNTIME.offload(act, threads=threads)

    await ask(fail=False)
    await ask(fail=True)
    await RUNTIME.offload(lambda: None, threads=threads)
    gc.collect()
    assert [gone() for gone in helds] == [None, None]


# -- what a task of asyncio's asks of it ----------------------------------------------------------------------------------


@pytest.fixture
def loop() -> Any:
    with asyncio.Runner() as runner:
        yield runner.get_loop()


def waiting(errand: AsyncioErrand) -> Any:
    async def wait() -> str:
        await errand
        return str(errand.outcome())

    return wait()


def test_it_is_over_before_it_is_waited_for(loop: asyncio.AbstractEventLoop) -> None:
    errand = AsyncioErrand(lambda: "done", loop)
    errand.do()
    errand.tell()
    assert loop.run_until_complete(waiting(errand)) == "done"
    assert asyncio.isfuture(errand)


def test_whoever_is_second_calls_nobody(loop: asyncio.AbstractEventLoop) -> None:
    errand, seen = AsyncioErrand(lambda: "done", loop), []

    async def told_then_cancelled() -> None:
        task = asyncio.ensure_future(waiting(errand), loop=loop)
        await asyncio.sleep(0)
        errand.do()
        errand.tell()
        assert task.cancel()
        assert not errand.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.append("cancelled")

    async def cancelled_then_told() -> None:
        other = AsyncioErrand(lambda: "done", loop)
        task = asyncio.ensure_future(waiting(other), loop=loop)
        await asyncio.sleep(0)
        assert task.cancel("why")
        assert task.cancel("again")
        other.do()
        other.tell()
        with pytest.raises(asyncio.CancelledError):
            await task
        seen.append("cancelled")

    loop.run_until_complete(told_then_cancelled())
    loop.run_until_complete(cancelled_then_told())
    assert seen == ["cancelled", "cancelled"]


def test_what_was_said_of_the_cancellation_arrives(loop: asyncio.AbstractEventLoop) -> None:
    async def cancelled() -> None:
        task = asyncio.ensure_future(waiting(AsyncioErrand(lambda: None, loop)), loop=loop)
        await asyncio.sleep(0)
        task.cancel("why")
        with pytest.raises(asyncio.CancelledError, match="why"):
            await task

    loop.run_until_complete(cancelled())


def test_an_event_loop_that_was_closed_is_told_nothing() -> None:
    loop = asyncio.new_event_loop()
    errand = AsyncioErrand(lambda: "done", loop)
    errand.add_done_callback(lambda _: None)
    loop.close()
    errand.do()
    errand.tell()
    assert errand.outcome() == "done"


def test_a_task_written_in_python_can_wait_for_it(loop: asyncio.AbstractEventLoop) -> None:
    python: Any = asyncio.tasks._PyTask  # type: ignore[attr-defined]

    async def both_ways() -> None:
        assert await python(RUNTIME.offload(lambda: "done"), loop=loop) == "done"
        task = python(waiting(AsyncioErrand(lambda: None, loop)), loop=loop)
        await asyncio.sleep(0)
        assert task.cancel("why")
        with pytest.raises(asyncio.CancelledError):
            await task

    loop.run_until_complete(both_ways())
