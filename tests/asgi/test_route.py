"""Ground 42: labels are what the program wrote, however its apps lie in each other, and never what a client sent."""

from __future__ import annotations

import re
from typing import Any

import pytest
from fastapi import APIRouter, FastAPI
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Host, Mount, Route, Router

from resilient import Resilience
from resilient.asgi.route import UNKNOWN_MOUNT, UNMATCHED, route_template


async def ok(request: Request) -> Response:
    return PlainTextResponse("ok")


class Wrapped:
    """Some middleware around an app."""

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


class Opaque(Wrapped):
    """Middleware that does not show what it stands around."""

    def __init__(self, app: Any) -> None:
        self._hidden = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self._hidden(scope, receive, send)


class Templates:
    """Notes the template once the app has returned."""

    def __init__(self, app: Any) -> None:
        self.app = app
        self.seen: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)
        self.seen.append(route_template(scope))


def leaves() -> Starlette:
    return Starlette(routes=[Route("/", ok), Route("/orders/{id:int}", ok), Mount("/deep/{level}", routes=[Route("/{leaf}", ok)])])


def starlette() -> Any:
    return Starlette(
        routes=[
            Mount("/by-word/{tenant}", app=leaves()),
            Mount("/by-number/{tenant:int}", app=leaves()),
            Mount("/by-path/{rest:path}/end", app=leaves()),
            Mount("/part-{tenant}-of", app=leaves()),
            Mount("/twice/{a}", routes=[Mount("/{a}", app=leaves())]),
            Mount("/wrapped/{tenant}", app=Wrapped(Wrapped(leaves()))),
            Mount("/stacked/{tenant}", app=leaves(), middleware=[Middleware(Wrapped)]),
            Mount("/opaque/{tenant}", app=Opaque(leaves())),
            Host("{tenant}.example.org", app=leaves()),
            Mount("", routes=[Mount("/bare/{tenant}", routes=[Mount("", app=leaves())])]),
        ]
    )


def fastapi() -> Any:
    inner = FastAPI()
    inner.add_api_route("/items/{item:int}", lambda item: item)
    inner.add_route("/raw/{q:int}", ok)  # type: ignore[arg-type]
    included = APIRouter(prefix="/in")
    included.add_api_route("/{q:int}", lambda q: q)
    inner.include_router(included)
    router = APIRouter()
    router.mount("/m/{t:int}", inner)
    router.add_route("/raw/{q:int}", ok)  # type: ignore[arg-type]
    app = FastAPI()
    app.include_router(router, prefix="/api/{region}")
    app.mount("/direct/{t}", inner)
    app.mount("/starlette/{t}", leaves())
    app.add_route("/raw/{q:int}", ok)  # type: ignore[arg-type]
    return app


def mixed() -> Any:
    return Starlette(routes=[Mount("/outer/{tenant}", app=fastapi())])


CASES = [
    (starlette, "/by-word/secret/", "/by-word/{tenant}/"),
    (starlette, "/by-word/secret/orders/7", "/by-word/{tenant}/orders/{id:int}"),
    (starlette, "/by-number/007/orders/7", "/by-number/{tenant:int}/orders/{id:int}"),
    (starlette, "/by-path/a/secret/c/end/orders/7", "/by-path/{rest:path}/end/orders/{id:int}"),
    (starlette, "/part-secret-of/orders/7", "/part-{tenant}-of/orders/{id:int}"),
    (starlette, "/by-word/secret/deep/secret/secret", "/by-word/{tenant}/deep/{level}/{leaf}"),
    (starlette, "/by-word/by-word/orders/7", "/by-word/{tenant}/orders/{id:int}"),
    (starlette, "/twice/x/y/orders/7", "/twice/{a}/{a}/orders/{id:int}"),
    (starlette, "/wrapped/secret/deep/x/y", "/wrapped/{tenant}/deep/{level}/{leaf}"),
    (starlette, "/stacked/secret/deep/x/y", "/stacked/{tenant}/deep/{level}/{leaf}"),
    (starlette, "/opaque/secret/orders/7", "/opaque/{tenant}/orders/{id:int}"),
    (starlette, "/opaque/secret/deep/x/y", UNKNOWN_MOUNT + "/{leaf}"),
    (starlette, "/bare/secret/orders/7", "/bare/{tenant}/orders/{id:int}"),
    (starlette, "/by-word/secret/no/thing", UNMATCHED),
    (starlette, "/secret", UNMATCHED),
    (fastapi, "/api/eu/m/07/items/7", "/api/{region}/m/{t:int}/items/{item:int}"),
    (fastapi, "/api/eu/m/07/in/7", "/api/{region}/m/{t:int}/in/{q:int}"),
    (fastapi, "/api/eu/m/07/raw/7", "/api/{region}/m/{t:int}/raw/{q:int}"),
    (fastapi, "/api/eu/m/07/secret", UNMATCHED),
    (fastapi, "/api/eu/raw/7", "/api/{region}/raw/{q:int}"),
    (fastapi, "/api/eu/raw/secret", UNMATCHED),
    (fastapi, "/direct/secret/items/7", "/direct/{t}/items/{item:int}"),
    (fastapi, "/direct/secret/in/7", "/direct/{t}/in/{q:int}"),
    (fastapi, "/direct/secret/docs", "/direct/{t}/docs"),
    (fastapi, "/direct/secret/items/7/", UNMATCHED),
    (fastapi, "/starlette/secret/orders/7", "/starlette/{t}/orders/{id:int}"),
    (fastapi, "/starlette/secret/deep/x/y", "/starlette/{t}/deep/{level}/{leaf}"),
    (fastapi, "/raw/7", "/raw/{q:int}"),
    (mixed, "/outer/secret/api/eu/m/07/in/7", "/outer/{tenant}/api/{region}/m/{t:int}/in/{q:int}"),
    (mixed, "/outer/secret/raw/7", "/outer/{tenant}/raw/{q:int}"),
    (mixed, "/outer/secret/secret", UNMATCHED),
]


@pytest.mark.anyio
@pytest.mark.parametrize("root", ["", "/behind/a/proxy"])
@pytest.mark.parametrize(("make", "path", "template"), CASES)
async def test_ground_42_a_mounts_own_parameters_are_named_not_filled_in(make: Any, path: str, template: str, root: str, ask: Any) -> None:
    templates = Templates(make())
    await ask(templates, root + path, root_path=root)
    assert templates.seen == [template]


@pytest.mark.anyio
async def test_a_host_is_no_part_of_it(ask: Any) -> None:
    templates = Templates(starlette())
    await ask(templates, "/deep/x/y", headers={"host": "secret.example.org"})
    await ask(templates, "/nothing", headers={"host": "secret.example.org"})
    assert templates.seen == ["/deep/{level}/{leaf}", UNMATCHED]


@pytest.mark.anyio
async def test_inside_a_mounted_app_it_is_the_same(ask: Any) -> None:
    templates = Templates(leaves())
    await ask(Starlette(routes=[Mount("/tenants/{tenant}", app=templates)]), "/tenants/secret/deep/x/y")
    assert templates.seen == ["/tenants/{tenant}/deep/{level}/{leaf}"]


@pytest.mark.anyio
async def test_a_path_that_is_changed_further_in_is_not_told(ask: Any) -> None:
    class Rewriting(Wrapped):
        async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
            scope["path"] = "/secret" + scope["path"].removeprefix(scope["root_path"])
            scope["root_path"] = "/secret"
            await self.app(scope, receive, send)

    templates = Templates(Starlette(routes=[Mount("/tenants/{tenant}", app=Rewriting(leaves()))]))
    await ask(templates, "/tenants/secret/orders/7")
    assert templates.seen == [UNKNOWN_MOUNT + "/orders/{id:int}"]


@pytest.mark.anyio
async def test_an_app_that_is_mounted_in_itself_has_an_end(ask: Any) -> None:
    app = Starlette(routes=[Route("/x", ok)])
    app.mount("/{again}", app)
    templates = Templates(app)
    await ask(templates, "/a/b/x")
    await ask(templates, "/a" * 40 + "/x")
    assert templates.seen == ["/{again}/{again}/x", UNKNOWN_MOUNT + "/x"]


@pytest.mark.anyio
@pytest.mark.parametrize("make", [Starlette, FastAPI])
async def test_our_own_routes_are_told_apart(make: Any, ask: Any) -> None:
    app = make()
    Resilience().install(app)
    templates = Templates(app)
    await ask(templates, "/livez")
    await ask(templates, "/metrics")
    assert templates.seen == ["/livez", "/metrics"]


SEGMENTS = st.text(st.characters(blacklist_categories=["Cs"], blacklist_characters="/"), max_size=12)


@given(st.lists(SEGMENTS, max_size=6), st.sampled_from(["by-word", "by-number", "by-path", "part-x-of", "twice", "opaque", "bare", ""]))
def test_ground_42_no_text_of_a_client_gets_in(segments: list[str], first: str) -> None:
    known = {part for _, _, template in CASES for part in template.split("/")} | {"{mount}", "{b}"}
    app = starlette()
    path = "/" + "/".join([first, *segments])
    scope: dict[str, Any] = {"type": "http", "method": "GET", "path": path, "root_path": "", "headers": [], "query_string": b""}

    async def talk(message: Any = None) -> Any:
        return {"type": "http.request"}

    run = app(scope, talk, talk)
    with pytest.raises(StopIteration):
        run.send(None)  # nothing in it ever waits
    template = route_template(scope)
    assert set(template.split("/")) <= known, template
    assert re.fullmatch(r"unmatched|[a-z0-9/{}:-]+", template)


@pytest.mark.anyio
async def test_a_router_without_an_app_around_it(ask: Any) -> None:
    templates = Templates(Router(routes=[Mount("/tenants/{tenant}", app=Router(routes=[Route("/{b}", ok)]))]))
    await ask(templates, "/tenants/secret/x")
    assert templates.seen == ["/tenants/{tenant}/{b}"]
