"""What orchestrators are told."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette

from resilient import DeadlineExceeded, Resilience
from resilient.testing import FakeClock


@pytest.fixture
def health(resilience: Resilience, ask: Any) -> Any:
    app = Starlette()
    resilience.install(app)

    async def health(path: str) -> tuple[int, dict[str, Any]]:
        answer = await ask(app, path)
        assert answer.header("cache-control") == ["no-store"]
        return answer.status, json.loads(answer.body)

    return health


@pytest.mark.anyio
async def test_all_is_well(health: Any, resilience: Resilience) -> None:
    resilience.dependency("catalog", origin="http://catalog")
    assert await health("/livez") == (200, {"status": "alive"})
    assert await health("/startupz") == (200, {"status": "started"})
    assert await health("/readyz") == (200, {"status": "ready", "service": "healthy", "down": [], "features": {}})


@pytest.mark.anyio
async def test_before_the_end_of_the_start_up_nobody_is_sent(health: Any, resilience: Resilience) -> None:
    resilience.startup_complete = False
    assert await health("/livez") == (200, {"status": "alive"})
    assert await health("/startupz") == (503, {"status": "starting"})
    status, document = await health("/readyz")
    assert (status, document["status"]) == (503, "starting")


@pytest.mark.anyio
async def test_while_draining_nobody_is_sent(health: Any, resilience: Resilience) -> None:
    resilience.draining = True
    assert await health("/livez") == (200, {"status": "alive"})
    assert (await health("/startupz"))[0] == 200
    status, document = await health("/readyz")
    assert (status, document["status"]) == (503, "draining")


@pytest.mark.anyio
async def test_a_service_may_say_that_it_is_not_ready(health: Any, resilience: Resilience) -> None:
    resilience.ready = False
    status, document = await health("/readyz")
    assert (status, document["status"]) == (503, "not ready")


@pytest.mark.anyio
async def test_dependencies_that_are_down_are_named_and_take_no_replica_out(health: Any, resilience: Resilience) -> None:
    for name, required in (("catalog", True), ("reviews", False), ("search", False)):
        resilience.dependency(name, origin=f"http://{name}", required=required)
    resilience.dependencies["catalog"].breaker.open()  # type: ignore[union-attr]
    resilience.dependencies["search"].breaker.half_open()  # type: ignore[union-attr]
    assert await health("/livez") == (200, {"status": "alive"})
    status, document = await health("/readyz")
    assert status == 200
    assert document["down"] == [
        {"dependency": "catalog", "state": "open", "required": True},
        {"dependency": "search", "state": "half-open", "required": False},
    ]


@pytest.mark.anyio
@pytest.mark.parametrize(("critical", "service"), [(True, "degraded"), (False, "healthy")])
async def test_degraded_features_are_named(critical: bool, service: str, health: Any, resilience: Resilience, clock: FakeClock) -> None:
    @resilience.feature("reviews", fallback=[], critical=critical)
    async def reviews() -> list[str]:
        raise DeadlineExceeded("x")

    await reviews()
    status, document = await health("/readyz")
    assert status == 200
    assert document["features"] == {"reviews": "static"}
    assert document["service"] == service


def test_the_state_of_the_service_is_that_of_its_critical_features() -> None:
    from resilient.asgi.health import readiness
    from resilient.core.degradation import Level

    def service(**features: Any) -> Any:
        stated = {name: SimpleNamespace(level=level, critical=critical) for name, (level, critical) in features.items()}
        resilience: Any = SimpleNamespace(draining=False, startup_complete=True, ready=True, dependencies={}, features=stated)
        return readiness(resilience)[1]["service"]

    assert service() == "healthy"
    assert service(a=(Level.OFF, False), b=(Level.FULL, True)) == "healthy"
    assert service(a=(Level.REDUCED, True), b=(Level.FULL, True)) == "degraded"
    assert service(a=(Level.OFF, True), b=(Level.FULL, True)) == "critical"
