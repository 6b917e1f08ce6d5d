"""The Degraded header, and that adding it neither loses nor doubles a message."""

from __future__ import annotations

from typing import Any

import anyio
import http_sf
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from starlette.routing import Mount, Route

from resilient import CircuitOpen, Fallback, Level, Resilience
from resilient.asgi import DegradationMiddleware, ResilienceMiddleware
from resilient.asgi.degradation import degraded_field
from resilient.context import current_record
from resilient.core.degradation import Degradation

START = {"type": "http.response.start", "status": 200, "headers": []}
BODY = {"type": "http.response.body", "body": b"ok"}


@pytest.fixture(params=[DegradationMiddleware, ResilienceMiddleware])
def middleware(request: pytest.FixtureRequest) -> Any:
    return request.param


def degrade(name: str = "recommendations", level: Level = Level.STATIC, cause: str = "circuit_open", **details: Any) -> bool:
    record = current_record()
    assert record is not None
    return record.add(name, level, cause, **details)


def answering(*degradations: tuple[Any, ...], **details: Any) -> Any:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        for arguments in degradations:
            degrade(*arguments, **details)
        await send(START)
        await send(BODY)

    return app


# -- the header -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_degraded_response_says_so(middleware: Any, resilience: Resilience, ask: Any) -> None:
    answer = await ask(middleware(answering(("recommendations", Level.STATIC, "circuit_open")), resilience))
    assert answer.header("degraded") == ["recommendations;level=static"]
    assert answer.body == b"ok"


@pytest.mark.anyio
async def test_a_response_that_is_not_is_left_as_it_is(middleware: Any, resilience: Resilience, ask: Any) -> None:
    assert (await ask(middleware(answering(), resilience))).messages == [START, BODY]


@pytest.mark.anyio
async def test_each_feature_is_told_once_at_its_worst(resilience: Resilience, ask: Any) -> None:
    app = answering(("a", Level.REDUCED, "x"), ("b", Level.STATIC, "x"), ("a", Level.OFF, "y"), ("a", Level.STATIC, "z"))
    answer = await ask(DegradationMiddleware(app, resilience))
    assert answer.header("degraded") == ["a;level=off, b;level=static"]


@pytest.mark.anyio
async def test_causes_are_told_only_when_asked_for(resilience: Resilience, ask: Any) -> None:
    app = answering(("reviews", Level.REDUCED, "status_503"), dependency="http://reviews:80", age=12.9)
    assert (await ask(DegradationMiddleware(app, resilience))).header("degraded") == ["reviews;level=reduced"]
    answer = await ask(DegradationMiddleware(app, resilience, expose_causes=True))
    assert answer.header("degraded") == ["reviews;level=reduced;cause=status_503;dependency=http://reviews:80;age=12"]


@pytest.mark.anyio
async def test_the_apps_own_field_stays(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        degrade("b")
        headers = ((b"degraded", b"a;level=off"),)
        await send({**START, "headers": headers})
        assert headers == ((b"degraded", b"a;level=off"),)

    assert (await ask(DegradationMiddleware(app, resilience))).header("degraded") == ["a;level=off", "b;level=static"]


@pytest.mark.anyio
async def test_a_start_without_headers_gets_one(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        degrade("a")
        await send({"type": "http.response.start", "status": 204})

    assert (await ask(DegradationMiddleware(app, resilience))).header("degraded") == ["a;level=static"]


@pytest.mark.anyio
async def test_the_name_can_be_chosen(middleware: Any, resilience: Resilience, ask: Any) -> None:
    answer = await ask(middleware(answering(("a", Level.OFF, "x")), resilience, degraded_header="X-Shop-Degraded"))
    assert answer.header("x-shop-degraded") == ["a;level=off"]


@pytest.mark.parametrize("name", ["", "De graded", "Degraded:", "Dégradé", None])
def test_a_name_that_is_none_is_refused(middleware: Any, name: Any, resilience: Resilience) -> None:
    with pytest.raises(ValueError, match="degraded_header"):
        middleware(answering(), resilience, degraded_header=name)


@pytest.mark.anyio
async def test_our_own_answers_say_so_too(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        degrade("reviews")
        raise CircuitOpen("x")

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        degrade("reviews")
        await anyio.sleep(100)

    for inner in (app, slow):
        answer = await ask(ResilienceMiddleware(inner, resilience, timeout=1))
        assert answer.status in (503, 504)
        assert answer.header("degraded") == ["reviews;level=static"]


@pytest.mark.slow
@given(
    st.lists(
        st.builds(
            Degradation,
            st.text(min_size=1, max_size=20),
            st.sampled_from(Level),
            st.text(max_size=20),
            st.text(max_size=20),
            st.none() | st.floats(allow_nan=True, allow_infinity=True),
        ),
        max_size=5,
    )
)
def test_whatever_names_hold_the_field_is_a_list_of_rfc_9651(degradations: list[Degradation]) -> None:
    field = degraded_field(degradations, expose_causes=True)
    parsed = http_sf.parse(field.encode("ascii"), tltype="list")
    assert [str(item) for item, _ in parsed] == [entry.feature.encode(errors="replace").decode() for entry in degradations]
    assert [str(parameters["level"]) for _, parameters in parsed] == [entry.level for entry in degradations]
    assert [str(parameters["cause"]) for _, parameters in parsed] == [
        entry.cause.encode(errors="replace").decode() for entry in degradations
    ]
    for entry, (_, parameters) in zip(degradations, parsed, strict=True):
        assert ("age" in parameters) == (entry.age is not None and entry.age >= 0)
        assert ("dependency" in parameters) == bool(entry.dependency)


def test_a_plain_name_is_a_token() -> None:
    ((name, parameters),) = http_sf.parse(b"recommendations;level=static", tltype="list")
    assert isinstance(name, http_sf.Token)
    assert isinstance(parameters["level"], http_sf.Token)
    assert degraded_field([Degradation("recommendations", Level.STATIC, "x")]) == "recommendations;level=static"


# -- the record -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_there_is_a_record_during_the_request_alone(middleware: Any, resilience: Resilience, ask: Any) -> None:
    assert current_record() is None
    await ask(middleware(answering(("a", Level.OFF, "x")), resilience))
    assert current_record() is None


@pytest.mark.anyio
async def test_what_comes_after_the_start_is_counted_and_told_to_nobody(resilience: Resilience, ask: Any) -> None:
    seen = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert degrade("a") is True
        await send(START)
        assert degrade("b") is False
        seen.append(current_record())
        await send(BODY)

    answer = await ask(DegradationMiddleware(app, resilience))
    assert answer.header("degraded") == ["a;level=static"]
    assert seen[0].late == 1


@pytest.mark.anyio
async def test_requests_at_the_same_time_have_records_of_their_own(resilience: Resilience, ask: Any) -> None:
    async def app(scope: Any, receive: Any, send: Any) -> None:
        await anyio.sleep(1)
        degrade(scope["path"][1:])
        await anyio.sleep(1)
        await send(START)
        await send(BODY)

    told = {}
    middleware = DegradationMiddleware(app, resilience)

    async def one(name: str) -> None:
        told[name] = (await ask(middleware, f"/{name}")).header("degraded")

    async with anyio.create_task_group() as tasks:
        for number in range(20):
            tasks.start_soon(one, f"f{number}")
    assert told == {f"f{number}": [f"f{number};level=static"] for number in range(20)}


@pytest.mark.anyio
async def test_ground_46_a_sync_endpoint_writes_to_the_same_record(ask: Any) -> None:
    def endpoint(request: Request) -> Response:
        degrade("reviews")
        return PlainTextResponse("ok")

    app = Starlette(routes=[Route("/", endpoint)])
    live = Resilience()
    live.install(app)
    assert (await ask(app)).header("degraded") == ["reviews;level=static"]


@pytest.mark.anyio
async def test_a_mounted_app_with_its_own_middleware_tells_once(resilience: Resilience, ask: Any) -> None:
    async def endpoint(request: Request) -> Response:
        degrade("reviews")
        return PlainTextResponse("ok")

    inner = Starlette(routes=[Route("/x", endpoint)])
    resilience.install(inner)
    outer = Starlette(routes=[Mount("/in", app=inner)])
    resilience.install(outer)
    assert (await ask(outer, "/in/x")).header("degraded") == ["reviews;level=static"]


@pytest.mark.anyio
async def test_a_request_made_in_process_is_another_request(resilience: Resilience, ask: Any) -> None:
    answers = []

    async def endpoint(request: Request) -> Response:
        answers.append(await ask(inner))
        return PlainTextResponse("ok")

    inner = DegradationMiddleware(answering(("stock", Level.OFF, "x")), resilience)
    outer = DegradationMiddleware(Starlette(routes=[Route("/", endpoint)]), resilience)
    answers.append(await ask(outer))
    assert [answer.header("degraded") for answer in answers] == [["stock;level=off"], []]


# -- pitfall 1 ------------------------------------------------------------------------------------------------------


@pytest.mark.anyio
@pytest.mark.parametrize("chunks", [0, 1, 5])
async def test_pitfall_01_a_streamed_response_keeps_every_message_once(chunks: int, resilience: Resilience, ask: Any) -> None:
    async def stream() -> Any:
        for number in range(chunks):
            yield f"{number}".encode()
            await anyio.sleep(1)

    async def endpoint(request: Request) -> Response:
        degrade("reviews")
        return StreamingResponse(stream())

    app = Starlette(routes=[Route("/", endpoint)])
    resilience.install(app)
    answer = await ask(app)
    assert len(answer.starts) == 1
    assert answer.header("degraded") == ["reviews;level=static"]
    assert len(answer.messages) == 1 + chunks + 1
    assert answer.body == b"".join(f"{number}".encode() for number in range(chunks))


@pytest.mark.anyio
async def test_pitfall_01_messages_of_other_kinds_pass_in_their_order(middleware: Any, resilience: Resilience, ask: Any) -> None:
    sent = [
        {"type": "http.response.early_hint", "links": []},
        {"type": "http.response.debug", "info": {}},
        {**START, "trailers": True},
        {"type": "http.response.push", "path": "/x", "headers": []},
        {**BODY, "more_body": True},
        BODY,
        {"type": "http.response.trailers", "headers": []},
    ]

    async def app(scope: Any, receive: Any, send: Any) -> None:
        for message in sent:
            await send(message)

    assert (await ask(middleware(app, resilience))).messages == sent


# -- from the outbound side -----------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_fallback_of_a_dependency_is_told_and_its_name_to_those_who_may_know(resilience: Resilience, ask: Any) -> None:
    stock = resilience.dependency("stock", Fallback([]))
    prices = resilience.dependency("prices", Fallback([]))

    async def unreachable() -> list[str]:
        raise ConnectionRefusedError

    async def app(scope: Any, receive: Any, send: Any) -> None:
        assert await stock.call(unreachable) == await prices.call(unreachable) == []
        await send(START)
        await send(BODY)

    guarded = ResilienceMiddleware(app, resilience, trusted=["10.0.0.0/8"])
    assert (await ask(guarded)).header("degraded") == ["dependency;level=static"]
    named = [", ".join(f"{name};level=static;cause=ConnectionRefusedError;dependency={name}" for name in ("stock", "prices"))]
    assert (await ask(guarded, client=("10.0.0.1", 1))).header("degraded") == named
    assert (await ask(ResilienceMiddleware(app, resilience, expose_causes=True))).header("degraded") == named


@pytest.mark.anyio
async def test_a_feature_may_be_called_like_its_dependency(resilience: Resilience, ask: Any) -> None:
    stock = resilience.dependency("stock")

    @resilience.feature("stock", needs=[stock], fallback=[])
    async def in_stock() -> list[str]:
        raise CircuitOpen("stock: open", dependency="stock")

    async def app(scope: Any, receive: Any, send: Any) -> None:
        await in_stock()
        await send(START)
        await send(BODY)

    assert (await ask(ResilienceMiddleware(app, resilience))).header("degraded") == ["stock;level=static"]


@pytest.mark.anyio
async def test_a_feature_is_told_and_its_neighbours_are_not(resilience: Resilience, ask: Any) -> None:
    @resilience.feature("recommendations", fallback=[])
    async def recommendations() -> list[str]:
        raise CircuitOpen("x")

    @resilience.feature("reviews", fallback=[])
    async def reviews() -> list[str]:
        return ["good"]

    async def endpoint(request: Request) -> Response:
        return JSONResponse([await recommendations(), await reviews()])

    app = Starlette(routes=[Route("/", endpoint)])
    resilience.install(app)
    answer = await ask(app)
    assert answer.body == b'[[],["good"]]'
    assert answer.header("degraded") == ["recommendations;level=static"]
