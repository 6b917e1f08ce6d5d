"""What orchestrators are told."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from starlette.applications import Starlette

from resilient import DeadlineExceeded, Resilience
from resilient.asgi import routes
from resilient.asgi.health import detail
from resilient.core.degradation import Level
from resilient.testing import FakeClock


@pytest.fixture
def health(resilience: Resilience, ask: Any) -> Any:
    app = Starlette()
    resilience.install(app, trusted=["192.0.2.0/24"])

    async def health(path: str, **how: Any) -> tuple[int, dict[str, Any]]:
        answer = await ask(app, path, **how)
        assert answer.header("cache-control") == ["no-store"]
        return answer.status, json.loads(answer.body)

    return health


@pytest.mark.anyio
async def test_all_is_well(health: Any, resilience: Resilience) -> None:
    resilience.dependency("catalog", origin="http://catalog")
    assert await health("/livez") == (200, {"status": "alive"})
    assert await health("/startupz") == (200, {"status": "started"})
    assert await health("/readyz") == (200, {"status": "ready"})
    everything = {"status": "ready", "service": "healthy", "down": [], "features": {}, "waiting": [], "checks": []}
    assert await health("/readyz", query_string=b"verbose") == (200, everything)
    assert await health("/startupz", query_string=b"verbose=1") == (200, {**everything, "status": "started"})
    assert await health("/livez", query_string=b"verbose") == (200, {"status": "alive"})


@pytest.mark.anyio
@pytest.mark.parametrize(
    ("trusted", "client", "query"),
    [
        ((), ("192.0.2.1", 5000), b"verbose"),
        (["192.0.2.0/24"], ("198.51.100.1", 5000), b"verbose"),
        (["192.0.2.0/24"], None, b"verbose"),
        (lambda scope: False, ("192.0.2.1", 5000), b"verbose"),
        (["192.0.2.0/24"], ("192.0.2.1", 5000), b""),
        (["192.0.2.0/24"], ("192.0.2.1", 5000), b"x=verbose&verboser=1"),
    ],
)
async def test_who_is_not_trusted_or_does_not_ask_is_told_one_word(
    trusted: Any, client: Any, query: bytes, resilience: Resilience, ask: Any
) -> None:
    app = Starlette()
    resilience.install(app, trusted=trusted)
    resilience.dependency("secret-supplier").breaker.open()  # type: ignore[union-attr]
    for path, word in (("/readyz", "ready"), ("/startupz", "started"), ("/livez", "alive")):
        answer = await ask(app, path, client=client, query_string=query, headers={"Accept": "application/json"})
        assert (answer.status, answer.body) == (200, b'{"status":"%s"}' % word.encode())


@pytest.mark.anyio
async def test_a_function_may_say_who_is_trusted(resilience: Resilience, ask: Any) -> None:
    app = Starlette(routes=routes(resilience, trusted=lambda scope: (b"x-role", b"operator") in scope["headers"]))
    told = await ask(app, "/readyz", query_string=b"a=b&verbose", headers={"X-Role": "operator"})
    assert set(json.loads(told.body)) == {"status", "service", "down", "features", "waiting", "checks"}
    assert (await ask(app, "/readyz", query_string=b"verbose")).body == b'{"status":"ready"}'


@pytest.mark.anyio
@pytest.mark.parametrize("path", ["/livez", "/readyz", "/startupz"])
async def test_a_probe_may_ask_with_head_and_with_nothing_else(path: str, resilience: Resilience, ask: Any) -> None:
    app = Starlette()
    resilience.install(app)
    full, head = await ask(app, path), await ask(app, path, method="HEAD")
    assert (head.status, head.body) == (200, b"")
    assert head.header("content-length") == full.header("content-length") == [str(len(full.body))]
    assert (await ask(app, path, method="POST")).status == 405
    resilience.startup_complete = False
    assert (await ask(app, path, method="HEAD")).status == (200 if path == "/livez" else 503)


@pytest.mark.anyio
async def test_an_answer_is_nobody_elses_to_change(resilience: Resilience, ask: Any) -> None:
    (probe, *_) = (route.app for route in routes(resilience) if route.path == "/livez")
    first = await ask(probe, "/livez")
    first.starts[0]["headers"].append((b"x-added", b"1"))
    assert (await ask(probe, "/livez")).header("x-added") == []


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
    status, document = await health("/readyz", query_string=b"verbose")
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
    status, document = await health("/readyz", query_string=b"verbose")
    assert status == 200
    assert document["features"] == {"reviews": "static"}
    assert document["service"] == service


def test_the_state_of_the_service_is_that_of_its_critical_features() -> None:
    def service(**features: Any) -> Any:
        stated = {name: SimpleNamespace(level=level, critical=critical) for name, (level, critical) in features.items()}
        resilience: Any = SimpleNamespace(startup_complete=True, dependencies={}, features=stated, checks={})
        return detail(resilience, "ready")["service"]

    assert service() == "healthy"
    assert service(a=(Level.OFF, False), b=(Level.FULL, True)) == "healthy"
    assert service(a=(Level.REDUCED, True), b=(Level.FULL, True)) == "degraded"
    assert service(a=(Level.OFF, True), b=(Level.FULL, True)) == "critical"
