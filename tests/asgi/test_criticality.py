"""How much a request matters: who may say so, and what is made of nonsense."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Criticality, Resilience, current_criticality
from resilient.asgi import Admission, AdmissionMiddleware, ResilienceMiddleware
from resilient.asgi.criticality import InboundCriticality

PEER = ("192.0.2.1", 5000)
ROUTES = {"POST /checkout": "critical_plus", "/search/{rest:path}": "sheddable", "/search/popular": Criticality.SHEDDABLE_PLUS}


def scope(path: str = "/", *, header: bytes | None = None, method: str = "GET", root: str = "", name: bytes = b"x-criticality") -> Any:
    headers = [] if header is None else [(name, header)]
    return {"type": "http", "method": method, "path": path, "root_path": root, "headers": headers, "client": PEER}


@pytest.mark.parametrize(
    ("method", "path", "root", "expected"),
    [
        ("POST", "/checkout", "", Criticality.CRITICAL_PLUS),
        ("GET", "/checkout", "", None),
        ("GET", "/search/a/b", "", Criticality.SHEDDABLE),
        ("GET", "/search/popular", "", Criticality.SHEDDABLE_PLUS),
        ("GET", "/shop/search/popular", "/shop", Criticality.SHEDDABLE_PLUS),
        ("GET", "/shop", "/shop", None),
        ("GET", "/", "", None),
    ],
)
def test_the_narrowest_route_says(method: str, path: str, root: str, expected: Any) -> None:
    assert InboundCriticality(ROUTES).of(scope(path, method=method, root=root)) is expected


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"sheddable", Criticality.SHEDDABLE),
        (b"CRITICAL_PLUS", Criticality.CRITICAL_PLUS),
        (b" Sheddable-Plus ", Criticality.SHEDDABLE_PLUS),
        (b"critical", Criticality.CRITICAL),
    ],
)
def test_a_trusted_caller_says(said: bytes, expected: Criticality) -> None:
    reader = InboundCriticality({"/": "sheddable"}, trusted=["192.0.2.0/24"])
    assert reader.of(scope(header=said)) is expected
    assert reader.ignored == 0


@pytest.mark.parametrize("trusted", [(), ["198.51.100.0/24"], lambda scope: False])
def test_nobody_else_does(trusted: Any) -> None:
    assert InboundCriticality({"/": "sheddable"}, trusted=trusted).of(scope(header=b"critical_plus")) is Criticality.SHEDDABLE


@pytest.mark.parametrize(
    "garbage", [b"", b"3", b"CRITICAL!", b"\xff\xfe", b"critical_plus, critical_plus", b"x" * 1_000_000, b"\x00critical"]
)
def test_garbage_is_ignored_and_counted(garbage: bytes) -> None:
    reader = InboundCriticality(trusted=["192.0.2.1"])
    assert reader.of(scope(header=garbage)) is None
    assert reader.ignored == 1


def test_of_several_fields_the_nearest_counts() -> None:
    asked = scope(header=b"critical_plus")
    asked["headers"].append((b"x-criticality", b"sheddable"))
    assert InboundCriticality(trusted=["192.0.2.1"]).of(asked) is Criticality.SHEDDABLE


def test_the_field_has_any_name() -> None:
    reader = InboundCriticality(header="X-Importance", trusted=["192.0.2.1"])
    assert reader.of(scope(header=b"sheddable", name=b"x-importance")) is Criticality.SHEDDABLE
    assert reader.of(scope(header=b"sheddable")) is None


def test_a_function_says_before_all_others() -> None:
    reader = InboundCriticality(lambda scope: "sheddable" if scope["path"] == "/batch" else None, trusted=["192.0.2.1"])
    assert reader.of(scope("/batch", header=b"critical_plus")) is Criticality.SHEDDABLE
    assert reader.of(scope("/", header=b"critical_plus")) is Criticality.CRITICAL_PLUS
    assert reader.of(scope("/")) is None


@pytest.mark.parametrize("function", [lambda scope: 1 / 0, lambda scope: "important", lambda scope: 3])
def test_a_function_that_fails_is_counted(function: Any) -> None:
    reader = InboundCriticality(function)
    assert reader.of(scope()) is None and reader.ignored == 1


@pytest.mark.anyio
@pytest.mark.parametrize("together", [False, True])
async def test_it_is_in_force_inside_and_not_afterwards(together: bool, resilience: Resilience, ask: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_criticality())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    if together:  # who may say how long he waits may say what it matters
        guarded: Any = ResilienceMiddleware(app, resilience, trusted=["192.0.2.1"])
    else:
        guarded = AdmissionMiddleware(app, resilience, trusted=["192.0.2.1"])
    await ask(guarded, headers={"X-Criticality": "sheddable"})
    await ask(guarded)
    await ask(guarded, headers={"X-Criticality": "sheddable"}, client=("198.51.100.1", 1))
    assert seen == [Criticality.SHEDDABLE, Criticality.CRITICAL, Criticality.CRITICAL]
    assert current_criticality() is Criticality.CRITICAL


@pytest.mark.anyio
async def test_an_inner_app_inherits_what_nobody_says_anew(resilience: Resilience, ask: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(current_criticality())
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body"})

    inner = AdmissionMiddleware(app, Resilience(clock=resilience.clock), criticality={"/top": "critical_plus"})
    outer = AdmissionMiddleware(inner, resilience, criticality=lambda scope: "sheddable")
    await ask(outer, "/")
    await ask(outer, "/top")
    assert seen == [Criticality.SHEDDABLE, Criticality.CRITICAL_PLUS]


def test_an_admission_may_trust_others_than_the_deadlines_do(resilience: Resilience) -> None:
    app = ResilienceMiddleware(lambda *_: None, resilience, trusted=["198.51.100.1"], admission=Admission(trusted=["192.0.2.1"]))  # type: ignore[arg-type,return-value]
    assert app.criticality.of(scope(header=b"sheddable")) is Criticality.SHEDDABLE
