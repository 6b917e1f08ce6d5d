"""How the middleware and the routes get into an app."""

from __future__ import annotations

from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route

from resilient import Resilience
from resilient.asgi import install, routes

BOTH = pytest.mark.parametrize("make", [Starlette, FastAPI])


async def theirs(request: Request) -> Response:
    return PlainTextResponse("theirs")


def paths(app: Any) -> list[str]:
    return [route.path for route in app.routes if route.path in ("/metrics", "/livez", "/readyz", "/startupz")]


@BOTH
@pytest.mark.anyio
@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_catch_all_of_the_app_hides_nothing(make: Any, when: str, resilience: Resilience, ask: Any) -> None:
    app = make()
    if when == "before":
        resilience.install(app)
    app.router.routes.append(Route("/{path:path}", theirs))
    if when == "after":
        resilience.install(app)
    assert (await ask(app, "/livez")).body == b'{"status":"alive"}'
    assert (await ask(app, "/other")).body == b"theirs"


@BOTH
@pytest.mark.anyio
async def test_a_path_that_the_app_has_already_stays_the_apps(make: Any, resilience: Resilience, ask: Any) -> None:
    app = make()
    app.router.routes.append(Route("/livez", theirs))
    resilience.install(app)
    assert (await ask(app, "/livez")).body == b"theirs"
    assert (await ask(app, "/startupz")).body == b'{"status":"started"}'


@BOTH
@pytest.mark.parametrize(
    ("choice", "expected"),
    [
        ({}, ["/metrics", "/livez", "/readyz", "/startupz"]),
        ({"metrics": False}, ["/livez", "/readyz", "/startupz"]),
        ({"health": False}, ["/metrics"]),
        ({"metrics": False, "health": False}, []),
    ],
)
def test_what_is_not_wanted_is_not_added(make: Any, choice: Any, expected: list[str], resilience: Resilience) -> None:
    app = make()
    resilience.install(app, **choice)
    assert paths(app) == expected


@pytest.mark.anyio
async def test_the_routes_may_lie_elsewhere(resilience: Resilience, ask: Any) -> None:
    app = FastAPI()
    resilience.install(app, prefix="/internal")
    assert (await ask(app, "/internal/livez")).status == 200
    assert (await ask(app, "/livez")).status == 404
    assert not any(path.startswith("/internal") for path in app.openapi()["paths"])


@pytest.mark.parametrize("prefix", ["internal", "/internal/", "/", None])
def test_a_prefix_that_is_no_path_is_refused(prefix: Any, resilience: Resilience) -> None:
    with pytest.raises(ValueError, match="prefix"):
        routes(resilience, prefix)


@pytest.mark.anyio
async def test_the_middleware_gets_its_settings(resilience: Resilience, ask: Any) -> None:
    app = Starlette()
    resilience.install(app, timeout=5, degraded_header="X-Degraded")
    await ask(app, "/livez")
    stack: Any = app.middleware_stack
    assert stack.app.deadlines.seconds({"headers": []}) == 5


def test_a_wrong_setting_is_told_at_once_and_changes_nothing(resilience: Resilience) -> None:
    app = Starlette()
    with pytest.raises(ValueError, match="timeout"):
        resilience.install(app, timeout=-1)
    with pytest.raises(TypeError, match="tiemout"):
        resilience.install(app, tiemout=1)
    assert app.user_middleware == [] and app.routes == []


@pytest.mark.parametrize("app", [None, PlainTextResponse("ok"), theirs])
def test_anything_but_a_starlette_app_is_refused_with_the_way_out(app: Any, resilience: Resilience) -> None:
    with pytest.raises(TypeError, match=r"resilient\.asgi\.ResilienceMiddleware"):
        install(resilience, app)


@BOTH
@pytest.mark.anyio
async def test_an_app_that_has_started_is_refused(make: Any, resilience: Resilience, ask: Any) -> None:
    app = make()
    await ask(app, "/x")
    with pytest.raises(RuntimeError, match="started"):
        resilience.install(app)


def test_twice_is_refused(resilience: Resilience) -> None:
    app = Starlette()
    resilience.install(app)
    with pytest.raises(RuntimeError, match="installed already"):
        resilience.install(app)
