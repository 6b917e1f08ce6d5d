"""What goes out with a request of the work that it is part of: to the origin that was named, and to nobody else."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from resilient import Criticality, Deadline, Dependency, Failover, Hedge, Resilience, Retry, Target, Timeout
from resilient.context import criticality, deadline_scope
from resilient.testing import HANG, FakeClock, FaultyTransport

from .conftest import Declare
from .test_sync import client_of

pytestmark = pytest.mark.anyio

ORIGIN = "http://orders.internal/v1"
TOLD = ("x-request-timeout-ms", "x-criticality")


def client(library: Any, target: Any, inner: Any, **settings: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(target, inner), timeout=None, **settings)


def told(request: Any) -> tuple[str | None, str | None]:
    return tuple(request.headers.get(name) for name in TOLD)  # type: ignore[return-value]


async def test_nobody_is_told_by_default(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([200])
    async with client(library, declare(timeout=2, origin=ORIGIN), inner) as http:
        with criticality("sheddable"):
            await http.get(ORIGIN)
    assert told(inner.requests[0]) == (None, None)


async def test_an_origin_that_opted_in_is_told_what_is_left(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([200])
    async with client(library, declare(timeout=2, origin=ORIGIN, propagate=True), inner) as http:
        await http.get(f"{ORIGIN}/items")
        with criticality("sheddable_plus"), deadline_scope(Deadline.after(0.5, clock)):
            await http.get(f"{ORIGIN}/items")
        # What an inbound request has left, less the reserve for the reply.
        with criticality(Criticality.CRITICAL_PLUS), deadline_scope(Deadline(clock.now() + 1.0, clock, inbound=True)):
            await http.post(f"{ORIGIN}/items", json={})
    assert [told(request) for request in inner.requests] == [("2000", "critical"), ("500", "sheddable_plus"), ("995", "critical_plus")]


async def test_without_a_deadline_only_the_criticality_is_told(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([200])
    async with client(library, declare(Retry(attempts=1), origin=ORIGIN, propagate=True), inner) as http:
        await http.get(ORIGIN)
        await http.get(ORIGIN, headers={"X-Request-Timeout-Ms": "1"})  # a caller's, of which this service believes nothing
    assert [told(request) for request in inner.requests] == [(None, "critical")] * 2


async def test_each_attempt_is_told_anew(library: Any, clock: FakeClock, declare: Declare) -> None:
    def late(request: Any) -> Any:
        async def answer() -> Any:
            await anyio.sleep(1.0)
            return library.Response(503)

        return answer()

    inner = FaultyTransport([late, 200])
    dependency = declare(Timeout(total=4.0), Retry(attempts=2), origin=ORIGIN, propagate=True)
    async with client(library, dependency, inner) as http:
        request = http.build_request("GET", ORIGIN)
        assert (await http.send(request)).status_code == 200
    first, second = (int(one.headers["x-request-timeout-ms"]) for one in inner.requests)
    assert first == 4000 and 2500 < second <= 3000
    assert told(request) == (None, None)  # the program's own request is left as it was


async def test_a_hedge_is_told_as_well(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([HANG, 200])
    dependency = declare(Timeout(total=4.0), Hedge(delay=1.0), origin=ORIGIN, propagate=True)
    async with client(library, dependency, inner) as http:
        await http.get(ORIGIN)
    assert [told(request) for request in inner.requests] == [("4000", "critical"), ("3000", "critical")]


async def test_other_names_and_one_alone(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([200])
    fields = {"deadline": "grpc-timeout", "criticality": "X-Importance"}
    for propagate in (fields, {"deadline": "X-Envoy-Expected-Rq-Timeout-Ms"}):
        async with client(library, declare(timeout=2, origin=ORIGIN, propagate=propagate), inner) as http:
            await http.get(ORIGIN)
    both, one = inner.requests
    assert (both.headers["grpc-timeout"], both.headers["x-importance"]) == ("2000m", "critical")
    assert one.headers["x-envoy-expected-rq-timeout-ms"] == "2000" and told(one) == (None, None)


async def test_one_request_says_otherwise(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([200])
    async with client(library, declare(timeout=2, origin=ORIGIN, propagate=True), inner) as http:
        for options in ({"propagate": False}, {"propagate": True}, {"criticality": "sheddable", "timeout": 0.25}):
            await http.get(ORIGIN, extensions={"resilient": options})
        with pytest.raises(TypeError, match="propagate"):
            await http.get(ORIGIN, extensions={"resilient": {"propagate": 1}})
    assert [told(request) for request in inner.requests] == [(None, None), ("2000", "critical"), ("250", "sheddable")]


async def test_what_a_caller_of_ours_sent_is_not_handed_on(library: Any, clock: FakeClock, declare: Declare) -> None:
    """An app that passes all headers on passes forged ones on: what is told is what is so here."""
    inner = FaultyTransport([200])
    async with client(library, declare(timeout=2, origin=ORIGIN, propagate=True), inner) as http:
        await http.get(ORIGIN, headers={"X-Criticality": "critical_plus", "X-Request-Timeout-Ms": "99999999"})
    assert told(inner.requests[0]) == ("2000", "critical")
    assert inner.requests[0].headers.get_list("x-criticality") == ["critical"]


async def test_whoever_it_redirects_to_is_not_told(library: Any, clock: FakeClock, declare: Declare) -> None:
    def moved(request: Any) -> Any:
        return library.Response(302, headers={"location": "https://third-party.example/"})

    inner = FaultyTransport([moved, 200])
    async with client(library, declare(timeout=2, origin=ORIGIN, propagate=True), inner, follow_redirects=True) as http:
        await http.get(ORIGIN)
    assert [told(request) for request in inner.requests] == [("2000", "critical"), (None, None)]


async def test_a_third_party_of_the_same_client_is_not_told(library: Any, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    resilience.dependency("orders", origin=ORIGIN, propagate=True)
    inner = FaultyTransport([200])
    async with client(library, resilience, inner) as http:
        for url in (ORIGIN, "http://third-party.example/", "http://orders.internal:8080/v1"):
            await http.get(url)
    assert [told(request)[1] for request in inner.requests] == ["critical", None, None]


@pytest.mark.parametrize(("trusted", "expected"), [(None, None), (True, "critical")])
async def test_targets_elsewhere_are_told_if_they_are_trusted(
    library: Any, clock: FakeClock, declare: Declare, trusted: bool | None, expected: str | None
) -> None:
    inner = FaultyTransport([503, 200])
    failover = Failover(Target("first"), Target("second", url="https://other.example/v1", trusted=trusted))
    async with client(library, declare(failover, origin=ORIGIN, propagate=True), inner) as http:
        await http.get(ORIGIN)
    assert [told(request)[1] for request in inner.requests] == ["critical", expected]


async def test_routes_and_variants_tell_what_their_dependency_tells(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(timeout=2, origin=ORIGIN, propagate=True)
    dependency.route("POST /items", timeout=7)
    inner = FaultyTransport([200])
    async with client(library, dependency, inner) as http:
        await http.post(f"{ORIGIN}/items")
    assert told(inner.requests[0]) == ("7000", "critical")


def test_synchronous_clients_tell_the_same(library: Any, clock: FakeClock, declare: Declare) -> None:
    inner = FaultyTransport([200])
    with client_of(library, declare(timeout=2, origin=ORIGIN, propagate=True), inner) as http, criticality("sheddable"):
        http.get(ORIGIN)
    assert told(inner.requests[0]) == ("2000", "sheddable")


async def test_what_is_told_is_what_the_next_service_reads(library: Any, clock: FakeClock) -> None:
    """Two services, one behind the other: the second works under the first one's deadline and criticality."""
    from resilient import current_criticality, current_deadline
    from resilient.asgi import ResilienceMiddleware

    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        deadline = current_deadline()
        seen.append((current_criticality(), deadline and round(deadline.remaining, 3)))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    behind = ResilienceMiddleware(app, Resilience(clock=clock), trusted=["127.0.0.1"])
    inner = library.ASGITransport(behind, client=("127.0.0.1", 5000))
    front = Dependency("orders", origin=ORIGIN, propagate=True, clock=clock)
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(front, inner), timeout=None) as http:
        with criticality("sheddable"), deadline_scope(Deadline.after(1.5, clock)):
            assert (await http.get(ORIGIN)).status_code == 200
    assert seen == [(Criticality.SHEDDABLE, 1.5)]


@pytest.mark.parametrize("given", [1, "yes", {"deadline": "X Y"}])
def test_what_is_given_is_checked(given: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="propagate"):
        Dependency("orders", origin=ORIGIN, propagate=given)
    with pytest.raises(ValueError, match="propagate: name the origin"):
        Dependency("orders", propagate=True)


def test_settings_say_it() -> None:
    resilience = Resilience(settings={"dependencies": {"orders": {"propagate": True, "writes": True}}})
    orders = resilience.dependency("orders", origin=ORIGIN)
    assert orders.propagation is not None
    assert repr(orders.policies[0]) == "Writes()"
