"""The state of a service as JSON."""

from __future__ import annotations

import json
from typing import Any

import anyio
import httpx
import pybreaker
import pytest

from resilient import (
    AdaptiveConcurrency,
    Brownout,
    Bulkhead,
    Cache,
    CircuitBreaker,
    Failover,
    Level,
    Resilience,
    Retry,
    Target,
    Timeout,
)
from resilient.asgi import routes
from resilient.dashboard.rates import MOST
from resilient.events import CacheUsed, CallRejected, Event, RequestShed
from resilient.testing import FakeClock

from .conftest import WALL, made

pytestmark = pytest.mark.anyio


async def state(ask: Any, app: Any, **headers: str) -> dict[str, Any]:
    answer = await ask(app, "/resilience/state", headers=headers)
    assert answer.status == 200
    assert answer.header("content-type") == ["application/json"]
    return dict(json.loads(answer.body))


async def work(seconds: float = 0.0, error: Exception | None = None) -> str:
    await anyio.sleep(seconds)
    if error is not None:
        raise error
    return "done"


async def test_a_service_that_does_nothing_yet(ask: Any, app: Any) -> None:
    document = await state(ask, app)
    assert document["version"] == 1
    assert document["at"] == WALL
    assert document["window"] is None
    assert document["service"] == {
        "level": "healthy",
        "ready": True,
        "status": "ready",
        "draining": False,
        "waiting": [],
        "enabled": True,
        "read_only": None,
    }
    assert document["dependencies"] == document["features"] == document["checks"] == document["events"] == []
    assert document["others"] is None
    assert document["controls"] is None
    assert document["worker"]["id"] == f"{document['worker']['host']}:{document['worker']['pid']}"
    assert document["load"]["in_flight"] == 0
    assert document["load"]["limit"] == 500
    assert document["load"]["requests"] is document["load"]["p95"] is None


async def test_rates_and_quantiles_are_those_of_the_last_seconds(ask: Any, app: Any, resilience: Resilience, clock: FakeClock) -> None:
    shop = resilience.dependency("shop", Timeout(total=30))
    for _ in range(50):
        await shop.call(work, 2.0)  # long ago: no part of what is told
    await anyio.sleep(30)
    await state(ask, app)
    for turn in range(100):
        if turn % 4:
            await shop.call(work, 0.02)
        else:
            with pytest.raises(httpx.ConnectError):
                await shop.call(work, 0.02, httpx.ConnectError("x"))
    await anyio.sleep(2)
    document = await state(ask, app)
    (shown,) = document["dependencies"]
    assert document["window"] == 4.0
    assert shown["calls"] == 25.0
    assert shown["failures"] == 6.25
    assert shown["failure_ratio"] == 0.25
    assert all(0.018 < shown[name] < 0.0226 for name in ("p50", "p95", "p99"))
    await anyio.sleep(6)
    await state(ask, app)
    (shown,) = (await state(ask, app))["dependencies"]
    assert shown["calls"] == 0
    assert shown["failure_ratio"] is shown["p95"] is None


async def test_rates_are_forgotten_with_the_look_that_they_begin_at(ask: Any, app: Any, resilience: Resilience) -> None:
    shop = resilience.dependency("shop", Timeout(total=30))
    await state(ask, app)
    await shop.call(work, 1.0)
    assert (await state(ask, app))["dependencies"][0]["calls"] == 1.0
    await anyio.sleep(61)
    document = await state(ask, app)
    assert document["window"] is None
    assert document["dependencies"][0]["calls"] is None


async def test_what_was_reset_has_no_rates(ask: Any, app: Any, resilience: Resilience) -> None:
    shop = resilience.dependency("shop", Timeout(total=30))
    await shop.call(work)
    await state(ask, app)
    resilience.reset()
    shop.stats.reset()
    await anyio.sleep(1)
    assert (await state(ask, app))["dependencies"][0]["calls"] is None


async def test_one_of_the_same_name_begins_anew(ask: Any, app: Any, resilience: Resilience) -> None:
    await resilience.dependency_for(httpx.URL("http://a/")).call(work)
    await state(ask, app)
    resilience.reset()
    assert resilience.dependencies == {}
    await resilience.dependency_for(httpx.URL("http://a/")).call(work)
    await anyio.sleep(1)
    (shown,) = (await state(ask, app))["dependencies"]
    assert shown["calls"] is None


async def test_what_a_dependency_has(ask: Any, app: Any, resilience: Resilience, clock: FakeClock) -> None:
    policies = (
        Timeout(total=1),
        Retry(attempts=2, on=httpx.ConnectError),
        CircuitBreaker(fail_max=1, reset_timeout=10),
        Bulkhead(max_concurrent=7),
    )
    resilience.dependency("shop", *policies, origin="http://shop.example/a", required=True)
    bare = resilience.dependency("bare", Timeout(total=1))
    document = await state(ask, app)
    shop, shown = document["dependencies"]
    assert shop["origin"] == "http://shop.example/a"
    assert shop["required"] is True
    assert (shop["state"], shop["reason"], shop["retry_after"], shop["enforce"]) == ("closed", "", None, True)
    assert (shop["in_flight"], shop["limit"], shop["queued"], shop["budget"]) == (0, 7, 0, 1.0)
    assert shop["policies"] == [repr(policy) for policy in resilience.dependencies["shop"].policies]
    assert shop["cache"] is shop["last_change"] is None
    assert shop["controls"] == ["isolate"]
    assert shown["in_flight"] is shown["limit"] is shown["queued"] is shown["budget"] is None
    assert shown["controls"] == []
    bare.enabled = False
    await anyio.sleep(1)
    assert (await state(ask, app))["dependencies"][1]["state"] == "disabled"


async def test_the_states_of_a_circuit(ask: Any, app: Any, resilience: Resilience) -> None:
    shop = resilience.dependency("shop", CircuitBreaker(fail_max=1, reset_timeout=10))
    with pytest.raises(httpx.ConnectError):
        await shop.call(work, 0, httpx.ConnectError("x"))
    (shown,) = (await state(ask, app))["dependencies"]
    assert (shown["state"], shown["reason"], shown["retry_after"]) == ("open", "consecutive", 10.0)
    assert shown["controls"] == ["isolate", "half_open", "close"]
    assert shown["last_change"] == {"at": WALL, "old": "closed", "new": "open", "reason": "consecutive"}
    breaker: Any = shop.breaker
    for act, expected in (
        (breaker.open, ("isolated", ["half_open", "close"])),
        (breaker.half_open, ("half-open", ["isolate", "close"])),
        (breaker.close, ("closed", ["isolate"])),
    ):
        act()
        await anyio.sleep(1)
        (shown,) = (await state(ask, app))["dependencies"]
        assert (shown["state"], shown["controls"]) == expected
    breaker.disabled = True
    await anyio.sleep(1)
    (shown,) = (await state(ask, app))["dependencies"]
    assert (shown["state"], shown["controls"]) == ("disabled", [])


async def test_circuits_of_every_kind(ask: Any, app: Any, resilience: Resilience) -> None:
    guest = pybreaker.CircuitBreaker()
    resilience.dependency("guest", guest)
    keyed = resilience.dependency("keyed", CircuitBreaker(key=lambda key: key))
    targets = Failover(Target("eu", CircuitBreaker(), function=work), Target("us", CircuitBreaker(), function=work))
    resilience.dependency("llm", targets)
    breaker: Any = keyed.breaker
    breaker.circuit("a").open()
    guest.open()
    shown = {one["name"]: one for one in (await state(ask, app))["dependencies"]}
    assert shown["keyed"]["state"] == "isolated"
    assert shown["guest"]["state"] == "open"
    eu = next(name for name in shown if "eu" in name)
    assert shown[eu]["controls"] == ["isolate"]
    assert shown["llm"]["policies"] == ["Failover(targets=['eu', 'us'])"]


async def test_events_are_counted_by_what_they_are_about(ask: Any, app: Any, resilience: Resilience, clock: FakeClock) -> None:
    shop = resilience.dependency("shop", Cache(), Retry(attempts=3, on=httpx.ConnectError), AdaptiveConcurrency())
    resilience.feature("reviews", needs=[shop], fallback=[])
    await state(ask, app)

    @resilience.features["reviews"]
    async def reviews() -> Any:
        return await shop.call(work, 0, httpx.ConnectError("x"))

    assert await reviews() == []
    at = clock.now()
    for result in ("hit", "hit", "stale", "miss", "bypass"):
        resilience.outbox.emit(CacheUsed(at=at, dependency="shop", result=result))
    resilience.outbox.emit(CallRejected(at=at, dependency="shop", policy="breaker", reason="outage"))
    resilience.outbox.emit(CallRejected(at=at, dependency="shop", policy="breaker", reason="outage", enforced=False))
    resilience.metrics.count_shed("sheddable", "full")
    resilience.metrics.count_shed("critical", "waited")
    resilience.metrics.count_shed("critical", "shadow_waited")
    await anyio.sleep(1)
    document = await state(ask, app)
    seconds = document["window"]
    (shown,) = document["dependencies"]
    assert shown["rejections"] * seconds == pytest.approx(1, rel=0.01)
    assert shown["retries"] * seconds == pytest.approx(2, rel=0.01)
    assert {name: round(count * seconds) for name, count in shown["cache"].items()} == {"hits": 2, "misses": 1, "stale": 1}
    assert document["features"][0]["degraded"] * seconds == pytest.approx(1, rel=0.01)
    assert document["load"]["shed"] * seconds == pytest.approx(2, rel=0.01)
    assert {name: round(count * seconds) for name, count in document["load"]["shed_by"].items()} == {"sheddable": 1, "critical": 1}
    assert document["load"]["would_shed"] * seconds == pytest.approx(1, rel=0.01)


async def test_features(ask: Any, app: Any, resilience: Resilience) -> None:
    shop = resilience.dependency("shop")
    reviews = resilience.feature("reviews", needs=[shop], fallback=[])
    resilience.feature("checkout", needs=[shop], required=True, critical=True)
    resilience.feature("search")
    reviews.set_level("off", by="ann", why="</script><script>", until=60, tenant="acme", share=0.5)
    reviews.set_level("static", by="bob", why="too slow")
    shown, checkout, search = (await state(ask, app))["features"]
    assert (shown["level"], shown["cause"], shown["by"], shown["why"], shown["since"]) == (
        "static",
        "operator",
        "bob",
        "too slow",
        shown["since"],
    )
    assert shown["needs"] == ["shop"]
    assert [order["level"] for order in shown["orders"]] == ["off", "static"]
    assert shown["orders"][0] == {
        "level": "off",
        "cause": "operator",
        "by": "ann",
        "why": "</script><script>",
        "until": WALL + 60,
        "tenant": "acme",
        "share": 0.5,
    }
    assert shown["orders"][1]["until"] is None
    assert shown["levels"] == ["full", "reduced", "static", "off"]
    assert (checkout["required"], checkout["critical"], checkout["levels"]) == (True, True, ["full", "off"])
    assert search["levels"] == ["full", "reduced", "off"]
    assert (search["level"], search["cause"], search["since"]) == ("full", "", None)
    reviews.clear()
    await anyio.sleep(1)
    shown = (await state(ask, app))["features"][0]
    assert (shown["level"], shown["cause"], shown["orders"]) == ("full", "", [])
    assert Level.FULL in reviews.levels


async def test_the_service_as_a_whole(ask: Any, app: Any, resilience: Resilience) -> None:
    resilience.read_only(by="ann", why="a move", until=90)
    resilience.ready = False
    service = (await state(ask, app))["service"]
    assert (service["ready"], service["status"]) == (False, "not ready")
    assert service["read_only"] == {"by": "ann", "why": "a move", "until": WALL + 90, "enforce": True}
    resilience.startup_complete = False
    await anyio.sleep(1)
    assert (await state(ask, app))["service"]["status"] == "starting"
    resilience.draining = True
    await anyio.sleep(100)
    service = (await state(ask, app))["service"]
    assert (service["status"], service["draining"], service["read_only"]) == ("draining", True, None)


async def test_checks_of_its_own_say_whether_it_is_ready_and_what_it_waits_for(ask: Any, app: Any, resilience: Resilience) -> None:
    answers = {"disk": True, "mail": True}
    catalog = resilience.dependency("catalog")
    resilience.check("disk", lambda: answers["disk"], required=True, failures=1, interval=1)
    resilience.check("mail", lambda: answers["mail"], failures=1, interval=1)
    resilience.check("catalog", lambda: None, dependency=catalog)
    document = await state(ask, app)
    assert (document["service"]["status"], document["service"]["waiting"]) == ("starting", ["check disk"])
    assert [one["state"] for one in document["checks"]] == ["unknown"] * 3 and document["checks"][0]["age"] is None
    await anyio.sleep(2)
    answers.update(disk=False, mail=False)
    await anyio.sleep(2)
    document = await state(ask, app)
    assert (document["service"]["ready"], document["service"]["status"], document["service"]["waiting"]) == (False, "not ready", [])
    disk, mail, last = document["checks"]
    assert disk["age"] <= 1.1
    assert disk == {"name": "disk", "state": "ill", "reason": "returned False", "age": disk["age"], "required": True, "dependency": None}
    assert (mail["state"], mail["required"]) == ("ill", False)
    assert (last["state"], last["reason"], last["dependency"]) == ("well", "", "catalog")
    told = [(one["text"], one["severity"], one["about"]) for one in document["events"] if one["kind"] == "CheckChanged"]
    assert ("check disk: well -> ill (returned False)", "bad", "service") in told
    assert ("check catalog: unknown -> well", "info", "dependency:catalog") in told


async def test_requests_and_how_long_they_take(ask: Any, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock, brownout=Brownout(target=0.5))
    app = made(resilience, clock)

    async def slow(request: Any) -> Any:
        from starlette.responses import PlainTextResponse

        await anyio.sleep(0.1)
        return PlainTextResponse("x")

    app.add_route("/slow", slow)
    await state(ask, app)
    for _ in range(10):
        await ask(app, "/slow")
        await ask(app, "/resilience/state")
        await ask(app, "/resilience")
    resilience.metrics.count_request("unmatched", "GET", "5xx", 0.00001)  # as one that was turned away
    await anyio.sleep(1)
    load = (await state(ask, app))["load"]
    assert load["requests"] == 5.5  # the dashboard's own are none
    assert 0.09 < load["p50"] <= load["p99"] < 0.12
    assert load["brownout"] == {"share": 1.0, "measured": 0.2, "target": 0.5, "enforce": True}


async def test_nothing_is_measured_while_nobody_looks(ask: Any, app: Any, resilience: Resilience) -> None:
    assert resilience.metrics.on_request is None
    await state(ask, app)
    assert resilience.metrics.on_request is not None
    for _ in range(600):
        resilience.metrics.count_request("/a", "GET", "2xx", 0.01)
    assert resilience.metrics.on_request is not None
    await anyio.sleep(61)
    for _ in range(600):
        resilience.metrics.count_request("/a", "GET", "2xx", 0.01)
    assert resilience.metrics.on_request is None


async def test_without_admission_its_numbers_are_not_there(ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    load = (await state(ask, made(resilience, clock, admission=False)))["load"]
    assert load["in_flight"] is load["limit"] is load["queued"] is load["streams"] is load["lag"] is None


async def test_where_there_are_many_those_that_matter_are_shown(ask: Any, app: Any, resilience: Resilience) -> None:
    for number in range(MOST + 20):
        resilience.dependency(f"d{number}", CircuitBreaker())
    resilience.dependency("needed", CircuitBreaker(), required=True)
    last: Any = resilience.dependencies[f"d{MOST + 10}"].breaker
    last.open()
    await state(ask, app)
    for name in resilience.dependencies:
        if name != f"d{MOST + 10}":
            await resilience.dependencies[name].call(work)  # type: ignore[union-attr]
    await anyio.sleep(1)
    document = await state(ask, app)
    names = [one["name"] for one in document["dependencies"]]
    assert len(names) == MOST
    assert {"needed", f"d{MOST + 10}"} <= set(names)
    assert document["others"] == {"count": 21, "not_closed": 0, "calls": 21.0, "failures": 0.0, "failure_ratio": 0.0}
    for number in range(210):
        resilience.feature(f"f{number}")
    await anyio.sleep(1)
    document = await state(ask, app)
    assert (len(document["features"]), document["other_features"]) == (200, 10)
    assert len(document["history"]["dependencies"]) == 50


async def test_one_look_is_shared_by_all_who_look(ask: Any, app: Any, resilience: Resilience, clock: FakeClock) -> None:
    board: Any = resilience._board
    first = board.look()
    assert board.look() is first
    assert first.text({"a": 1})[:-1] == first.text({"b": 2}).replace('"b":2', '"a":1')[:-1]
    await anyio.sleep(0.2)
    assert board.look() is first
    resilience.outbox.emit(Event(at=clock.now()))
    assert board.look() is not first  # something has happened
    await anyio.sleep(0.6)
    later = board.look()
    assert later.at == clock.now()


async def test_hostile_names_and_words_come_out_as_json(ask: Any, app: Any, resilience: Resilience, clock: FakeClock) -> None:
    name = "</script><img/onerror=alert(1)>&'\""
    shop = resilience.dependency(name, CircuitBreaker())
    breaker: Any = shop.breaker
    breaker.open()
    resilience.feature("reviews", fallback=[]).set_level("off", by="<b>", why="</script>")
    answer = await ask(app, "/resilience/state")
    for mark in (b"<", b">", b"&"):
        assert mark not in answer.body
    document = json.loads(answer.body)
    assert document["dependencies"][0]["name"] == name
    assert document["events"][0]["about"] == f"dependency:{name}"
    assert answer.header("x-content-type-options") == ["nosniff"]


class Watching:
    def __init__(self, told: str = "") -> None:
        self.told = told

    async def run(self, call: Any, inner: Any) -> Any:
        return await inner(call)

    def settle(self, *args: Any) -> None: ...

    def __repr__(self) -> str:
        if self.told:
            return self.told
        raise RuntimeError("no")


async def test_a_policy_that_cannot_be_shown_is_shown_by_its_kind(ask: Any, app: Any, resilience: Resilience) -> None:
    resilience.dependency("shop", Watching(), Watching("http://user:secret@host/" + "x" * 500))
    (shown,) = (await state(ask, app))["dependencies"]
    assert shown["policies"][0] == "<Watching>"
    assert len(shown["policies"][1]) == 200
    assert "secret" not in shown["policies"][1]


async def test_the_routes_alone(ask: Any, resilience: Resilience) -> None:
    from starlette.applications import Starlette

    app = Starlette(routes=routes(resilience, "/internal", dashboard=True))
    answer = await ask(app, "/internal/resilience/state")
    assert json.loads(answer.body)["version"] == 1
    assert (await ask(app, "/resilience/state")).status == 404
    assert len(resilience.dashboard("/again")) >= 4
    assert sum(type(one).__name__ == "Journal" for one in resilience.outbox.listeners) == 1
    with pytest.raises(ValueError, match="^authorize: it guards the dashboard"):
        routes(resilience, authorize=len)


async def test_it_makes_no_event_of_every_request_that_is_shed(resilience: Resilience, clock: FakeClock) -> None:
    plain = Resilience(clock=clock)
    plain.dashboard()
    assert plain.outbox.heard is False
    board: Any = plain._board
    plain.outbox.emit(RequestShed(at=clock.now(), criticality="critical", reason="full"))
    assert board.journal.heard == 0
