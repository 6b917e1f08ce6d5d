"""What a transport is given: options for the inner transport, an inner transport, a target; and what it refuses."""

from __future__ import annotations

import inspect
import ssl
from pathlib import Path
from typing import Any

import httpx
import httpx2
import pybreaker
import pytest

import resilient.httpx
import resilient.httpx2
from resilient import CircuitBreaker, Dependency, Pipeline, Resilience, Timeout, standard
from resilient.testing import FakeClock, FaultyTransport

from .servers import Server, answer, answering

TRANSPORTS = ["AsyncResilientTransport", "ResilientTransport"]
ONE = Timeout(total=1)


@pytest.fixture(params=TRANSPORTS)
def transport(request: pytest.FixtureRequest, library: Any) -> Any:
    return getattr(library.ours, request.param)


def test_options_build_the_inner_transport(transport: Any, library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    built: list[dict[str, Any]] = []
    name = "AsyncHTTPTransport" if transport.__name__.startswith("Async") else "HTTPTransport"

    def spy(**options: Any) -> Any:
        built.append(options)
        return FaultyTransport()

    spy.__signature__ = inspect.signature(getattr(library.module, name))  # type: ignore[attr-defined]
    monkeypatch.setattr(library.module, name, spy)
    context = ssl.create_default_context()
    transport(
        ONE,
        verify=context,
        cert="c.pem",
        trust_env=False,
        http1=False,
        http2=True,
        proxy="http://p:1",
        retries=2,
        limits=library.Limits(max_connections=7, max_keepalive_connections=2, keepalive_expiry=3),
    )
    (options,) = built
    assert options.pop("limits") == library.Limits(max_connections=7, max_keepalive_connections=7, keepalive_expiry=3)
    assert options == {
        "verify": context, "cert": "c.pem", "trust_env": False, "http1": False, "http2": True, "proxy": "http://p:1", "retries": 2
    }  # fmt: skip


def test_unknown_option(transport: Any) -> None:
    with pytest.raises(TypeError, match="unknown transport option verifi; known are cert, .*verify"):
        transport(ONE, verifi=False)


def test_limits_of_another_kind(transport: Any, library: Any) -> None:
    other = httpx2 if library.module is httpx else httpx
    for limits in (100, other.Limits()):
        with pytest.raises(TypeError, match=f"limits: expected {library.module.__name__}.Limits"):
            transport(ONE, limits=limits)


def test_options_beside_an_inner_transport(transport: Any) -> None:
    with pytest.raises(TypeError, match="http2, verify: these options build the inner transport, and `inner` was given"):
        transport(ONE, FaultyTransport(), verify=False, http2=True)


def test_max_connections_without_an_inner_transport(transport: Any) -> None:
    with pytest.raises(TypeError, match="max_connections: .* say limits="):
        transport(ONE, max_connections=3)


@pytest.mark.parametrize("target", [None, "catalog", 3, Timeout, object()])
def test_target_that_is_none(transport: Any, target: Any) -> None:
    with pytest.raises(TypeError, match="target: expected a Resilience, a Dependency, a Pipeline or a policy"):
        transport(target, FaultyTransport())


@pytest.mark.parametrize("target", [standard(), [ONE], ()])
def test_target_that_is_a_bare_tuple_of_policies(transport: Any, target: Any) -> None:
    with pytest.raises(TypeError, match=rf"^target: put the policies of a {type(target).__name__} into a pipeline"):
        transport(target, FaultyTransport())


def test_target_that_is_missing(transport: Any) -> None:
    with pytest.raises(TypeError, match="'target'"):
        transport()


class Routes:
    """As an app of a web framework has them, which is no target."""

    def route(self, path: str) -> None: ...


def test_target_that_routes_something_else(transport: Any) -> None:
    with pytest.raises(TypeError, match="^target: expected a Resilience"):
        transport(Routes(), FaultyTransport())


@pytest.mark.parametrize("target", [ONE, Pipeline(ONE), Dependency("d"), Resilience(), CircuitBreaker(), pybreaker.CircuitBreaker()])
def test_target_of_each_kind(library: Any, target: Any) -> None:
    with library.Client(transport=library.ours.ResilientTransport(target, FaultyTransport([200]))) as client:
        assert client.get("http://dep/").status_code == 200


# -- objects of the other library -------------------------------------------------------------------------------------


def test_ground_20_inner_transport_of_the_other_library() -> None:
    for ours, other, name in ((resilient.httpx, httpx2, "httpx2"), (resilient.httpx2, httpx, "httpx")):
        with pytest.raises(TypeError, match=f"belongs to {name}, .* import resilient.{name} instead"):
            ours.AsyncResilientTransport(ONE, other.AsyncHTTPTransport(verify=False))
        with pytest.raises(TypeError, match=f"import resilient.{name} instead"):
            ours.ResilientTransport(ONE, other.MockTransport(lambda request: None))


def test_ground_20_inner_transport_of_the_other_colour(library: Any) -> None:
    with pytest.raises(TypeError, match=r"expected a transport with handle_async_request\(request\), got .*HTTPTransport"):
        library.ours.AsyncResilientTransport(ONE, library.HTTPTransport(verify=False))
    with pytest.raises(TypeError, match=r"expected a transport with handle_request\(request\)"):
        library.ours.ResilientTransport(ONE, library.AsyncHTTPTransport(verify=False))
    with pytest.raises(TypeError, match="expected a transport"):
        library.ours.ResilientTransport(ONE, library.MockTransport)


@pytest.mark.anyio
async def test_ground_20_client_of_the_other_library() -> None:
    for ours, other, right in ((resilient.httpx, httpx2, "httpx2"), (resilient.httpx2, httpx, "httpx")):
        expected = f"{ours.__name__} works with .* clients, not with {right}'s: import the transport from resilient.{right}"
        async with other.AsyncClient(transport=ours.AsyncResilientTransport(ONE, FaultyTransport())) as client:
            with pytest.raises(TypeError, match=expected):
                await client.get("http://dep/")
        with other.Client(transport=ours.ResilientTransport(ONE, FaultyTransport())) as sync_client:
            with pytest.raises(TypeError, match=expected):
                sync_client.get("http://dep/")


def test_ground_20_request_of_no_library(library: Any) -> None:
    with pytest.raises(TypeError, match="not with str: pass a request made by the client"):
        library.ours.ResilientTransport(ONE, FaultyTransport()).handle_request("http://dep/")


@pytest.mark.anyio
@pytest.mark.parametrize("answer", ["other", None, "text"])
async def test_ground_20_answer_of_the_other_library(library: Any, answer: Any) -> None:
    """Of an inner transport that passes for one of this library; it is no fault of the dependency."""
    if answer == "other":
        answer = (httpx2 if library.module is httpx else httpx).Response(200)
    dependency = Dependency("dep")
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([lambda request: answer]), max_connections=1)
    async with library.AsyncClient(transport=transport) as client:
        for _ in range(2):
            with pytest.raises(TypeError, match=f"inner: expected to get a response of {library.module.__name__}, got "):
                await client.get("http://dep/")
    with library.Client(transport=library.ours.ResilientTransport(dependency, FaultyTransport([lambda request: answer]))) as client:
        with pytest.raises(TypeError, match="inner: expected to get a response"):
            client.get("http://dep/")
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 0
    assert dependency.breaker is not None
    assert dependency.breaker.fail_counter == 0


# -- life of the inner transport --------------------------------------------------------------------------------------


class Living(FaultyTransport):
    """Notes when it is entered and left."""

    def __init__(self) -> None:
        super().__init__()
        self.life: list[str] = []

    async def __aenter__(self) -> Any:
        self.life.append("entered")

    async def __aexit__(self, *raised: Any) -> None:
        self.life.append("left")

    __enter__ = lambda self: self.life.append("entered")  # noqa: E731
    __exit__ = lambda self, *raised: self.life.append("left")  # noqa: E731

    async def aclose(self) -> None:
        self.life.append("closed")

    def close(self) -> None:
        self.life.append("closed")


@pytest.mark.anyio
async def test_inner_transport_lives_as_long_as_the_client(library: Any) -> None:
    inner = Living()
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(ONE, inner)):
        assert inner.life == ["entered"]
    with library.Client(transport=library.ours.ResilientTransport(ONE, inner)):
        pass
    assert inner.life == ["entered", "left"] * 2
    await library.AsyncClient(transport=library.ours.AsyncResilientTransport(ONE, inner)).aclose()
    library.Client(transport=library.ours.ResilientTransport(ONE, inner)).close()
    assert inner.life[4:] == ["closed", "closed"]


@pytest.mark.anyio
async def test_inner_transport_that_can_only_be_closed(library: Any) -> None:
    closed = []

    class Plain:
        async def handle_async_request(self, request: Any) -> Any:
            return library.Response(200)

        def handle_request(self, request: Any) -> Any:
            return library.Response(200)

        async def aclose(self) -> None:
            closed.append("aclose")

        def close(self) -> None:
            closed.append("close")

    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(ONE, Plain())) as client:
        assert (await client.get("http://dep/")).status_code == 200
    with library.Client(transport=library.ours.ResilientTransport(ONE, Plain())) as sync_client:
        assert sync_client.get("http://dep/").status_code == 200
    assert closed == ["aclose", "close"]


# -- switched off -----------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_disabled_passes_everything_through_untouched(library: Any, clock: FakeClock) -> None:
    resilience = Resilience(enabled=False, clock=clock)
    answered = library.Response(503)
    inner = FaultyTransport([lambda request: answered])
    transport = library.ours.AsyncResilientTransport(resilience, inner)
    request = library.Request("GET", "http://dep/")
    assert await transport.handle_async_request(request) is answered
    assert inner.requests == [request]
    assert inner.requests[0] is request
    assert library.ours.ResilientTransport(resilience, inner).handle_request(request) is answered
    resilience.enabled = True
    assert (
        await library.AsyncClient(transport=library.ours.AsyncResilientTransport(resilience, FaultyTransport([503, 200]))).get(
            "http://dep/"
        )
    ).status_code == 200


def test_environment_switches_off(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESILIENT_ENABLED", "0")
    inner = FaultyTransport([503])
    with library.Client(transport=library.ours.ResilientTransport(Resilience(), inner)) as client:
        assert client.get("http://dep/").status_code == 503
    assert len(inner.requests) == 1


# -- on a real server -------------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_connections_are_kept_as_long_as_there_may_be_any(library: Any) -> None:
    """A lower limit for idle connections would count the busy ones too, and close good ones."""
    import anyio

    with Server(answering(answer(), delay=0.02)) as server:
        limits = library.Limits(max_connections=4, max_keepalive_connections=1)
        transport = library.ours.AsyncResilientTransport(Timeout(total=5), verify=False, limits=limits)
        async with library.AsyncClient(transport=transport) as client:
            for _ in range(3):
                async with anyio.create_task_group() as group:
                    for _ in range(4):
                        group.start_soon(client.get, server.url)
    assert server.connections == 4


def test_unix_socket_goes_by_no_proxy(library: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    transport = library.ours.ResilientTransport(ONE, verify=False, uds=str(tmp_path / "socket"))
    assert isinstance(transport._inner, library.HTTPTransport)
