"""Other policies for some of the requests to a dependency."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilient import Bulkhead, BulkheadFull, CircuitBreaker, DeadlineExceeded, Dependency, Resilience, Retry, Timeout
from resilient.call import Call
from resilient.protocols import Inner
from resilient.testing import HANG, FakeClock, FaultyTransport

from .conftest import Declare

pytestmark = pytest.mark.anyio


def client_of(library: Any, target: Any, *script: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(target, FaultyTransport(script)), timeout=None)


def calls_of(dependency: Any) -> int:
    return sum(dependency.stats.snapshot().counts.values())


async def test_a_request_goes_by_the_narrowest_route(anyio_backend: Any, library: Any, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    shop = resilience.dependency("shop", origin="http://shop.test/v1")
    routes = {
        pattern: shop.route(pattern)
        for pattern in ("GET", "/orders/{id}", "POST /orders/{id}", "/orders/new", "GET,PUT /files/{name:path}")
    }
    async with client_of(library, resilience, 200) as client:
        for method, path, pattern in (
            ("GET", "/v1/anything", "GET"),
            ("POST", "/v1/anything", None),
            ("PUT", "/v1/orders/7", "/orders/{id}"),
            ("GET", "/v1/orders/7", "/orders/{id}"),
            ("POST", "/v1/orders/7", "POST /orders/{id}"),
            ("POST", "/v1/orders/new", "/orders/new"),
            ("PUT", "/v1/files/a/b", "GET,PUT /files/{name:path}"),
            ("PUT", "/v1/orders/7/lines", None),
        ):
            meant = shop if pattern is None else routes[pattern]
            before = calls_of(meant)
            await client.request(method, "http://shop.test" + path)
            assert calls_of(meant) == before + 1, (method, path)


async def test_a_route_has_its_own_time_and_the_same_circuit(anyio_backend: Any, library: Any, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    shop = resilience.dependency("shop", origin="http://shop.test", timeout=2)
    report = shop.route("GET /report", Retry(attempts=1), timeout=20)
    async with client_of(library, resilience, HANG) as client:
        for path, seconds in (("/item", 2), ("/report", 20)):
            began = clock.now()
            with pytest.raises(DeadlineExceeded) as raised:
                await client.post("http://shop.test" + path) if path == "/item" else await client.get("http://shop.test" + path)
            assert clock.now() - began == pytest.approx(seconds)
            assert raised.value.dependency == ("shop" if path == "/item" else "shop:GET/report")
    assert shop.breaker is report.breaker and shop.breaker.fail_counter == 2  # type: ignore[union-attr]


async def test_a_route_that_fails_opens_the_circuit_for_all_unless_it_has_its_own(
    anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare
) -> None:
    shop = declare(CircuitBreaker(2), name="shop")
    shop.route("/shared")
    own = shop.route("/own", CircuitBreaker(2))
    async with client_of(library, shop, 503) as client:
        for _ in range(2):
            await client.post("http://shop/own")
        assert (shop.state, own.state) == ("closed", "open")
        for _ in range(2):
            await client.post("http://shop/shared")
        assert (shop.state, own.state) == ("open", "open")


async def test_policies_are_told_the_template(anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare) -> None:
    seen: list[str | None] = []

    class Looking:
        def run(self, call: Call, inner: Inner) -> Any:
            seen.append(call.route)
            return inner(call)

    shop = declare(Looking(), name="shop", origin="http://shop/v1")
    shop.route("GET /orders/{id}")
    async with client_of(library, shop, 200) as client:
        await client.get("http://shop/v1/orders/7")
        await client.get("http://shop/v1/orders/7", extensions={"resilient": {"route": "/mine"}})
        await client.get("http://shop/v1/items/7/parts")
    assert seen == ["/orders/{id}", "/mine", "/v1/items/{id}/parts"]  # the last is a guess, since nobody said


async def test_routes_share_slots(anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare) -> None:
    shop = declare(Timeout(total=1), Bulkhead(max_concurrent=1, queue=0), name="shop")
    route = shop.route("/slow")
    assert route.bulkhead is shop.bulkhead
    async with client_of(library, shop, HANG) as client, anyio.create_task_group() as group:

        async def ask(path: str) -> None:
            with pytest.raises(DeadlineExceeded if path == "/slow" else BulkheadFull):
                await client.get("http://shop" + path)

        group.start_soon(ask, "/slow")
        await anyio.sleep(0.1)
        group.start_soon(ask, "/other")


def test_synchronous_clients_are_routed_too(library: Any, clock: FakeClock, declare: Declare) -> None:
    shop = declare(name="shop")
    route = shop.route("/x")
    with library.Client(transport=library.ours.ResilientTransport(shop, FaultyTransport([200]))) as client:
        client.get("http://anywhere/x")
        client.get("http://anywhere/y")
    assert (calls_of(route), calls_of(shop)) == (1, 1)


def test_a_pattern_has_an_origin_where_the_dependency_has_none(library: Any, clock: FakeClock, declare: Declare) -> None:
    shop = declare(name="shop")
    route = shop.route("https://eu.shop.test/x")
    with library.Client(transport=library.ours.ResilientTransport(shop, FaultyTransport([200]))) as client:
        client.get("https://eu.shop.test/x")
        client.get("https://us.shop.test/x")
    assert (calls_of(route), calls_of(shop)) == (1, 1)
    with pytest.raises(ValueError, match=r"^pattern: shop has an origin; leave it out of 'http://shop/x'"):
        declare(name="shop", origin="http://shop").route("http://shop/x")


def test_two_routes_for_the_same_requests_are_a_mistake(clock: FakeClock, declare: Declare) -> None:
    shop = declare(name="shop")
    route = shop.route("GET /orders/{id}")
    with pytest.raises(
        ValueError, match=r"^pattern: 'GET,HEAD /orders/\{number\}' is for requests that belong to 'shop:GET/orders/\{id\}'"
    ):
        shop.route("GET,HEAD /orders/{number}")
    with pytest.raises(ValueError, match="^pattern: shop:GET/orders/{id} is a route itself"):
        route.route("/x")
    with pytest.raises(ValueError, match="^pattern: expected"):
        shop.route("orders")
    assert shop.routes == (route,)


def test_routes_are_dependencies_of_the_service(clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    shop = resilience.dependency("shop", origin="http://shop", required=True)
    route = shop.route("GET /orders/{id}")
    named = shop.route("POST /orders", name="ordering")
    assert set(resilience.dependencies) == {"shop", "shop:GET/orders/{id}", "ordering"}
    assert route.required and named.required
    page = resilience.metrics.render()[0].decode()
    assert 'resilient_calls_total{dependency="ordering",outcome="success"} 0.0' in page
    resilience.enabled = False
    assert not route.enabled and not shop.route("/later").enabled
    with pytest.raises(ValueError, match="^name: there is a dependency 'ordering' already"):
        shop.route("PUT /orders", name="ordering")
    assert isinstance(named, Dependency)
