"""Endpoints and templates can ask: `request.state`, FastAPI's `Depends`, Jinja2."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from fastapi import Depends, FastAPI
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from resilient import Brownout, Level, Resilience
from resilient.asgi import DegradationMiddleware, MetricsMiddleware, ResilienceMiddleware
from resilient.testing import FakeClock, RecordingListener


@pytest.mark.anyio
@pytest.mark.parametrize("make", [Starlette, FastAPI])
@pytest.mark.parametrize("enabled", [True, False])
async def test_the_state_of_a_request(make: Any, enabled: bool, clock: FakeClock, ask: Any) -> None:
    resilience = Resilience(clock=clock, enabled=enabled)
    banner = resilience.feature("banner", fallback=None)
    seen: list[Any] = []

    async def page(request: Request) -> Response:
        seen.append((request.state.resilience, request.state.features["banner"], request.state.features["late"].level))
        return JSONResponse({})

    app = make()
    app.router.routes.append(Route("/", page))
    resilience.install(app)
    late = resilience.feature("late", fallback=None)
    await ask(app)
    await ask(app, state={"own": 1})
    assert seen == [(resilience, banner, late.level)] * 2


@pytest.mark.anyio
async def test_what_the_lifespan_left_there_stays(resilience: Resilience, ask: Any) -> None:
    seen: list[Any] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope["state"])
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"ok"})

    state = {"pool": object()}
    await ask(DegradationMiddleware(app, resilience), state=state)
    assert seen == [state]
    assert set(state) == {"pool", "resilience", "features"}


@pytest.mark.anyio
async def test_the_level_is_a_dependency_of_fastapi(resilience: Resilience, ask: Any) -> None:
    whose = ["other"]
    reviews = resilience.feature("reviews", fallback=[], tenant=lambda: whose[0])
    app = FastAPI()
    current = Depends(reviews.current_level)

    @app.get("/")
    async def page(level: Level = current) -> dict[str, str]:
        return {"level": level}

    resilience.install(app)
    reviews.set_level("static", tenant="acme")
    assert (await ask(app)).body == b'{"level":"full"}'
    whose[0] = "acme"
    assert (await ask(app)).body == b'{"level":"static"}'
    assert app.openapi()["paths"]["/"]["get"].get("parameters") is None, "clients have no say in it"


TEMPLATE = """{% if request.state.features.banner.enabled_for() %}banner{% endif %}
level={{ request.state.features.banner.level }} service={{ request.state.resilience.level }}"""


@pytest.mark.anyio
async def test_templates_can_ask(resilience: Resilience, ask: Any, tmp_path: Path) -> None:
    pytest.importorskip("jinja2")
    from starlette.templating import Jinja2Templates

    (tmp_path / "page.html").write_text(TEMPLATE)
    templates = Jinja2Templates(directory=tmp_path)
    banner = resilience.feature("banner", fallback=None, critical=True)

    async def page(request: Request) -> Response:
        return templates.TemplateResponse(request, "page.html")

    app = Starlette(routes=[Route("/", page)])
    resilience.install(app)
    answer = await ask(app)
    assert answer.body == b"banner\nlevel=full service=healthy"
    assert answer.header("degraded") == []
    banner.set_level("off")
    answer = await ask(app)
    assert answer.body == b"\nlevel=off service=critical"
    assert answer.header("degraded") == ["banner;level=off"]


# -- the brownout is told how long requests take --------------------------------------------------------------------


def slow(clock: FakeClock, seconds: float, body: float = 0.0) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        clock.advance(seconds)
        await send({"type": "http.response.start", "status": 200, "headers": []})
        clock.advance(body)
        await send({"type": "http.response.body", "body": b"ok"})

    return app


@pytest.mark.anyio
@pytest.mark.parametrize("middleware", [MetricsMiddleware, ResilienceMiddleware])
async def test_requests_up_to_the_start_of_the_response(middleware: Any, clock: FakeClock, listener: RecordingListener, ask: Any) -> None:
    brownout = Brownout(target=0.5, min_samples=1, period=0.1)
    resilience = Resilience(clock=clock, brownout=brownout)
    inner = ResilienceMiddleware(slow(clock, 0.25, body=5), resilience)
    for _ in range(3):
        await ask(middleware(inner, resilience))
    assert brownout.measured == pytest.approx(0.5), "not the body, and each request once"
    assert brownout.share == 1


@pytest.mark.anyio
async def test_what_is_refused_at_the_door_says_nothing_and_what_is_late_does(clock: FakeClock, ask: Any, anyio_backend: Any) -> None:
    import anyio

    brownout = Brownout(target=0.5, min_samples=1, period=0.1)
    resilience = Resilience(clock=clock, brownout=brownout)

    async def hangs(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(100)

    served = ResilienceMiddleware(hangs, resilience, timeout=2)
    resilience.read_only()
    for _ in range(5):
        await ask(served, method="POST")
    assert brownout._samples == []
    assert (await ask(served)).status == 504
    assert (await ask(served)).status == 504
    assert brownout.measured == pytest.approx(4, rel=0.05)


@pytest.mark.anyio
async def test_what_comes_too_late_and_is_refused_says_nothing(clock: FakeClock, ask: Any) -> None:
    brownout = Brownout(target=0.5, min_samples=100, period=10)
    served = ResilienceMiddleware(slow(clock, 0.4), Resilience(clock=clock, brownout=brownout), trusted=["192.0.2.1"], max_expired=0.5)
    statuses = [(await ask(served, headers={"X-Request-Timeout-Ms": "0"})).status for _ in range(2)]
    assert sorted(statuses) == [200, 504]
    assert brownout._samples == [pytest.approx(0.4)]
