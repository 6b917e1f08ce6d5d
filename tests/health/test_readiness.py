"""What takes a service out, and what does not; checks of dependencies and their circuits."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import anyio
import httpx
import pybreaker
import pytest

import resilient.httpx
from resilient import CircuitBreaker, Resilience, standard
from resilient.asgi.health import liveness, readiness, startup
from resilient.events import CircuitChanged
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener

pytestmark = pytest.mark.anyio


def ready(resilience: Resilience) -> tuple[bool, str]:
    assert liveness(resilience) == (True, "alive")
    return readiness(resilience)


async def test_a_check_that_is_required_takes_the_service_out_after_a_row_and_back(resilience: Resilience, script: Any) -> None:
    resilience.check("disk", script(True, False, True, False, False, False, True), interval=10, required=True)
    resilience.check("extra", script(False), interval=10)
    assert ready(resilience) == (False, "starting"), "its first answer is waited for"
    async with resilience.health.running():
        seen = []
        for _ in range(80):
            await anyio.sleep(1)
            if not seen or seen[-1] != ready(resilience):
                seen.append(ready(resilience))
    assert seen == [(True, "ready"), (False, "not ready"), (True, "ready")]


async def test_what_is_not_known_any_more_is_no_reason(resilience: Resilience, script: Any) -> None:
    resilience.check("disk", script(False), required=True)
    async with resilience.health.running():
        await anyio.sleep(1)
        assert ready(resilience) == (False, "not ready")
    resilience.health.attend = lambda: None  # type: ignore[method-assign]
    await anyio.sleep(100)
    assert resilience.checks["disk"].state == "unknown"
    assert ready(resilience) == (True, "ready")


@pytest.mark.parametrize(("setting", "required", "out"), [("local", True, False), ("required", True, True), ("required", False, False)])
async def test_a_dependency_takes_the_service_out_only_where_that_is_asked_for(
    setting: Any, required: bool, out: bool, clock: FakeClock, script: Any
) -> None:
    resilience = Resilience(clock=clock, readiness=setting)
    catalog = resilience.dependency("catalog", required=required)
    resilience.check("catalog", script(True, False), dependency=catalog)
    assert resilience.checks["catalog"].required is out
    assert startup(resilience) == ((False, "starting") if out else (True, "started"))
    async with resilience.health.running():
        await anyio.sleep(5)
        assert ready(resilience) == (True, "ready")
        await anyio.sleep(60)
        assert resilience.checks["catalog"].state == "ill"
        assert ready(resilience)[0] is not out
    with pytest.raises(TypeError, match="required"):
        resilience.check("twice", script(True), dependency=catalog, required=True)


async def test_a_required_dependency_that_nobody_checks_has_no_part_in_it_and_that_is_told(
    clock: FakeClock, script: Any, caplog: pytest.LogCaptureFixture
) -> None:
    resilience = Resilience(clock=clock, readiness="required")
    catalog = resilience.dependency("catalog", required=True)
    catalog.variant("catalog-slow", timeout=60)
    resilience.dependency("prices", required=True)
    resilience.dependency("reviews")
    resilience.check("catalog", script(True), dependency=catalog)
    assert resilience.health.unchecked == ["prices"]
    async with resilience.health.running():
        await anyio.sleep(1)
        assert ready(resilience) == (True, "ready")
    assert 'readiness="required", and dependency prices is required, but has no check' in caplog.text
    assert "catalog" not in caplog.text


def transitions(listener: RecordingListener) -> list[tuple[str, str]]:
    return [(event.old, event.new) for event in listener.of(CircuitChanged)]


@pytest.mark.parametrize("way", ["through the circuit", "beside it", "a plain pybreaker"])
async def test_without_traffic_a_circuit_gets_its_trials_from_the_check(
    way: str, resilience: Resilience, listener: RecordingListener, clock: FakeClock
) -> None:
    plain = way == "a plain pybreaker"
    policies = (pybreaker.CircuitBreaker(fail_max=5, reset_timeout=1, success_threshold=3),) if plain else standard()
    catalog = resilience.dependency("catalog", *policies)
    asked: list[float] = []

    async def fetch() -> None:
        asked.append(clock.now())

    async def probe() -> None:
        await (catalog.call(fetch) if way == "through the circuit" else fetch())

    resilience.check("catalog", probe, dependency=catalog, interval=60)
    async with resilience.health.running():
        await anyio.sleep(1)
        assert catalog.breaker is not None
        getattr(catalog.breaker, "engine", catalog.breaker).trip("outage")
        assert catalog.state == "open"
        before = clock.now()
        while catalog.state != "closed":
            await anyio.sleep(0.1)
        # The next question was a minute off at the most; from then on one comes every second.
        assert clock.now() - before <= 66 + 6
        gaps = [later - earlier for earlier, later in pairwise(asked)][1:]
        assert all(gap <= 1.2 for gap in gaps)
        await anyio.sleep(30)
        assert len(asked) - len(gaps) <= 3, "a circuit that is closed needs no trials"
    assert transitions(listener)[-1] == ("half-open", "closed")


async def test_a_blip_takes_no_service_out_though_it_is_asked_more_often(clock: FakeClock, script: Any) -> None:
    resilience = Resilience(clock=clock, readiness="required")
    catalog = resilience.dependency("catalog", CircuitBreaker(), required=True)
    answers = script(True, *[False] * 15, True)
    resilience.check("catalog", answers, dependency=catalog, interval=10)
    async with resilience.health.running():
        await anyio.sleep(1)
        catalog.breaker.trip("outage")  # type: ignore[union-attr]
        while len(answers.answers) > 1:
            await anyio.sleep(1)
            assert ready(resilience) == (True, "ready")
        assert len(answers.asked) in (16, 17)  # the pauses are of random lengths


async def test_a_check_that_fails_closes_nothing(resilience: Resilience, script: Any, listener: RecordingListener) -> None:
    catalog = resilience.dependency("catalog", CircuitBreaker())
    resilience.check("catalog", script(ConnectionError()), dependency=catalog, interval=5)
    async with resilience.health.running():
        await anyio.sleep(1)
        catalog.breaker.trip("outage")  # type: ignore[union-attr]
        await anyio.sleep(60)
        assert catalog.state != "closed"


async def test_what_was_isolated_by_hand_stays_so(resilience: Resilience, script: Any) -> None:
    catalog = resilience.dependency("catalog", CircuitBreaker())
    bare = resilience.dependency("bare", *[policy for policy in standard() if not isinstance(policy, CircuitBreaker)])
    resilience.check("catalog", script(None), dependency=catalog, interval=5)
    resilience.check("bare", script(None), dependency=bare, interval=5)
    async with resilience.health.running():
        catalog.breaker.open()  # type: ignore[union-attr]
        await anyio.sleep(60)
        assert catalog.state == "open"
        assert resilience.checks["catalog"].state == resilience.checks["bare"].state == "well"


async def test_a_check_through_the_client_is_a_trial_and_its_hang_a_failed_one(resilience: Resilience, listener: RecordingListener) -> None:
    catalog = resilience.dependency("catalog", origin="http://catalog", required=True)
    wire = FaultyTransport([HANG, HANG, 200])
    transport = resilient.httpx.AsyncResilientTransport(resilience, wire)
    async with httpx.AsyncClient(transport=transport) as client:

        async def probe() -> None:
            (await client.get("http://catalog/livez")).raise_for_status()

        resilience.check("catalog", probe, dependency=catalog, interval=30)
        async with resilience.health.running():
            catalog.breaker.trip("outage")  # type: ignore[union-attr]
            await anyio.sleep(120)
            assert catalog.state == "closed"
    assert ("half-open", "open") in transitions(listener), "a probe that hangs is a trial that failed"
    assert transitions(listener)[-1] == ("half-open", "closed")
