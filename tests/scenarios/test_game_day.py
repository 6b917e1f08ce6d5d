"""Chaos in a whole service: each kind of harm for a while, and nobody but the operators notices."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilient import Chaos, Resilience
from resilient.events import CircuitChanged, FaultInjected, FeatureChanged
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

HARMS: list[dict[str, Any]] = [{"status": 503}, {"hang": True}, {"truncate": 1}, {"latency": 5}, {"fault": ConnectionError("gone")}]


@pytest.mark.parametrize("harm", HARMS, ids=lambda harm: next(iter(harm)))
async def test_a_feature_degrades_while_chaos_is_allowed_and_comes_back(
    anyio_backend: Any, library: Any, clock: FakeClock, listener: RecordingListener, harm: dict[str, Any]
) -> None:
    resilience = Resilience(clock=clock, listeners=[listener], chaos=True)
    chaos = Chaos(rate=1, match="GET /for/{product}", **harm)
    recs = resilience.dependency("recs", origin="http://recs.test", timeout=0.5)
    harmed = recs.route("GET /for/{product}", chaos)
    shop = FaultyTransport([lambda request: library.Response(200, json=["lamp"])])
    client = library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience, shop))

    @resilience.feature("recommendations", needs=[harmed], fallback=[], on=ConnectionError)
    async def recommended() -> Any:
        return (await client.get("http://recs.test/for/7")).raise_for_status().json()

    async def users(seconds: float) -> list[Any]:
        """Ten a second; nobody waits for another."""
        got: list[Any] = []

        async def user(number: int) -> None:
            await anyio.sleep(number / 10)
            began = clock.now()
            served = await recommended()
            assert clock.now() - began < 0.51
            got.append(served)

        async with anyio.create_task_group() as group:
            for number in range(int(seconds * 10)):
                group.start_soon(user, number)
        return got

    assert await users(20) == [[]] * 200
    opened = [event for event in listener.of(CircuitChanged) if event.new == "open"]
    assert opened and chaos.injected < 60  # the circuit spares the dependency most of them
    assert {event.kind for event in listener.of(FaultInjected)} == {chaos.kind}

    resilience.chaos = False
    await anyio.sleep(10)
    assert (await users(20))[-50:] == [["lamp"]] * 50
    assert recs.state == "closed"
    await anyio.sleep(10)
    assert str(resilience.features["recommendations"].level) == "full"
    assert [event.new for event in listener.of(FeatureChanged)] == ["static", "full"]
    await client.aclose()
