"""The signal that ends a service: the load balancer learns of it first, the server afterwards."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from resilient import Resilience
from resilient.asgi import Drain, sigterm
from resilient.events import DrainChanged
from resilient.testing import FakeClock, RecordingListener

NUMBER = signal.SIGUSR1
HARMLESS = signal.SIGWINCH  # whose default is to do nothing

pytestmark = pytest.mark.anyio


@pytest.fixture
def served() -> Iterator[list[int]]:
    """What the server has been told; its handlers are put back."""
    told: list[int] = []
    before = {number: signal.getsignal(number) for number in (NUMBER, HARMLESS)}
    signal.signal(NUMBER, lambda number, frame: told.append(number))
    yield told
    for number, handler in before.items():
        signal.signal(number, handler)


@asynccontextmanager
async def running(resilience: Resilience, **settings: Any) -> AsyncIterator[None]:
    """From the start of a server to its end."""
    app = Starlette()
    resilience.install(app, drain=Drain(**{"signals": [NUMBER], "delay": 5, "budget": 10, **settings}))
    app.build_middleware_stack()
    async with resilience.leaving.life():
        yield


async def ticks() -> None:
    """Let the handler of a signal, and what it has asked the event loop for, take their course."""
    for _ in range(5):
        await anyio.lowlevel.checkpoint()
        await anyio.sleep(0)


async def test_readiness_fails_first_and_the_server_is_told_afterwards(
    served: list[int], resilience: Resilience, clock: FakeClock, listener: RecordingListener
) -> None:
    async with running(resilience):
        signal.raise_signal(NUMBER)
        await ticks()
        assert resilience.draining and served == []
        await anyio.sleep(4.9)
        assert served == [] and not resilience.drain_closing.is_set()
        await anyio.sleep(0.2)
        assert served == [NUMBER]
        # The server looks only now and then whether it is to stop; whoever comes meanwhile is served.
        assert not resilience.drain_closing.is_set()
        await anyio.sleep(1)
        assert resilience.drain_closing.is_set()
    begun = listener.of(DrainChanged)[0]
    assert (begun.what, begun.by, begun.why) == ("begun", "SIGUSR1", "signal")
    assert signal.getsignal(NUMBER).__name__ == "<lambda>"  # type: ignore[union-attr]


@pytest.mark.parametrize(("same", "expected"), [(60.0, []), (0.0, [NUMBER])])
async def test_a_second_signal_passes_unless_it_is_the_first_one_once_more(
    same: float, expected: list[int], served: list[int], resilience: Resilience, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sigterm, "SAME", same)
    async with running(resilience):
        signal.raise_signal(NUMBER)
        await ticks()
        signal.raise_signal(NUMBER)
        await ticks()
        assert served == expected
        await anyio.sleep(6)
        assert served == [NUMBER]
        signal.raise_signal(NUMBER)  # what comes after the server was told is its own affair
        await ticks()
        assert served == [NUMBER] * 2


async def test_who_was_never_ready_has_nothing_to_be_noticed(served: list[int], resilience: Resilience, clock: FakeClock) -> None:
    """While the start-up waits for something /readyz is 503, and nobody is sent here."""
    resilience.health.on_startup(anyio.sleep_forever, "gate")
    async with running(resilience):
        assert not resilience.startup_complete
        signal.raise_signal(NUMBER)
        await ticks()
        assert resilience.draining and served == [NUMBER]


async def test_services_that_share_a_process_have_their_delays_at_the_same_time(
    served: list[int], resilience: Resilience, clock: FakeClock
) -> None:
    other, third = Resilience(clock=clock), Resilience(clock=clock)
    async with running(resilience, delay=5), running(other, delay=7), running(third, delay=3):
        signal.raise_signal(NUMBER)
        await ticks()
        assert resilience.draining and other.draining and third.draining and served == []
        await anyio.sleep(6.9)
        assert served == []
        await anyio.sleep(0.2)
        assert served == [NUMBER]
    assert signal.getsignal(NUMBER).__name__ == "<lambda>"  # type: ignore[union-attr]


async def test_after_a_drain_by_hand_nobody_waits_once_more(served: list[int], resilience: Resilience, clock: FakeClock) -> None:
    async with running(resilience):
        await resilience.drain(delay=3)
        signal.raise_signal(NUMBER)
        await ticks()
        assert served == []
        await anyio.sleep(2.1)
        assert served == [NUMBER]


async def test_where_nobody_handled_it_what_is_under_way_ends_first(resilience: Resilience, served: list[int], clock: FakeClock) -> None:
    signal.signal(HARMLESS, signal.SIG_DFL)
    async with running(resilience, signals=[HARMLESS]):
        resilience.leaving.inside.add(layer := Layered())
        signal.raise_signal(HARMLESS)
        await ticks()
        await anyio.sleep(8)
        assert resilience.drain_closing.is_set()
        assert signal.getsignal(HARMLESS) != signal.SIG_DFL
        resilience.leaving.inside.discard(layer)
        await anyio.sleep(1)
        assert signal.getsignal(HARMLESS) == signal.SIG_DFL


class Layered:
    is_gone = False
    _outer = None
    _scope = {"type": "http", "path": "/", "method": "GET"}  # noqa: RUF012


async def test_a_service_that_ends_without_a_signal_gives_the_handler_back(
    served: list[int], resilience: Resilience, clock: FakeClock
) -> None:
    before = signal.getsignal(NUMBER)
    async with running(resilience):
        assert signal.getsignal(NUMBER) != before
    assert signal.getsignal(NUMBER) == before


async def test_whoever_stands_in_front_by_then_stays(served: list[int], resilience: Resilience, clock: FakeClock) -> None:
    async with running(resilience):
        ours: Any = signal.getsignal(NUMBER)
        front: list[int] = []

        def in_front(number: int, frame: Any) -> None:
            front.append(number)
            ours(number, frame)

        signal.signal(NUMBER, in_front)
    assert signal.getsignal(NUMBER) is in_front
    signal.raise_signal(NUMBER)
    assert front == served == [NUMBER]


async def test_a_handler_of_the_event_loop_waits_as_well(served: list[int], resilience: Resilience, anyio_backend_name: str) -> None:
    """As hypercorn and granian have it. In real time: the loop hears of a signal through a socket."""
    if anyio_backend_name != "asyncio":
        pytest.skip("trio has no handlers of its own")
    told: list[str] = []
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(NUMBER, told.append, "told")
    try:
        async with running(resilience_in_real_time := Resilience(), delay=0.2):
            signal.raise_signal(NUMBER)
            with anyio.fail_after(10):
                await resilience_in_real_time.drain_begun.wait()
                assert told == []
                while not told:
                    await anyio.sleep(0.01)
        async with running(resilience_in_real_time):
            pass
        signal.raise_signal(NUMBER)
        with anyio.fail_after(10):
            while told != ["told"] * 2:
                await anyio.sleep(0.01)
    finally:
        loop.remove_signal_handler(NUMBER)


async def test_a_loop_that_tells_nobody_whom_it_calls_is_left_alone(
    served: list[int], resilience: Resilience, anyio_backend_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """As uvloop does, whose handler is a method of the loop."""
    if anyio_backend_name != "asyncio":
        pytest.skip("uvloop is a loop of asyncio")
    loop: Any = asyncio.get_running_loop()
    signal.signal(NUMBER, loop.call_later)  # any method of it
    async with running(Resilience()):
        assert signal.getsignal(NUMBER) == loop.call_later
    assert "SIGUSR1" in caplog.text and "preStop" in caplog.text


async def test_a_loop_that_is_gone_waits_for_nothing(served: list[int], resilience: Resilience) -> None:
    gone = asyncio.new_event_loop()
    gone.close()
    chain = sigterm.SignalChain(resilience.leaving, Drain(signals=[NUMBER]), gone)
    chain.take()
    signal.raise_signal(NUMBER)
    signal.raise_signal(NUMBER)
    assert served == [NUMBER] * 2
    chain.give_back()


async def test_while_all_is_switched_off_no_handler_is_touched(served: list[int], resilience: Resilience, clock: FakeClock) -> None:
    before = signal.getsignal(NUMBER)
    resilience.enabled = False
    async with running(resilience):
        assert signal.getsignal(NUMBER) == before


def test_outside_the_main_thread_no_handler_is_touched(served: list[int], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "resilient")
    before = signal.getsignal(NUMBER)
    app, resilience = Starlette(), Resilience()
    resilience.install(app, drain=Drain(signals=[NUMBER]))
    with TestClient(app):
        assert signal.getsignal(NUMBER) == before
    assert "main thread" in caplog.text


@pytest.mark.parametrize(("drain", "expected"), [(None, ()), (True, (signal.SIGTERM,)), (Drain(signals=[signal.SIGINT]), (signal.SIGINT,))])
async def test_signals_are_asked_for(drain: Any, expected: Any, resilience: Resilience, ask: Any) -> None:
    app = Starlette()
    resilience.install(app, drain=drain)
    await ask(app, "/livez")
    assert resilience.leaving.settings is not None
    assert resilience.leaving.settings.signals == expected
    assert threading.current_thread() is threading.main_thread()
