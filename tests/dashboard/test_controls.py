"""What operators may do, what is refused, and how each use is told."""

from __future__ import annotations

import json
import logging
from types import SimpleNamespace
from typing import Any

import anyio
import pybreaker
import pytest

from resilient import CircuitBreaker, Failover, Resilience, Target, Timeout
from resilient.dashboard.controls import MOST_A_MINUTE
from resilient.dashboard.order import MOST_BYTES
from resilient.events import ControlUsed
from resilient.testing import FakeClock, RecordingListener

from .conftest import WALL, made

pytestmark = pytest.mark.anyio
JSON = {"content-type": "application/json", "host": "shop.example", "origin": "https://shop.example", "sec-fetch-site": "same-origin"}


class Operator:
    """Somebody who has loaded the page, and uses its controls."""

    def __init__(self, ask: Any, app: Any, name: str = "ann") -> None:
        self.ask, self.app = ask, app
        self.headers = {"x-user": name}

    async def controls(self) -> Any:
        answer = await self.ask(self.app, "/resilience/state", headers=self.headers)
        return json.loads(answer.body)["controls"]

    async def post(self, body: Any, **headers: str | None) -> Any:
        raw = body if isinstance(body, bytes) else json.dumps(body).encode()
        given = {
            **self.headers,
            **JSON,
            "x-resilient-token": (await self.controls())["token"],
            **{k.replace("_", "-"): v for k, v in headers.items()},
        }
        return await self.ask(
            self.app, "/resilience/controls", method="POST", body=raw, headers={k: v for k, v in given.items() if v is not None}
        )

    async def done(self, **order: Any) -> dict[str, Any]:
        answer = await self.post(order)
        assert answer.status == 200, answer.body
        return dict(json.loads(answer.body))


@pytest.fixture
def ann(ask: Any, app: Any) -> Operator:
    return Operator(ask, app)


async def work() -> None: ...


async def test_who_may_act_is_told_so(ann: Operator, ask: Any, app: Any) -> None:
    controls = await ann.controls()
    assert controls["who"] == "ann"
    assert controls["actions"][:5] == ["isolate", "half_open", "close", "set_level", "clear"]
    assert controls["token"] == (await ann.controls())["token"]
    assert controls["token"] != (await Operator(ask, app, "bob").controls())["token"]


async def test_a_circuit_is_isolated_and_closed(
    ann: Operator, resilience: Resilience, listener: RecordingListener, caplog: Any, clock: FakeClock
) -> None:
    shop = resilience.dependency("shop", CircuitBreaker())
    caplog.set_level(logging.INFO, "resilient")
    assert await ann.done(action="isolate", name="shop", why="INC-17\n\x1b[31m") == {
        "done": "isolate",
        "about": "dependency:shop",
        "by": "ann",
    }
    assert shop.state == "open"
    await anyio.sleep(10_000)
    assert shop.state == "open"
    await ann.done(action="half_open", name="shop")
    assert shop.state == "half-open"
    await ann.done(action="close", name="shop")
    assert shop.state == "closed"
    told = listener.of(ControlUsed)
    assert [(event.action, event.about, event.by, event.why, event.told) for event in told] == [
        ("isolate", "dependency:shop", "ann", "INC-17  [31m", ""),
        ("half_open", "dependency:shop", "ann", "", ""),
        ("close", "dependency:shop", "ann", "", ""),
    ]
    records = [record for record in caplog.records if record.__dict__.get("event") == "control_used"]
    assert [record.levelno for record in records] == [logging.WARNING] * 3
    assert records[0].getMessage() == "dashboard: isolate dependency:shop, by 'ann': 'INC-17  [31m'"
    assert records[0].__dict__["by"] == "ann"
    state = json.loads((await ann.ask(ann.app, "/resilience/state")).body)
    assert [event["kind"] for event in state["events"]][:2] == ["CircuitChanged", "ControlUsed"]
    assert state["events"][1]["text"] == "isolate, by ann: INC-17  [31m"
    assert state["events"][1]["severity"] == "warning"


async def test_so_are_targets_and_guests_and_circuits_with_keys(ann: Operator, resilience: Resilience) -> None:
    guest = pybreaker.CircuitBreaker()
    resilience.dependency("guest", guest)
    resilience.dependency("llm", Failover(Target("eu", function=work), Target("us", function=work)))
    keyed = resilience.dependency("keyed", CircuitBreaker(key=lambda *args: "a"))
    eu = next(name for name in resilience.dependencies if "eu" in name)
    for name in ("guest", eu, "keyed"):
        await ann.done(action="isolate", name=name)
        assert resilience.dependencies[name].state == "open"
    assert guest.current_state == "open"
    await ann.done(action="close", name="keyed")
    assert keyed.state == "closed"
    shown = {one["name"]: one for one in json.loads((await ann.ask(ann.app, "/resilience/state")).body)["dependencies"]}
    assert shown["guest"]["state"] == shown[eu]["state"] == "isolated"


async def test_what_was_done_is_seen_at_once(ann: Operator, resilience: Resilience) -> None:
    resilience.dependency("shop", CircuitBreaker())
    await ann.controls()
    await ann.done(action="isolate", name="shop")
    assert json.loads((await ann.ask(ann.app, "/resilience/state")).body)["dependencies"][0]["state"] == "isolated"


async def test_features_are_switched(ann: Operator, resilience: Resilience, listener: RecordingListener) -> None:
    reviews = resilience.feature("reviews", fallback=[])
    await ann.done(action="set_level", name="reviews", level="off", why="slow", until=60, tenant="acme", share=0.5)
    (order,) = reviews.orders
    assert (order.level, order.by, order.why, order.tenant, order.share) == ("off", "ann", "slow", "acme", 0.5)
    assert listener.of(ControlUsed)[0].told == "off, 50% of uses, tenant 'acme', for 60 s"
    await ann.done(action="set_level", name="reviews", level="static")
    assert reviews.level == "static"
    state = json.loads((await ann.ask(ann.app, "/resilience/state")).body)["features"][0]
    assert [order["until"] for order in state["orders"]] == [WALL + 60, None]
    await ann.done(action="clear", name="reviews", tenant=None)
    assert reviews.orders == ()
    assert reviews.level == "full"


async def test_writes_are_refused_and_taken_again(ann: Operator, resilience: Resilience, clock: FakeClock) -> None:
    await ann.done(action="read_only", why="a move", until=3600)
    stop = resilience.writes.stop
    assert stop is not None
    assert (stop.by, stop.why, stop.until) == ("ann", "a move", clock.now() + 3600)
    assert (await ann.ask(ann.app, "/resilience/other", method="POST")).status == 503
    await ann.done(action="read_write")  # which is a write itself
    assert resilience.writes.stop is None
    await ann.done(action="read_only", until=None)


async def test_it_may_be_taken_back_under_a_prefix_too(ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    app = made(resilience, clock, prefix="/internal", authorize=lambda request: "ann", exempt_writes=["POST /login"])
    resilience.read_only()
    answer = await ask(app, "/internal/resilience/controls", method="POST")
    assert answer.status == 403  # and not 503
    assert (await ask(app, "/login", method="POST")).status == 404
    assert (await ask(app, "/other", method="POST")).status == 503


async def test_drain_is_there_where_the_service_can(ask: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    drained: list[Any] = []

    class Draining(Resilience):
        def drain(self, **told: Any) -> None:
            drained.append(told)

    resilience = Draining(clock=clock)
    ann = Operator(ask, made(resilience, clock, authorize=lambda request: "ann"))
    assert (await ann.controls())["actions"][-1] == "drain"
    leaving = getattr(resilience, "leaving", None) or SimpleNamespace()
    monkeypatch.setattr(resilience, "leaving", leaving, raising=False)
    leaving.settings = None
    await ann.done(action="drain", why="a move")
    await ann.done(action="drain", delay=2.5)
    leaving.settings = SimpleNamespace(delay=5.0, spares=lambda scope: True)
    await ann.done(action="drain")
    assert drained == [
        {"delay": 0.0, "by": "ann", "why": "a move"},
        {"delay": 2.5, "by": "ann", "why": ""},
        {"delay": 5.0, "by": "ann", "why": ""},
    ]


async def test_drain_is_not_offered_where_it_cannot(ann: Operator, resilience: Resilience, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Resilience, "drain", None, raising=False)
    assert "drain" not in (await ann.controls())["actions"]
    answer = await ann.post({"action": "drain"})
    assert (answer.status, answer.problem["field"]) == (400, "action")


# -- who may not --------------------------------------------------------------------------------------------------


async def test_without_authorize_there_are_none(ask: Any, clock: FakeClock) -> None:
    resilience = Resilience(clock=clock)
    app = made(resilience, clock)
    answer = await ask(app, "/resilience/controls", method="POST", headers=JSON, body=b"{}")
    assert answer.status == 404
    assert json.loads((await ask(app, "/resilience/state")).body)["controls"] is None


NOT_THIS_PAGE: list[tuple[dict[str, Any], int, str]] = [
    ({"x_resilient_token": None}, 403, "X-Resilient-Token"),
    ({"x_resilient_token": ""}, 403, "X-Resilient-Token"),
    ({"x_resilient_token": "wrong"}, 403, "X-Resilient-Token"),
    ({"x_resilient_token": "y" * 1_000_000}, 403, "X-Resilient-Token"),
    ({"x_resilient_token": f"1.2.{'0' * 64}"}, 409, "X-Resilient-Token"),
    ({"origin": "https://evil.example"}, 403, "Origin"),
    ({"origin": "null"}, 403, "Origin"),
    ({"origin": "https://evil.example", "sec_fetch_site": None}, 403, "Origin"),
    ({"sec_fetch_site": "cross-site"}, 403, "Sec-Fetch-Site"),
    ({"sec_fetch_site": "same-site"}, 403, "Sec-Fetch-Site"),
    ({"sec_fetch_site": "none"}, 403, "Sec-Fetch-Site"),
    ({"content_type": None}, 415, "Content-Type"),
    ({"content_type": "text/plain"}, 415, "Content-Type"),
    ({"content_type": "application/x-www-form-urlencoded"}, 415, "Content-Type"),
    ({"content_type": "multipart/form-data; boundary=application/json"}, 415, "Content-Type"),
    ({"content_type": "application/jsonp"}, 415, "Content-Type"),
    ({"content_length": "1" * 500}, 200, ""),
]


@pytest.mark.parametrize(("headers", "status", "field"), NOT_THIS_PAGE, ids=lambda value: str(value)[:50])
async def test_another_page_cannot(headers: Any, status: int, field: str, ann: Operator, resilience: Resilience) -> None:
    shop = resilience.dependency("shop", CircuitBreaker())
    answer = await ann.post({"action": "isolate", "name": "shop"}, **headers)
    assert answer.status == status
    if field:
        assert answer.problem["field"] == field
        assert shop.state == "closed"


async def test_a_token_is_of_one_operator(ask: Any, app: Any, ann: Operator, resilience: Resilience) -> None:
    shop = resilience.dependency("shop", CircuitBreaker())
    token = (await ann.controls())["token"]
    answer = await Operator(ask, app, "bob").post({"action": "isolate", "name": "shop"}, x_resilient_token=token)
    assert (answer.status, shop.state) == (403, "closed")


async def test_who_is_no_operator_cannot(ann: Operator) -> None:
    answer = await ann.post({"action": "read_only"}, x_user=None)
    assert (answer.status, answer.problem["detail"]) == (403, "You may not do this.")


async def test_a_script_needs_no_browser(ann: Operator, resilience: Resilience) -> None:
    shop = resilience.dependency("shop", CircuitBreaker())
    answer = await ann.post(
        {"action": "isolate", "name": "shop"}, origin=None, sec_fetch_site=None, content_type="application/json; charset=utf-8"
    )
    assert (answer.status, shop.state) == (200, "open")


# -- what is refused ----------------------------------------------------------------------------------------------

WRONG: list[tuple[Any, str]] = [
    (b"", ""),
    (b"{", ""),
    (b"[]", ""),
    (b"null", ""),
    (b'"isolate"', ""),
    (b"\xff\xfe", ""),
    (b'{"action": "isolate", "action": "close", "name": "shop"}', ""),
    (b'{"action": "read_only", "until": NaN}', ""),
    (b'{"action": "read_only", "until": Infinity}', ""),
    (b"[" * 15_000, ""),
    (b'{"a":' * 3_000, ""),
    ({}, "action"),
    ({"action": None}, "action"),
    ({"action": ["isolate"]}, "action"),
    ({"action": "__init__"}, "action"),
    ({"action": "</script>"}, "action"),
    ({"action": "isolate"}, "name"),
    ({"action": "isolate", "name": 7}, "name"),
    ({"action": "isolate", "name": None}, "name"),
    ({"action": "isolate", "name": "x" * 501}, "name"),
    ({"action": "isolate", "name": "shop", "by": "root"}, "by"),
    ({"action": "isolate", "name": "shop", "level": "off"}, "level"),
    ({"action": "isolate", "name": "shop", "<b>" * 1000: 1}, "<b>" * 166 + "<b"),
    ({"action": "isolate", "name": "shop", "why": 3}, "why"),
    ({"action": "isolate", "name": "shop", "why": "x" * 501}, "why"),
    ({"action": "set_level", "name": "reviews"}, "level"),
    ({"action": "set_level", "level": "off"}, "name"),
    ({"action": "set_level", "name": "reviews", "level": "none"}, "level"),
    ({"action": "set_level", "name": "checkout", "level": "static"}, "level"),
    ({"action": "set_level", "name": "checkout", "level": "off", "share": 0.5}, "share"),
    ({"action": "set_level", "name": "reviews", "level": "off", "share": 1.5}, "share"),
    ({"action": "set_level", "name": "reviews", "level": "off", "share": True}, "share"),
    ({"action": "set_level", "name": "reviews", "level": "off", "share": None}, "share"),
    ({"action": "set_level", "name": "reviews", "level": "off", "until": 0}, "until"),
    ({"action": "set_level", "name": "reviews", "level": "off", "until": 1e300}, "until"),
    ({"action": "set_level", "name": "reviews", "level": "off", "until": "soon"}, "until"),
    ({"action": "set_level", "name": "reviews", "level": "off", "tenant": ""}, "tenant"),
    ({"action": "set_level", "name": "reviews", "level": "off", "tenant": 7}, "tenant"),
    ({"action": "read_write", "until": 7}, "until"),
]


@pytest.mark.parametrize(("body", "field"), WRONG, ids=lambda value: str(value)[:50])
async def test_what_is_wrong_is_named(body: Any, field: str, ann: Operator, resilience: Resilience, listener: RecordingListener) -> None:
    resilience.dependency("shop", CircuitBreaker())
    resilience.feature("reviews", fallback=[])
    resilience.feature("checkout", required=True)
    answer = await ann.post(body)
    assert answer.status == 400
    assert answer.problem.get("field", "") == field
    assert b"<" not in answer.body
    assert not listener.of(ControlUsed)


async def test_what_is_not_there_is_not_found(ann: Operator, resilience: Resilience) -> None:
    resilience.dependency("bare", Timeout(total=1))
    for order, status in (
        ({"action": "isolate", "name": "nothing"}, 404),
        ({"action": "isolate", "name": "bare"}, 409),
        ({"action": "clear", "name": "nothing"}, 404),
        ({"action": "set_level", "name": "nothing", "level": "off"}, 404),
    ):
        answer = await ann.post(order)
        assert (answer.status, answer.problem["field"]) == (status, "name")


async def test_a_feature_has_so_many_orders(ann: Operator, resilience: Resilience) -> None:
    reviews = resilience.feature("reviews", fallback=[])
    for number in range(1000):
        reviews.set_level("off", tenant=f"t{number}")
    answer = await ann.post({"action": "set_level", "name": "reviews", "level": "off"})
    assert answer.status == 409
    state = json.loads((await ann.ask(ann.app, "/resilience/state")).body)
    assert len(state["features"][0]["orders"]) == 20


async def test_a_body_has_so_many_bytes(ann: Operator) -> None:
    padded = json.dumps({"action": "read_write"}).encode()
    assert (await ann.post(padded.ljust(MOST_BYTES))).status == 200
    answer = await ann.post(padded.ljust(MOST_BYTES + 1))
    assert (answer.status, answer.problem["detail"]) == (413, "Send at most 16384 bytes.")


@pytest.mark.parametrize(("ends", "status"), [(False, 408), (True, 400)])
async def test_a_body_has_so_much_time(ends: bool, status: int, ann: Operator, clock: FakeClock) -> None:
    token = (await ann.controls())["token"]
    scope = {
        "type": "http",
        "method": "POST",
        "path": "/resilience/controls",
        "query_string": b"",
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), (b"x-resilient-token", token.encode()), (b"x-user", b"ann")],
    }
    sent: list[Any] = []

    async def receive() -> Any:
        if not ends:
            await anyio.sleep(1)
        return {"type": "http.disconnect"} if ends else {"type": "http.request", "body": b" ", "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    await ann.app(scope, receive, send)
    assert sent[0]["status"] == status


async def test_there_are_so_many_a_minute(ann: Operator, resilience: Resilience, clock: FakeClock) -> None:
    resilience.dependency("shop", CircuitBreaker())
    for _ in range(MOST_A_MINUTE):
        await ann.done(action="isolate", name="shop")
    answer = await ann.post({"action": "close", "name": "shop"})
    assert (answer.status, answer.header("retry-after")) == (429, ["61"])
    assert resilience.dependencies["shop"].state == "open"
    await anyio.sleep(61)
    await ann.done(action="close", name="shop")


async def test_refusals_are_logged_and_not_without_end(ann: Operator, caplog: Any) -> None:
    caplog.set_level(logging.WARNING, "resilient")
    for _ in range(30):
        await ann.post({"action": "x"}, x_resilient_token="wrong")
    told = [record for record in caplog.records if "refused" in record.getMessage()]
    assert len(told) == 10


async def test_those_who_may_not_use_up_nobodys_controls(ann: Operator, resilience: Resilience) -> None:
    resilience.dependency("shop", CircuitBreaker())
    for _ in range(2 * MOST_A_MINUTE):
        await ann.post({"action": "isolate", "name": "shop"}, x_resilient_token="wrong")
    await ann.done(action="isolate", name="shop")
