"""Tasks that run to their first wait at once: what they may rely on, on every version of Python alike."""

from __future__ import annotations

import asyncio
import contextvars
import gc
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from resilient.eager import begin_eagerly

Job = Callable[[], Coroutine[Any, Any, None]]
WORD = contextvars.ContextVar("WORD", default="")


def begin(job: Job, context: contextvars.Context | None = None) -> asyncio.Task[None] | None:
    return begin_eagerly(job(), asyncio.get_running_loop(), context)


async def turns(count: int = 5) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


def test_what_waits_for_nothing_is_done_at_once() -> None:
    seen: list[Any] = []

    async def job() -> None:
        seen.append(asyncio.current_task())

    async def main() -> None:
        caller = asyncio.current_task()
        assert begin(job) is None
        assert len(seen) == 1 and seen[0] is not caller
        assert asyncio.current_task() is caller
        await turns()

    asyncio.run(main())


@pytest.mark.parametrize("debug", [False, True])
def test_it_is_one_task_in_one_context_before_its_first_wait_and_after(debug: bool) -> None:
    seen: list[Any] = []

    async def job() -> None:
        WORD.set(WORD.get() + " changed")
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())
        await asyncio.get_running_loop().run_in_executor(None, bool)
        seen.append(asyncio.current_task())
        seen.append(WORD.get())

    async def main() -> None:
        WORD.set("caller's")
        task = begin(job)
        assert task is not None and seen == [task]
        assert WORD.get() == "caller's"
        await task
        assert seen == [task, task, task, "caller's changed"]
        assert WORD.get() == "caller's"

    asyncio.run(main(), debug=debug)


def test_a_callback_begins_one_too() -> None:
    seen: list[Any] = []

    async def job() -> None:
        seen.append(asyncio.current_task())
        await asyncio.sleep(0)
        seen.append(asyncio.current_task())

    def callback() -> None:
        seen.append(begin(job))
        assert asyncio.current_task() is None

    async def main() -> None:
        asyncio.get_running_loop().call_soon(callback)
        await turns()

    asyncio.run(main())
    assert len(seen) == 3 and len(set(seen)) == 1


def test_it_runs_in_the_context_that_is_given() -> None:
    seen: list[str] = []

    async def job() -> None:
        seen.append(WORD.get())
        await asyncio.sleep(0)
        seen.append(WORD.get())

    async def main() -> None:
        context = contextvars.copy_context()
        context.run(WORD.set, "given")
        task = begin(job, context)
        assert task is not None
        await task

    asyncio.run(main())
    assert seen == ["given", "given"]


@pytest.mark.parametrize("waits", ["for a future", "for a task", "for its turn"])
@pytest.mark.parametrize("turn", [0, 1, 3])
def test_it_hears_of_being_cancelled_at_its_wait_and_may_clean_up(waits: str, turn: int) -> None:
    seen: list[str] = []

    async def inner() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            seen.append("inner")
            raise

    async def job() -> None:
        try:
            if waits == "for a future":
                await asyncio.get_running_loop().create_future()
            elif waits == "for a task":
                await asyncio.create_task(inner())
            else:
                while True:
                    await asyncio.sleep(0)
        except asyncio.CancelledError:
            seen.append("told")
            await turns(2)
            seen.append("cleaned")
            raise

    async def main() -> None:
        task = begin(job)
        assert task is not None
        await turns(turn)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert task.cancelled()

    asyncio.run(main())
    told = seen[1:] if seen[0] == "inner" else seen
    assert told == ["told", "cleaned"]
    assert ("inner" in seen) == (waits == "for a task" and turn > 0)


def test_what_goes_on_in_spite_of_being_cancelled_goes_on() -> None:
    async def job() -> None:
        for _ in range(3):
            try:
                await asyncio.get_running_loop().create_future()
            except asyncio.CancelledError:
                seen.append("told")
        await turns()
        seen.append("done")

    seen: list[str] = []

    async def main() -> None:
        task = begin(job)
        assert task is not None
        for _ in range(3):
            task.cancel()
            await turns()
        await task

    asyncio.run(main())
    assert seen == ["told", "told", "told", "done"]


def test_an_error_after_its_first_wait_is_that_of_the_task() -> None:
    async def job() -> None:
        await asyncio.sleep(0)
        raise LookupError("gone")

    async def main() -> None:
        task = begin(job)
        assert task is not None
        with pytest.raises(LookupError, match="gone") as caught:
            await task
        assert caught.value.__context__ is None

    asyncio.run(main())


def test_who_interrupts_the_program_ends_the_caller_too() -> None:
    async def job() -> None:
        raise KeyboardInterrupt

    async def main() -> None:
        caller = asyncio.current_task()
        with pytest.raises(KeyboardInterrupt):
            begin(job)
        assert asyncio.current_task() is caller
        await turns()

    asyncio.run(main())


def test_scopes_and_locks_of_anyio_may_be_held_over_its_first_wait() -> None:
    seen: list[str] = []

    async def main() -> None:
        lock, gate = anyio.Lock(), anyio.Event()

        async def job() -> None:
            async with lock:
                with anyio.CancelScope(shield=True), anyio.fail_after(20):
                    await gate.wait()
                seen.append("through")
            with anyio.move_on_after(0.001) as scope:
                await anyio.sleep_forever()
            seen.append("cut" if scope.cancelled_caught else "not cut")

        with anyio.CancelScope():  # noqa: ASYNC100 - it is the caller's, and none of the task's
            task = begin(job)
        assert task is not None
        gate.set()
        await task
        assert not lock.statistics().locked

    asyncio.run(main())
    assert seen == ["through", "cut"]


def test_nothing_is_said_of_what_is_left_of_it_when_the_event_loop_closes(recwarn: pytest.WarningsRecorder) -> None:
    said: list[Any] = []

    async def job() -> None:
        return None

    async def main() -> None:
        begin(job)

    loop = asyncio.new_event_loop()
    loop.set_exception_handler(lambda loop, context: said.append(context))
    loop.run_until_complete(main())
    loop.close()
    gc.collect()
    assert said == [] and not recwarn.list


def test_an_event_loop_that_ends_lets_it_clean_up() -> None:
    seen: list[str] = []

    async def job() -> None:
        try:
            await asyncio.get_running_loop().create_future()
        finally:
            await asyncio.sleep(0)
            seen.append("cleaned")

    async def main() -> None:
        assert begin(job) is not None

    asyncio.run(main())
    assert seen == ["cleaned"]
