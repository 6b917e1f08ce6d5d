"""The start-up: what it waits for, and for how long."""

from __future__ import annotations

import logging
from itertools import pairwise
from typing import Any

import anyio
import pytest

from resilient import Resilience
from resilient.events import StartupChanged
from resilient.testing import FakeClock, RecordingListener

pytestmark = pytest.mark.anyio


async def test_without_anything_to_wait_for_it_is_over_before_it_begins(resilience: Resilience, script: Any) -> None:
    assert resilience.startup_complete
    resilience.check("disk", script(None))
    assert resilience.startup_complete


async def test_it_waits_for_tasks_and_for_checks_to_be_well_once(
    resilience: Resilience, script: Any, listener: RecordingListener, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="resilient")
    warm: list[float] = []

    @resilience.on_startup
    async def warm_caches() -> None:
        await anyio.sleep(5)
        warm.append(clock.now())

    resilience.check("db", script(False, False, False, False, True), startup=True, interval=60)
    assert not resilience.startup_complete, "declared, and not begun"
    start = clock.now()
    async with resilience.health.running():
        await anyio.sleep(4.5)
        assert resilience.health.startup.waiting == ("task warm_caches",), "a check that is waited for is asked every second"
        await anyio.sleep(1)
        assert warm == [start + 5]
        assert resilience.startup_complete
        (event,) = listener.of(StartupChanged)
        assert (event.complete, event.waiting, event.seconds) == (True, (), 5.0)
        await anyio.sleep(100)
    assert warm == [start + 5]
    (record,) = [record for record in caplog.records if getattr(record, "event", "") == "startup_changed"]
    assert (record.levelname, record.getMessage()) == ("INFO", "the service has started after 5.0 s")


@pytest.mark.parametrize("anyway", [True, False])
async def test_when_its_time_is_over_it_says_so_and_starts_or_does_not(
    anyway: bool, clock: FakeClock, listener: RecordingListener, script: Any, caplog: pytest.LogCaptureFixture
) -> None:
    resilience = Resilience(clock=clock, listeners=[listener], startup_timeout=30, start_anyway=anyway)
    db = script(*[False] * 50, True)
    resilience.check("db", db, startup=True, interval=10)
    async with resilience.health.running():
        await anyio.sleep(29)
        assert not resilience.startup_complete and not listener.of(StartupChanged)
        await anyio.sleep(2)
        assert resilience.startup_complete is anyway
        (event,) = listener.of(StartupChanged)
        assert (event.complete, event.waiting, event.seconds) == (anyway, ("check db",), 30.0)
        said = "has started" if anyway else "has not started"
        assert f"the service {said} after 30.0 s, without check db" in caplog.text
        asked = len(db.asked)
        await anyio.sleep(50)
        # Nobody waits any more; or somebody still does.
        assert len(db.asked) - asked in (range(4, 7) if anyway else range(17, 56))
        await anyio.sleep(500)
        assert resilience.startup_complete
    assert [event.complete for event in listener.of(StartupChanged)] == ([True] if anyway else [False, True])


async def test_a_task_that_fails_is_tried_again_a_little_later_each_time(resilience: Resilience, clock: FakeClock) -> None:
    tried: list[float] = []

    async def prime() -> None:
        tried.append(clock.now())
        if len(tried) < 7:
            raise ConnectionError("not there yet")

    assert resilience.on_startup(prime, name="prices") is prime
    async with resilience.health.running():
        await anyio.sleep(45)
        assert resilience.startup_complete
        await anyio.sleep(45)
    assert [later - earlier for earlier, later in pairwise(tried)] == [1, 2, 4, 8, 10, 10]


async def test_a_plain_function_may_hand_on_what_is_to_be_awaited(resilience: Resilience) -> None:
    done = []

    async def prime(what: str) -> None:
        done.append(what)

    resilience.on_startup(lambda: prime("catalog"))
    resilience.on_startup(lambda: prime("prices"))
    assert resilience.health.startup.waiting == ("task <lambda>", "task <lambda> 2")
    async with resilience.health.running():
        await anyio.sleep(0.1)
        assert sorted(done) == ["catalog", "prices"]


async def test_each_start_is_a_start(resilience: Resilience, script: Any, listener: RecordingListener) -> None:
    ran = script(1.0)
    resilience.on_startup(ran, name="warm")
    for number in (1, 2):
        async with resilience.health.running():
            assert not resilience.startup_complete
            await anyio.sleep(2)
            assert resilience.startup_complete
        assert len(ran.asked) == number
    assert len(listener.of(StartupChanged)) == 2


async def test_what_is_done_by_hand_holds(resilience: Resilience, script: Any) -> None:
    resilience.startup_complete = False
    assert not resilience.startup_complete
    resilience.check("db", script(False), startup=True)
    async with resilience.health.running():
        resilience.startup_complete = True
        assert resilience.startup_complete
        await anyio.sleep(100)
        resilience.startup_complete = False
        assert not resilience.startup_complete
    with pytest.raises(TypeError, match="startup_complete"):
        resilience.startup_complete = "yes"  # type: ignore[assignment]


async def test_where_it_goes_on_elsewhere_it_does_not_begin_again(resilience: Resilience, script: Any, listener: RecordingListener) -> None:
    """As where each request has an event loop of its own, and there is no lifespan."""
    quick, slow = script(None), script(1.0)
    resilience.on_startup(quick, name="quick")
    resilience.on_startup(slow, name="slow")
    for seconds in (0.5, 2.0, 2.0):
        run = resilience.health.begin()
        if run is not None:
            await anyio.sleep(seconds)
            await run.end()
    assert (len(quick.asked), len(slow.asked)) == (1, 2)
    assert resilience.startup_complete and not resilience.health.pending
    assert len(listener.of(StartupChanged)) == 1


async def test_its_settings_are_looked_at(resilience: Resilience, script: Any) -> None:
    with pytest.raises(TypeError, match="fn"):
        resilience.on_startup(3)  # type: ignore[type-var]
    with pytest.raises(ValueError, match="name"):
        resilience.on_startup(script(None), name="a b")
    resilience.on_startup(name="warm")(script(None))
    with pytest.raises(ValueError, match="already"):
        resilience.on_startup(script(None), name="warm")
    for _ in range(49):
        resilience.on_startup(script(None))
    with pytest.raises(ValueError, match="50 start-up tasks"):
        resilience.on_startup(script(None))


async def test_declared_while_it_lasts_it_is_waited_for_and_later_it_is_not(resilience: Resilience, script: Any) -> None:
    resilience.on_startup(script(1.0), name="first")
    second, third = script(2.0), script(None)
    async with resilience.health.running():
        await anyio.sleep(0.5)
        resilience.on_startup(second, name="second")
        await anyio.sleep(1.5)
        assert resilience.health.startup.waiting == ("task second",)
        await anyio.sleep(1)
        assert resilience.startup_complete
        resilience.on_startup(third, name="third")
        await anyio.sleep(1)
        assert resilience.startup_complete and third.asked == []
    async with resilience.health.running():
        await anyio.sleep(0.1)
        assert len(third.asked) == 1
