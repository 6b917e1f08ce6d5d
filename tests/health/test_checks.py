"""Checks in the background: when they are asked, what their answers mean, who is told."""

from __future__ import annotations

import asyncio
import logging
import math
from functools import partial
from typing import Any

import anyio
import pytest

from resilient import Fallback, Pipeline, Resilience, Timeout, current_deadline
from resilient.events import CheckChanged
from resilient.health import Health
from resilient.testing import FakeClock, RecordingListener

pytestmark = pytest.mark.anyio


async def ok() -> None:
    """All is well."""


def changes(listener: RecordingListener) -> list[tuple[str, str, str, str]]:
    return [(event.check, event.old, event.new, event.reason) for event in listener.of(CheckChanged)]


async def test_it_is_asked_at_once_and_then_every_interval_give_or_take_a_tenth(
    resilience: Resilience, script: Any, clock: FakeClock
) -> None:
    disk = script(None)
    resilience.check("disk", disk, interval=10)
    assert resilience.checks["disk"].state == "unknown"
    assert resilience.checks["disk"].age == math.inf
    start = clock.now()
    async with resilience.health.running():
        await anyio.sleep(100)
        assert resilience.checks["disk"].state == "well"
        assert 0 <= resilience.checks["disk"].age <= 11
        assert resilience.checks["disk"].since == start
    gaps = [later - earlier for earlier, later in zip(disk.asked, disk.asked[1:], strict=False)]
    assert disk.asked[0] == start
    assert 9 <= len(gaps) <= 11 and all(9 <= gap <= 11 for gap in gaps)
    assert len(set(gaps)) > 1, "replicas that were started together must not stay together"


async def test_nothing_is_left_after_the_end(resilience: Resilience, script: Any) -> None:
    disk = script(0.5)
    resilience.check("disk", disk, interval=1)
    async with resilience.health.running():
        await anyio.sleep(0.2)
        assert disk.inside == 1
    assert disk.inside == 0, "it was cancelled"
    asked = len(disk.asked)
    await anyio.sleep(100)
    assert len(disk.asked) == asked


async def test_it_decorates_and_leaves_the_function_what_it_is(resilience: Resilience) -> None:
    @resilience.check("disk", interval=5)
    async def disk() -> bool:
        return True

    assert await disk() is True
    one = resilience.checks["disk"]
    assert (one.name, one.interval, one.timeout, one.required, one.startup, one.dependency) == ("disk", 5.0, 2.0, False, False, None)
    assert repr(one) == "<Check disk unknown>"


@pytest.mark.parametrize(
    ("answer", "result", "reason"),
    [
        (False, "ill", "returned False"),
        (ConnectionError("password=hunter2"), "raised", "ConnectionError"),
        (3.0, "timeout", "no answer within 2 s"),
        (0, "ill", "returned int, which is none of None, True and False"),
        (type("Answer" * 30, (), {})(), "ill", f"returned {'Answer' * 16}Answ, which is none of None, True and False"),
        (asyncio.CancelledError(), "raised", "CancelledError"),
    ],
)
async def test_what_answers_mean(
    answer: Any, result: str, reason: str, resilience: Resilience, script: Any, listener: RecordingListener, anyio_backend_name: str
) -> None:
    if isinstance(answer, asyncio.CancelledError) and anyio_backend_name == "trio":
        pytest.skip("trio has no such error")
    resilience.check("disk", script(answer), failures=2, interval=5)
    async with resilience.health.running():
        await anyio.sleep(20)
        one = resilience.checks["disk"]
        assert (one.state, one.reason) == ("ill", reason)
    assert changes(listener) == [("disk", "unknown", "ill", reason)]
    page = resilience.metrics.render()[0].decode()
    assert f'resilient_checks_total{{check="disk",result="{result}"}}' in page
    assert 'resilient_check_state{check="disk",state="ill"} 1.0' in page


async def test_one_blip_changes_nothing_and_a_row_does(resilience: Resilience, script: Any, listener: RecordingListener) -> None:
    resilience.check("disk", script(True, False, True, False, False, True, False, False, False, True, True, True), interval=10, successes=2)
    async with resilience.health.running():
        await anyio.sleep(15)
        assert (resilience.checks["disk"].state, resilience.checks["disk"].failing) == ("well", 1)
        await anyio.sleep(120)
    assert changes(listener) == [
        ("disk", "unknown", "well", ""),
        ("disk", "well", "ill", "returned False"),
        ("disk", "ill", "well", ""),
    ]


async def test_the_text_of_an_error_is_logged_once_a_row_and_told_nowhere_else(
    resilience: Resilience, script: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="resilient")
    error = ConnectionError("no route to db-7")
    resilience.check("db", script(True, error, error, error, error, True, error), interval=10)
    async with resilience.health.running():
        await anyio.sleep(65)
    told = [record for record in caplog.records if "no route" in caplog.handler.format(record)]
    assert [record.getMessage() for record in told] == ["check db: ConnectionError"] * 2
    moved = [record for record in caplog.records if getattr(record, "event", "") == "check_changed"]
    assert [(record.levelname, record.getMessage()) for record in moved] == [
        ("INFO", "check db: unknown -> well"),
        ("WARNING", "check db: well -> ill (ConnectionError)"),
        ("INFO", "check db: ill -> well"),
    ]


async def test_a_check_that_takes_longer_than_its_interval_never_overlaps_with_itself(resilience: Resilience, script: Any) -> None:
    slow, quick = script(5.0), script(None)
    resilience.check("slow", slow, interval=1, timeout=20)
    resilience.check("quick", quick, interval=1)
    async with resilience.health.running():
        await anyio.sleep(60)
    assert slow.most == 1
    assert 8 <= len(slow.asked) <= 12
    assert len(quick.asked) > 50, "nobody waits for somebody else's check"


async def test_an_answer_that_grew_old_is_no_answer(
    resilience: Resilience, script: Any, listener: RecordingListener, clock: FakeClock
) -> None:
    resilience.check("disk", script(None), interval=10, timeout=2)
    async with resilience.health.running():
        await anyio.sleep(5)
    await anyio.sleep(31 - 5)
    assert resilience.checks["disk"].state == "well"
    await anyio.sleep(2)
    assert resilience.checks["disk"].state == "unknown"
    page = resilience.metrics.render()[0].decode()
    assert 'resilient_check_state{check="disk",state="unknown"} 1.0' in page
    assert changes(listener)[1:] == [("disk", "well", "unknown", "no result lately")]
    async with resilience.health.running():
        await anyio.sleep(1)
        assert resilience.checks["disk"].state == "well"


async def test_a_check_that_does_not_let_itself_be_cancelled_is_unknown_in_the_end_and_holds_up_nobody(
    resilience: Resilience, script: Any, caplog: pytest.LogCaptureFixture, clock: FakeClock
) -> None:
    ended = anyio.Event()

    async def stubborn() -> None:
        with anyio.CancelScope(shield=True):
            await anyio.sleep(200)
        ended.set()

    resilience.check("stubborn", stubborn)
    resilience.check("disk", script(None))
    async with resilience.health.running():
        await anyio.sleep(100)
        assert resilience.checks["stubborn"].state == "unknown"
        assert resilience.checks["disk"].state == "well"
        asked_to_end = clock.now()
    assert clock.now() - asked_to_end <= 6
    assert "does not let itself be cancelled" in caplog.text
    await ended.wait()


async def test_its_calls_keep_to_its_time(resilience: Resilience) -> None:
    left: list[float] = []

    async def disk() -> None:
        deadline = current_deadline()
        assert deadline is not None
        left.append(deadline.remaining)

    resilience.check("disk", disk, timeout=1.5)
    async with resilience.health.running():
        await anyio.sleep(1)
    assert left == [pytest.approx(0.95 * 1.5)]


async def test_a_check_that_is_answered_by_a_fallback_is_ill(resilience: Resilience) -> None:
    async def dead() -> None:
        raise ConnectionError

    reviews = resilience.dependency("reviews", Fallback([]), Timeout(total=1))

    async def probe() -> None:
        await reviews.call(dead)

    resilience.check("reviews", probe)
    async with resilience.health.running():
        await anyio.sleep(1)
        assert resilience.checks["reviews"].reason.startswith("answered static (")
        assert resilience.checks["reviews"].state == "ill"


async def test_declared_while_the_service_is_at_work_it_is_asked_from_then_on(
    resilience: Resilience, script: Any, clock: FakeClock
) -> None:
    first, second = script(None), script(None)
    resilience.check("first", first)
    async with resilience.health.running():
        await anyio.sleep(5)
        resilience.check("second", second)
        now = clock.now()
        await anyio.sleep(1)
        assert second.asked == [now]
    assert (first.inside, second.inside) == (0, 0)


async def test_two_lives_one_after_the_other_and_one_within_the_other(resilience: Resilience, script: Any) -> None:
    disk = script(None)
    resilience.check("disk", disk, interval=10)
    for _ in range(2):
        async with resilience.health.running(), resilience.health.running():
            await anyio.sleep(0.1)
    assert len(disk.asked) == 2


async def test_without_a_check_nothing_runs(resilience: Resilience) -> None:
    assert resilience.health.begin() is None
    assert not resilience.health.pending


async def test_reset_forgets_the_answers_and_goes_on(resilience: Resilience, script: Any, listener: RecordingListener) -> None:
    resilience.check("disk", script(False, True))
    async with resilience.health.running():
        await anyio.sleep(1)
        resilience.reset()
        assert resilience.checks["disk"].state == "unknown"
        await anyio.sleep(15)
        assert resilience.checks["disk"].state == "well"
    assert [change[1:3] for change in changes(listener)] == [("unknown", "ill"), ("unknown", "well")]


async def test_there_is_a_limit_to_their_number_and_names_are_their_own(resilience: Resilience) -> None:
    for number in range(50):
        resilience.check(f"check-{number}", ok)
    with pytest.raises(ValueError, match="50 checks"):
        resilience.check("one-too-many", ok)
    with pytest.raises(ValueError, match="already"):
        resilience.check("check-7", ok)
    assert len(resilience.checks) == 50


async def generator() -> Any:
    yield


@pytest.mark.parametrize(
    ("arguments", "settings", "error", "word"),
    [
        (("", ok), {}, ValueError, "name"),
        (("a b", ok), {}, ValueError, "name"),
        ((3, ok), {}, TypeError, "name"),
        (("disk", 3), {}, TypeError, "fn"),
        (("disk", dict), {}, TypeError, "fn"),
        (("disk", generator), {}, TypeError, "generator"),
        (("disk", lambda one: None), {}, TypeError, "without arguments"),
        (("disk", ok), {"interval": 0}, ValueError, "interval"),
        (("disk", ok), {"timeout": -1}, ValueError, "timeout"),
        (("disk", ok), {"timeout": math.inf}, ValueError, "timeout"),
        (("disk", ok), {"failures": 0}, ValueError, "failures"),
        (("disk", ok), {"successes": 1.5}, TypeError, "successes"),
        (("disk", ok), {"required": 1}, TypeError, "required"),
        (("disk", ok), {"startup": "yes"}, TypeError, "startup"),
        (("disk", ok), {"dependency": "catalog"}, TypeError, "dependency"),
        (("disk", ok), {"dependency": Pipeline()}, TypeError, "dependency"),
        (("disk", ok), {"intervall": 3}, TypeError, "intervall"),
    ],
)
async def test_a_wrong_setting_is_told(arguments: Any, settings: Any, error: Any, word: str, resilience: Resilience) -> None:
    with pytest.raises(error, match=word):
        resilience.check(*arguments, **settings)
    assert not resilience.checks


@pytest.mark.parametrize("wrong", [{"readiness": "all"}, {"startup_timeout": 0}, {"start_anyway": 1}])
async def test_a_wrong_setting_of_the_service_is_told(wrong: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=next(iter(wrong))):
        Resilience(**wrong)


async def test_what_cannot_be_asked_about_its_parameters_is_taken_as_it_is(resilience: Resilience) -> None:
    resilience.check("built-in", partial(print, end=""))
    resilience.check("method", dict.fromkeys("a").clear)
    assert isinstance(resilience.health, Health)
