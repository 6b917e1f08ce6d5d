"""Checks that block: each in a thread of its own, in real time."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from resilient import Resilience, current_deadline
from resilient.health.asking import ask
from resilient.runtime import AsyncRuntime
from resilient.testing import FakeClock
from resilient.threads import Threads

pytestmark = pytest.mark.anyio

REQUEST: ContextVar[str] = ContextVar("request", default="none")


async def until(condition: Callable[[], bool]) -> None:
    with anyio.fail_after(20):
        while not condition():
            await anyio.sleep(0.005)


@pytest.fixture
def released() -> Iterator[threading.Event]:
    event = threading.Event()
    yield event
    event.set()


async def test_what_blocks_is_asked_in_a_thread_and_holds_up_no_event_loop(released: threading.Event) -> None:
    resilience, seen = Resilience(), []

    @resilience.check("disk", timeout=10)
    def disk() -> bool:
        seen.append((threading.current_thread(), current_deadline(), REQUEST.get()))
        return released.wait(10)

    REQUEST.set("somebody's")
    async with resilience.health.running():
        await until(lambda: bool(seen))
        thread, deadline, request = seen[0]
        assert thread is not threading.current_thread()
        assert deadline is not None and 0 < deadline.remaining <= 9.5
        assert request == "none", "whose request happened to come first is none of its business"
        assert resilience.checks["disk"].state == "unknown"
        released.set()
        await until(lambda: resilience.checks["disk"].state == "well")
    threads = resilience.health._threads
    assert threads is not None
    await until(lambda: threads.count == 0)


async def test_one_that_hangs_is_ill_is_not_asked_again_and_holds_up_no_end(released: threading.Event) -> None:
    resilience, asked = Resilience(), []

    def disk() -> None:
        asked.append(1)
        released.wait(60)

    resilience.check("disk", disk, interval=0.02, timeout=0.05, failures=2)
    async with resilience.health.running():
        await until(lambda: resilience.checks["disk"].state == "ill")
        await until(lambda: resilience.checks["disk"].reason == "the last call of it has not returned yet")
        assert len(asked) == 1
        began = time.monotonic()
    assert time.monotonic() - began < 20
    released.set()
    async with resilience.health.running():
        await until(lambda: resilience.checks["disk"].state == "well")


async def test_what_a_thread_raises_is_an_answer_and_what_it_hands_on_is_awaited(released: threading.Event) -> None:
    resilience = Resilience()

    async def later() -> bool:
        await anyio.sleep(0)
        return False

    def plain() -> Any:
        return later()

    def broken() -> None:
        raise OSError("disk full of secrets")

    resilience.check("broken", broken)
    resilience.check("later", plain)
    async with resilience.health.running():
        await until(lambda: all(check.state == "ill" for check in resilience.checks.values()))
    assert [check.reason for check in resilience.checks.values()] == ["OSError", "returned False"]


async def test_as_many_may_hang_as_there_may_be(released: threading.Event) -> None:
    """They have threads of their own: neither the app's nor those of the stores."""
    resilience, begun = Resilience(), []

    def hang() -> None:
        begun.append(1)
        released.wait(60)

    for number in range(49):
        resilience.check(f"hangs-{number}", hang, timeout=30)
    resilience.check("disk", lambda: None)
    async with resilience.health.running():
        await until(lambda: len(begun) == 49 and resilience.checks["disk"].state == "well")


async def test_without_a_thread_to_be_had_it_is_asked_again_next_time() -> None:
    resilience, none = Resilience(), Threads(limit=0)
    check = resilience.health.declare("disk", lambda: None)
    runtime = AsyncRuntime(resilience.clock)
    for _ in range(2):
        answer = await ask(check, runtime, none)
        assert (answer.result, answer.reason, check.busy) == ("raised", "ThreadsBusy", False)
    assert (await ask(check, runtime, Threads())).result == "well"


async def test_where_only_one_thread_lives_by_the_clock_it_is_asked_there(clock: FakeClock) -> None:
    resilience, seen = Resilience(clock=clock), []
    resilience.check("disk", lambda: seen.append(threading.current_thread()))
    resilience.on_startup(lambda: seen.append(threading.current_thread()), name="warm")
    async with resilience.health.running():
        await anyio.sleep(1)
        assert resilience.startup_complete
    assert seen == [threading.current_thread()] * 2


async def test_a_check_declared_in_another_thread_is_asked_on_the_loop() -> None:
    resilience, asked = Resilience(), []

    async def second() -> None:
        asked.append(threading.current_thread())

    async def first() -> Any: ...

    resilience.check("first", first)
    async with resilience.health.running():
        await until(lambda: resilience.checks["first"].state == "well")
        thread = threading.Thread(target=resilience.check, args=("second", second))
        thread.start()
        await until(lambda: bool(asked))
        thread.join()
    assert asked == [threading.current_thread()]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@pytest.mark.parametrize("error", [SystemExit, BaseException])
async def test_a_check_that_wants_to_end_the_program_is_ill_and_gives_its_thread_back(error: type[BaseException]) -> None:
    resilience = Resilience()

    def disk() -> None:
        raise error("it is over")

    resilience.check("disk", disk, interval=10, timeout=5)
    async with resilience.health.running():
        await until(lambda: resilience.checks["disk"].age < 100)
        assert (resilience.checks["disk"].state, resilience.checks["disk"].reason) == ("ill", error.__name__)
    threads = resilience.health._threads
    assert threads is not None
    await until(lambda: threads.count == 0)
