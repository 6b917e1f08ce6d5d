"""Proxies, given or found in the environment, with a real forward proxy on loopback."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from resilient import Pipeline, Retry, Timeout

from .servers import Peer, Server, answer, answering

TARGET = Timeout(total=5)


async def forward(peer: Peer) -> None:
    """Ask the target on behalf of the client; a tunnel (CONNECT) is refused and remembered."""
    while (asked := await peer.request()) is not None:
        if asked.method == "CONNECT":
            await peer.send(answer(407))
            return
        url = urlsplit(asked.target)
        reader, writer = await asyncio.open_connection(url.hostname, url.port)
        writer.write(f"{asked.method} {url.path or '/'} HTTP/1.1\r\nHost: {url.netloc}\r\nConnection: close\r\n\r\n".encode())
        head, body = (await reader.readuntil(b"\r\n\r\n"), b"fine")
        assert head.startswith(b"HTTP/1.1 200")
        writer.close()
        await peer.send(answer(200, body, "Via: 1.1 loopback"))


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with Server(answering(answer(200, b"fine"))) as running:
        yield running


@pytest.fixture(scope="module")
def running_proxy() -> Iterator[Server]:
    with Server(forward) as running:
        yield running


@pytest.fixture
def proxy(running_proxy: Server) -> Server:
    running_proxy.requests.clear()
    return running_proxy


@pytest.fixture(params=["async", "sync"])
def get(request: pytest.FixtureRequest, library: Any) -> Any:
    """Get a URL through a transport with these options. Returns whether it went through the proxy."""

    def sync(url: str, **options: Any) -> bool:
        with library.Client(transport=library.ours.ResilientTransport(TARGET, verify=False, **options)) as client:
            response = client.get(url)
        assert response.content == b"fine"
        return "via" in response.headers

    async def get(url: str, **options: Any) -> bool:
        async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(TARGET, verify=False, **options)) as client:
            response = await client.get(url)
        assert response.content == b"fine"
        return "via" in response.headers

    return sync if request.param == "sync" else lambda url, **options: asyncio.run(get(url, **options))


def test_direct_without_any(get: Any, server: Server) -> None:
    assert not get(server.url)


def test_given_proxy(get: Any, server: Server, proxy: Server) -> None:
    assert get(server.url + "/x", proxy=proxy.url)
    assert proxy.requests[0].target == f"{server.url}/x"


@pytest.mark.parametrize("variable", ["HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"])
def test_proxy_of_the_environment(get: Any, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    monkeypatch.setenv(variable, proxy.url)
    assert get(server.url)
    assert not get(server.url, trust_env=False)


def test_environment_without_a_scheme(get: Any, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", f"127.0.0.1:{proxy.port}")
    assert get(server.url)


def test_given_proxy_wins_over_the_environments(get: Any, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "*")
    assert get(server.url, proxy=proxy.url)


def test_proxy_of_another_scheme(get: Any, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    assert not get(server.url)


@pytest.mark.parametrize(
    ("excepted", "direct"),
    [
        ("127.0.0.1", True),
        ("*", True),
        ("example.com, 127.0.0.1", True),
        ("127.0.0.1:{port}", True),
        ("127.0.0.1:1", False),
        ("localhost", False),
        ("", False),
    ],
)
def test_exceptions(get: Any, server: Server, proxy: Server, monkeypatch: pytest.MonkeyPatch, excepted: str, direct: bool) -> None:
    monkeypatch.setenv("HTTP_PROXY", proxy.url)
    monkeypatch.setenv("NO_PROXY", excepted.format(port=server.port))
    assert get(server.url) is not direct


def test_tunnel_for_https(library: Any, proxy: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", proxy.url)
    transport = library.ours.ResilientTransport(Pipeline(TARGET, Retry(random=lambda: 0.0)))
    with library.Client(transport=transport) as client, pytest.raises(library.ProxyError):
        client.post("https://secure.test/")
    assert [asked.method for asked in proxy.requests] == ["CONNECT"] * 3, "nothing of it was sent yet, so a POST may be tried again"


@pytest.mark.parametrize(
    ("excepted", "url", "direct"),
    [
        (".example.com", "http://api.example.com/", True),
        ("example.com", "http://api.example.com/", True),
        ("example.com", "http://notexample.com/", False),
        ("::1", "http://[::1]:8000/", True),
        ("example.com:443", "https://example.com/", True),
        ("example.com:443", "http://example.com/", False),
    ],
)
def test_exceptions_by_name(library: Any, monkeypatch: pytest.MonkeyPatch, excepted: str, url: str, direct: bool) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", excepted)
    inner = library.ours.ResilientTransport(TARGET, verify=False)._inner
    assert (inner.pick(library.URL(url)) is inner._direct) is direct
