"""Work beside a caller: who is told of its task, when it begins, and how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import anyio
import pytest

from resilient import background
from resilient.background import Task, begin_task

pytestmark = pytest.mark.anyio


async def until(met: Callable[[], Any]) -> None:
    with anyio.fail_after(20):
        while not met():
            await anyio.sleep(0.001)


async def test_who_waits_for_it_knows_the_task_before_it_begins(anyio_backend_name: str) -> None:
    seen: list[Any] = []
    over = anyio.Event()

    async def job() -> None:
        seen.append("begun")
        await anyio.sleep(0)
        seen.append("over")
        over.set()

    task = begin_task(job, known=seen.append)
    at_once = anyio_backend_name == "asyncio"  # it is taken to its first wait
    assert seen == ([task, "begun"] if at_once else [task])
    await over.wait()
    assert seen == [task, "begun", "over"]
    assert task not in background._RUNNING


async def test_what_nobody_waits_for_begins_later() -> None:
    over = anyio.Event()

    async def job() -> None:
        over.set()

    begin_task(job)
    assert not over.is_set()
    await over.wait()


@pytest.mark.parametrize("waited_for", [False, True])
async def test_it_can_be_ended_while_it_waits(waited_for: bool) -> None:
    ends: list[str] = []

    async def job() -> None:
        ends.append("begun")
        try:
            await anyio.sleep_forever()
        finally:
            ends.append("ended")

    task = begin_task(job, lambda: ends.append("dropped"), (lambda task: None) if waited_for else None)
    await until(lambda: ends)
    task.cancel()
    await until(lambda: len(ends) > 1)
    assert ends == ["begun", "ended"] and task.cancelled


async def test_it_can_be_ended_before_it_has_begun() -> None:
    ends: list[str] = []

    async def job() -> None:
        ends.append("begun")

    begin_task(job, lambda: ends.append("dropped")).cancel()
    await until(lambda: ends)
    assert ends == ["dropped"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_it_is_dropped_where_the_loop_cancels_it_before_its_first_step(anyio_backend: str) -> None:
    ends: list[str] = []

    async def job() -> None:
        ends.append("begun")

    before = asyncio.all_tasks()
    begin_task(job, lambda: ends.append("dropped"))
    (task,) = asyncio.all_tasks() - before
    task.cancel()
    await asyncio.wait([task])
    assert ends == ["dropped"] and task.cancelled() and not background._RUNNING


def test_a_loop_that_never_comes_to_it_drops_nothing() -> None:
    """Who collects what is left of it may hold any lock."""
    ends: list[str] = []

    async def job() -> None:
        ends.append("begun")

    async def main() -> None:
        loop.stop()
        begin_task(job, lambda: ends.append("dropped"))

    loop = asyncio.new_event_loop()
    first = loop.create_task(main())
    loop.run_forever()
    assert first.done()
    pending = asyncio.all_tasks(loop)
    assert len(pending) == 1
    loop.close()
    for task in pending:
        task.get_coro().close()  # type: ignore[union-attr]
        task._log_destroy_pending = False  # type: ignore[attr-defined]
    assert not ends and not background._RUNNING


async def test_while_it_is_entered_it_does_not_end() -> None:
    steps: list[str] = []
    tasks: list[Task] = []

    async def job() -> None:
        with tasks[0]:
            tasks[0].cancel()
            await anyio.sleep(0.01)
            steps.append("closed")
        try:
            await anyio.sleep_forever()
        finally:
            steps.append("ended")

    begin_task(job, known=tasks.append)
    await until(lambda: len(steps) == 2)
    assert steps == ["closed", "ended"]


async def test_it_ends_after_what_is_shielded() -> None:
    steps: list[str] = []
    begun = anyio.Event()

    async def job() -> None:
        try:
            with anyio.CancelScope(shield=True):
                begun.set()
                await anyio.sleep(0.05)
                steps.append("shielded")
            await anyio.sleep_forever()
        finally:
            steps.append("ended")

    task = begin_task(job)
    await begun.wait()
    task.cancel()
    await until(lambda: len(steps) == 2)
    assert steps == ["shielded", "ended"]


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_what_goes_on_all_the_same_is_asked_again(anyio_backend: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "AGAIN", 0.01)
    asked: list[int] = []

    async def job() -> None:
        while len(asked) < 3:
            try:
                await anyio.sleep_forever()
            except asyncio.CancelledError:
                asked.append(1)

    task = begin_task(job)
    await anyio.sleep(0)
    task.cancel()
    await until(lambda: len(asked) == 3 and task not in background._RUNNING)


async def test_what_it_raises_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async def job() -> None:
        raise ValueError("broken")

    begin_task(job)
    await until(lambda: caplog.records)
    assert "work in the background failed" in caplog.text and not background._RUNNING


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
async def test_a_task_factory_makes_it(anyio_backend: str) -> None:
    made: list[Any] = []
    over = anyio.Event()

    def factory(loop: asyncio.AbstractEventLoop, coroutine: Coroutine[Any, Any, Any], **how: Any) -> asyncio.Task[Any]:
        made.append(coroutine)
        return asyncio.Task(coroutine, loop=loop, **how)

    async def job() -> None:
        over.set()

    loop = asyncio.get_running_loop()
    loop.set_task_factory(factory)
    try:
        begin_task(job, known=lambda task: None)
        assert not over.is_set()
        await over.wait()
    finally:
        loop.set_task_factory(None)
    assert len(made) == 1
