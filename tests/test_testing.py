"""What is shipped for users' tests: the clock that jumps, the transport that fails, the listener, the reset."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import httpx
import httpx2
import pytest
import trio

from resilient import Bulkhead, BulkheadFull, Outcome, Pipeline, Resilience, Timeout
from resilient.clock import SYSTEM_CLOCK, Clock
from resilient.events import CallRejected, CircuitChanged
from resilient.runtime import drive
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener, resetting

pytest_plugins = ["pytester"]


# -- the clock ---------------------------------------------------------------------------------------------------


def test_both_clocks_are_clocks() -> None:
    assert isinstance(FakeClock(), Clock) and isinstance(SYSTEM_CLOCK, Clock)
    event = threading.Event()
    assert SYSTEM_CLOCK.wait(event, 0) is False
    event.set()
    assert SYSTEM_CLOCK.wait(event, None) is True


def test_it_advances_when_asked_to() -> None:
    clock = FakeClock(start=5)
    clock.advance(1.5)
    clock.sleep(1)
    assert clock.now() == 7.5
    with pytest.raises(ValueError, match="^seconds: time does not go back"):
        clock.advance(-1)


def test_what_was_planned_happens_in_order_at_its_time() -> None:
    clock, seen = FakeClock(start=0), []
    clock.call_later(2, lambda: seen.append(("b", clock.now())))
    clock.call_later(1, lambda: (seen.append(("a", clock.now())), clock.call_later(0.5, lambda: seen.append(("nested", clock.now())))))
    clock.call_later(9, lambda: seen.append(("later", clock.now())))
    clock.advance(3)
    assert seen == [("a", 1), ("nested", 1.5), ("b", 2)] and clock.now() == 3


def test_a_wait_ends_when_something_planned_ends_it() -> None:
    clock, event = FakeClock(start=0), threading.Event()
    clock.call_later(2, event.set)
    assert clock.wait(event, 5) is True and clock.now() == 2
    assert clock.wait(threading.Event(), 5) is False and clock.now() == 7
    with pytest.raises(RuntimeError, match="a wait without end"):
        clock.wait(threading.Event(), None)
    clock.call_later(1, (other := threading.Event()).set)
    assert clock.wait(other, None) is True and clock.now() == 8


def test_a_synchronous_call_meets_the_rest_of_the_world() -> None:
    clock = FakeClock()
    bulkhead = Bulkhead(max_concurrent=1)
    pipeline = Pipeline(bulkhead, clock=clock)
    other = Pipeline(bulkhead, clock=clock)
    call = other.begin(int, (), {}, sync=True)
    drive(other.open(call))
    clock.call_later(2, lambda: other.close(call, Outcome.SUCCESS, None))
    begun = clock.now()
    assert pipeline.call_sync(int, "5") == 5 and clock.now() - begun == pytest.approx(2)
    begun = clock.now()
    call = other.begin(int, (), {}, sync=True)
    drive(other.open(call))
    with pytest.raises(BulkheadFull):
        pipeline.call_sync(int, "5")
    assert clock.now() - begun == pytest.approx(5)
    other.close(call, Outcome.SUCCESS, None)


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_an_hour_passes_at_once_and_again(backend: str) -> None:
    clock = FakeClock()
    pipeline = Pipeline(Timeout(total=3600), clock=clock)

    async def main() -> None:
        with pytest.raises(TimeoutError):
            await pipeline.call(anyio.sleep_forever)
        await anyio.sleep(60)

    for run in range(1, 4):
        if backend == "asyncio":
            with asyncio.Runner(loop_factory=clock.loop) as runner:
                runner.run(main())
        else:
            trio.run(main, clock=clock.trio_clock())
        assert clock.now() == pytest.approx(1000 + run * 3660)
        clock.advance(0)
    clock.advance(40)
    assert clock.now() == pytest.approx(1000 + 3 * 3660 + 40)


def test_planned_acts_meet_a_running_loop() -> None:
    clock, seen = FakeClock(), []

    async def main() -> None:
        clock.call_later(2, lambda: seen.append(clock.now()))
        await asyncio.sleep(5)

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    assert seen == pytest.approx([1002])


# -- the transport -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [httpx, httpx2])
def test_a_script_of_answers(module: Any) -> None:
    answers = [503, module.ConnectError("refused"), ValueError, lambda request: module.Response(201, text=request.method), 200]
    transport = FaultyTransport(answers)
    with module.Client(transport=transport, base_url="http://shop.example") as client:
        assert client.get("/").status_code == 503
        with pytest.raises(module.ConnectError, match="refused"):
            client.get("/")
        with pytest.raises(ValueError, match="scripted"):
            client.get("/")
        assert client.post("/").text == "POST"
        assert [client.get("/").status_code for _ in range(3)] == [200] * 3
    assert len(transport.requests) == 7 and transport.requests[3].method == "POST"


@pytest.mark.anyio
@pytest.mark.parametrize("module", [httpx, httpx2])
async def test_the_same_for_async_clients(anyio_backend: Any, clock: FakeClock, module: Any) -> None:
    async def slowly(request: Any) -> Any:
        await anyio.sleep(3)
        return module.Response(202)

    transport = FaultyTransport([503, slowly, HANG], delay=1)
    begun = clock.now()
    async with module.AsyncClient(transport=transport, base_url="http://shop.example") as client:
        assert (await client.get("/")).status_code == 503
        assert (await client.get("/")).status_code == 202
        assert clock.now() - begun == pytest.approx(5)
        with anyio.move_on_after(60) as scope:
            await client.get("/")
        assert scope.cancelled_caught


def test_each_error_is_a_new_one() -> None:
    transport = FaultyTransport([httpx.ConnectError("refused")])
    errors = []
    with httpx.Client(transport=transport) as client:
        for _ in range(3):
            with pytest.raises(httpx.ConnectError) as caught:
                client.get("http://shop.example")
            errors.append(caught.value)
    assert len(set(map(id, errors))) == 3


def test_what_a_script_cannot_be() -> None:
    with pytest.raises(ValueError, match="^answers"):
        FaultyTransport([])
    with httpx.Client(transport=FaultyTransport([HANG])) as client, pytest.raises(RuntimeError, match="^HANG"):
        client.get("http://shop.example")
    assert repr(HANG) == "HANG"


# -- the listener ------------------------------------------------------------------------------------------------


def test_the_listener_remembers() -> None:
    listener = RecordingListener()
    resilience = Resilience(listeners=[listener])
    shop = resilience.dependency("shop")
    shop.breaker.open()  # type: ignore[union-attr]
    with pytest.raises(Exception, match="circuit open"):
        shop.call_sync(int)
    assert [type(event) for event in listener.events] == [CircuitChanged, CallRejected]
    assert listener.of(CallRejected) == listener.events[1:]
    listener.clear()
    assert listener.events == []


# -- the reset ---------------------------------------------------------------------------------------------------

OPTIONS = ("-p", "no:cacheprovider", "-W", "error", "-o", "asyncio_default_fixture_loop_scope=function")
USER_CONFTEST = """
from resilient import Bulkhead, CircuitBreaker, Resilience
from resilient.testing import resetting

resilience = Resilience()
shop = resilience.dependency("shop", CircuitBreaker(1))
reset = resetting(resilience)
"""
USER_TEST = """
import pytest
from conftest import resilience, shop

@pytest.mark.parametrize("turn", [1, 2])
def test_breaks_it(turn):
    assert shop.state == "closed"
    with pytest.raises(KeyError):
        shop.call_sync({}.__getitem__, "missing")
    assert shop.state == "open"

class TestInAClass:
    def test_it_is_whole_again(self):
        assert shop.state == "closed" and shop.call_sync(int) == 0
"""


def test_a_fixture_resets_between_tests(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(USER_CONFTEST)
    pytester.makepyfile(USER_TEST)
    pytester.runpytest_inprocess(*OPTIONS).assert_outcomes(passed=3)


def test_what_cannot_be_reset_is_refused() -> None:
    with pytest.raises(TypeError, match="^targets"):
        resetting(object())  # type: ignore[arg-type]


@pytest.mark.parametrize("answer", ["200", None, True, httpx.Response(200)])
def test_a_script_that_cannot_be_played_is_refused(answer: Any) -> None:
    """A response serves one request, and a script may need it again."""
    with pytest.raises(TypeError, match="answers: expected statuses"):
        FaultyTransport([answer])
    with pytest.raises(TypeError, match="answers: expected them in a list, got 503"):
        FaultyTransport(503)  # type: ignore[arg-type]
