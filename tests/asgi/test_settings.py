"""Every parameter that is wrong is told by its name, when the app is put together."""

from __future__ import annotations

import inspect
import ipaddress
from typing import Any

import pytest
from starlette.applications import Starlette

from resilient import Resilience
from resilient.asgi import (
    Admission,
    AdmissionMiddleware,
    DeadlineMiddleware,
    DegradationMiddleware,
    DisconnectMiddleware,
    Disconnects,
    Drain,
    DrainMiddleware,
    ErrorMiddleware,
    MetricsMiddleware,
    ResilienceMiddleware,
    StaleResponseMiddleware,
    StaleResponses,
    install,
    routes,
)

MIDDLEWARE = (
    ResilienceMiddleware,
    DeadlineMiddleware,
    DegradationMiddleware,
    ErrorMiddleware,
    MetricsMiddleware,
    StaleResponseMiddleware,
)

FLAGS: list[Any] = [None, 1, "yes", []]
WRONG: dict[str, list[Any]] = {
    "app": [None, 3, "app"],
    "resilience": [None, 3, Resilience, "shop"],
    "timeout": ["3", 0, -1, float("nan"), float("inf"), True, [], 0.001],
    "body": FLAGS,
    "hard": FLAGS,
    "min_useful": ["3", -1, None, float("nan"), True],
    "max_expired": ["3", -1, None, float("nan"), True, 1.1],
    "enforce_deadlines": FLAGS,
    "cancel_on_disconnect": [3, None, "/a", [3], ["a"], ["https://api.example.com/a"], Disconnects],
    "expose_causes": FLAGS,
    "degraded_header": [None, 3, "", "two words", "Ü", "a\r\nb", []],
    "trusted": [3, None, "10.0.0.0/8", ["no address"], [None], [10], b"10.0.0.0", ["10.0.0.1/8"], {10: 1}],
    "deadline_headers": [3, None, "x-timeout", b"x-timeout", [3], [None], ["two words"], [""], ["x:y"], ["Ü"]],
    "count_requests": FLAGS,
    "stale": [3, "yes", True, StaleResponses],
    "refuse_writes": FLAGS,
    "exempt_writes": [3, "POST /login", [3], ["login"], ["POST http://shop/login"], ["/{a}/{"]],
    "admission": [3, "yes", None, Admission],
    "drain": [3, "yes", Drain],
    "dashboard": FLAGS,
    "authorize": [3, "ann", len],
    "dashboard_readers": [3, "ann", len],
    "dashboard_hosts": [3, "ops.example.com", [3], ["ops.example.com"]],
    "metrics": FLAGS,
    "health": FLAGS,
    "prefix": [None, 3, "internal", "/internal/", "/"],
}
OWN: dict[str, list[Any]] = {"enforce": FLAGS}
"""What a middleware calls so that does one thing alone."""
SECONDS: list[Any] = ["3", None, -1, float("nan"), float("inf"), True, []]
NAMES: list[Any] = [3, None, "x-tenant", b"x-tenant", [3], [None], ["two words"], [""]]
WRONG_STALE: dict[str, list[Any]] = {
    "stale_if_error": SECONDS,
    "routes": [3, "/a", [3], ["a"], ["/{a:nothing}"], ["/{a}/{a}"], [b"/a"]],
    "stale_statuses": [3, None, "503", ["503"], [404], [501], [200], [True]],
    "max_body": ["3", None, 0, -1, 1.5, True],
    "max_stale": SECONDS,
    "partition": [3, "word", []],
    "per_user": FLAGS,
    "identity": NAMES,
    "share_anonymous": FLAGS,
    "unkeyed": [*NAMES, ["x-tenant"]],
    "downstream_stale_if_error": SECONDS,
    "downstream_stale_while_revalidate": SECONDS,
    "name": [None, 3, "", "two words", "7", "ä", "a" * 65],
    "store": [3, "memory", {}],
}


PATTERNS: list[Any] = [3, None, "/a", [3], ["a"], ["/{a:nothing}"], ["https://api.example.com/a"]]
WHOLE: list[Any] = ["3", None, -1, 1.5, True]
WRONG_ADMISSION: dict[str, list[Any]] = {
    "limit": [*WHOLE, 0, 3, 1001],
    "min_concurrent": [*WHOLE, 0],
    "max_concurrent": [*WHOLE, 0, 3],
    "tolerance": [*SECONDS, 0.5],
    "queue": WHOLE,
    "max_wait": [*SECONDS, 0],
    "target": [*SECONDS, 0],
    "interval": [*SECONDS, 0, 0.005, 1.1],
    "max_streams": WHOLE,
    "streams": PATTERNS,
    "exempt": PATTERNS,
    "criticality": [3, "critical", ["/a"], {"a": "critical"}, {"/a": "important"}, {"/a": 3}, {3: "critical"}],
    "criticality_header": [None, 3, "", "two words", "x:y"],
    "trusted": [3, "10.0.0.0/8", ["no address"], [None]],
    "retry_after": [*SECONDS, 0],
    "enforce": FLAGS,
}
WRONG_DRAIN: dict[str, list[Any]] = {
    "delay": SECONDS,
    "budget": SECONDS,
    "signals": [3, None, "SIGTERM", ["SIGTERM"], [True], [12345], [None]],
    "retry_after": [*SECONDS, 0],
    "exempt": PATTERNS,
    "close_websockets": FLAGS,
    "not_here": FLAGS,
    "enforce": FLAGS,
}


def cases(*targets: Any) -> list[Any]:
    found = []
    for target in targets:
        for name, parameter in inspect.signature(target).parameters.items():
            if parameter.kind is not parameter.VAR_KEYWORD:
                found += [pytest.param(target, name, value, id=f"{target.__name__}-{name}-{value!r}") for value in (WRONG | OWN)[name]]
    return found


@pytest.mark.parametrize(("target", "name", "value"), cases(*MIDDLEWARE, install, routes))
def test_a_wrong_argument_is_named(target: Any, name: str, value: Any) -> None:
    app = Starlette()
    fitting: dict[str, Any] = {"app": app, "resilience": Resilience()}
    taken = {key: given for key, given in fitting.items() if key in inspect.signature(target).parameters}
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        target(**{**taken, name: value})
    assert app.user_middleware == [] and app.routes == []


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in WRONG for value in WRONG[name] if name not in ("app", "resilience")])
def test_so_it_is_by_the_method(name: str, value: Any) -> None:
    app = Starlette()
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        Resilience().install(app, **{name: value})
    assert app.user_middleware == [] and app.routes == []


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_STALE.items() for value in values])
def test_so_it_is_of_what_is_kept(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        StaleResponses(**{name: value})
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        StaleResponseMiddleware(Starlette(), Resilience(), **{name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_ADMISSION.items() for value in values])
def test_so_it_is_of_who_is_let_in(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        Admission(**{name: value})
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        AdmissionMiddleware(Starlette(), Resilience(), **{name: value})


@pytest.mark.parametrize(
    ("name", "value"),
    [*(("routes", value) for value in PATTERNS), *(("after", value) for value in [*SECONDS, 0]), *(("enforce", value) for value in FLAGS)],
)
def test_so_it_is_of_whose_client_is_looked_after(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        Disconnects(**{name: value})
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        DisconnectMiddleware(Starlette(), Resilience(), **{name: value})


@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in WRONG_DRAIN.items() for value in values])
def test_so_it_is_of_leaving(name: str, value: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        Drain(**{name: value})
    with pytest.raises((TypeError, ValueError), match=rf"^{name}\b"):
        DrainMiddleware(Starlette(), Resilience(), **{name: value})


def test_all_that_is_set_is_tried() -> None:
    assert inspect.signature(Drain).parameters.keys() == WRONG_DRAIN.keys()
    assert inspect.signature(Admission).parameters.keys() == WRONG_ADMISSION.keys()
    assert inspect.signature(StaleResponses).parameters.keys() == WRONG_STALE.keys()


ONE = ["X-Wait-Ms"]


@pytest.mark.anyio
@pytest.mark.parametrize("names", [list, tuple, set, iter])
@pytest.mark.parametrize("peers", [["192.0.2.0/24"], [ipaddress.ip_network("192.0.2.0/24")], {ipaddress.ip_address("192.0.2.1")}])
async def test_what_is_listed_may_be_listed_in_any_way(names: Any, peers: Any, ask: Any) -> None:
    app = Starlette()
    Resilience().install(app, trusted=peers, deadline_headers=names(ONE))
    await ask(app, "/livez")
    stack: Any = app.middleware_stack
    for middleware in (stack.app, DeadlineMiddleware(app, Resilience(), trusted=peers, deadline_headers=names(ONE))):
        assert middleware.deadlines.seconds({"headers": [(b"x-wait-ms", b"2000")], "client": ("192.0.2.1", 1)}) == 2
