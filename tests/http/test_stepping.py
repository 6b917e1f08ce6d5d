"""Awaiting what may have no need to wait: who is told of a wait, when, and that nothing else is changed by it."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest

from resilient.http.stepping import TURNS, told_of_waiting

pytestmark = pytest.mark.anyio


async def test_what_waits_for_nothing_is_over_at_once() -> None:
    told: list[str] = []

    async def work() -> str:
        told.append("worked")
        return "value"

    assert await told_of_waiting(work(), lambda: told.append("waits")) == "value"
    assert told == ["worked"]


async def test_one_is_told_once_and_before_it_waits() -> None:
    told: list[str] = []
    over = anyio.Event()

    async def work() -> str:
        told.append("worked")
        await over.wait()
        await anyio.sleep(0.001)
        return "value"

    def waits() -> None:
        told.append("waits")
        over.set()

    assert await told_of_waiting(work(), waits) == "value"
    assert told == ["worked", "waits"]


async def test_an_error_is_raised_as_it_is() -> None:
    error = ValueError("broken")

    async def work(pause: float | None) -> None:
        if pause is not None:
            await anyio.sleep(pause)
        raise error

    for pause in (None, 0.001):
        with pytest.raises(ValueError, match="broken") as raised:
            await told_of_waiting(work(pause), bool)
        assert raised.value is error and error.__context__ is None


async def test_a_cancellation_reaches_it_where_it_waits() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        finally:
            ends.append("ended")

    with anyio.move_on_after(0.01) as scope:
        await told_of_waiting(work(), lambda: ends.append("waits"))
    assert scope.cancelled_caught and ends == ["waits", "ended"]


async def test_scopes_and_timers_hold_from_its_beginning_on() -> None:
    async def work() -> str:
        with anyio.move_on_after(0.01):
            await anyio.sleep_forever()
        async with anyio.create_task_group() as group:
            group.start_soon(anyio.sleep, 0.001)
        return "value"

    assert await told_of_waiting(work(), bool) == "value"


@pytest.mark.parametrize("anyio_backend", ["asyncio"])
@pytest.mark.parametrize(("turns", "told"), [(1, 0), (TURNS - 1, 0), (TURNS, 1), (3 * TURNS, 1)])
async def test_to_let_others_run_is_no_wait_for_a_while(anyio_backend: str, turns: int, told: int) -> None:
    calls: list[int] = []

    async def work() -> None:
        for _ in range(turns):
            await asyncio.sleep(0)

    await told_of_waiting(work(), lambda: calls.append(1))
    assert len(calls) == told


async def test_what_nobody_awaits_any_more_is_closed() -> None:
    ends: list[str] = []

    async def work() -> None:
        try:
            await anyio.sleep_forever()
        except GeneratorExit:
            ends.append("closed")
            raise

    steps: Any = told_of_waiting(work(), bool)
    steps.send(None)
    steps.close()
    assert ends == ["closed"]
