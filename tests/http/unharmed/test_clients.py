"""What a client is told once and does for every request: cookies, hooks, base URL, timeouts, limits, proxies, mounts."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import pytest

from ..servers import Peer, Server
from .twins import Web, failure, seen

# Where a connection is for one request at a time, and for the proxy below.
over_1_1 = pytest.mark.parametrize(
    "world", ["httpx-asyncio-1.1", "httpx-trio-1.1", "httpx-sync-1.1", "httpx2-asyncio-1.1", "httpx2-sync-1.1"], indirect=True
)


def test_cookies(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(cookies={"own": "1"}) as client:
            told = [(await client.get(f"{web.url}/cookies{query}")).json() for query in ("?a=1&b=2", "", "?a=", "")]
            elsewhere = (await client.get(f"{web.url}/echo")).json()["headers"].get("cookie")
            client.cookies.set("late", "3", domain="127.0.0.1")
            late = (await client.get(f"{web.url}/echo")).json()["headers"].get("cookie")
            return told, elsewhere, late, sorted((cookie.name, cookie.path) for cookie in client.cookies.jar)

    told, elsewhere, late, jar = unharmed(story)
    assert told == [{"own": "1"}, {"own": "1", "a": "1", "b": "2"}, {"own": "1", "a": "1", "b": "2"}, {"own": "1", "b": "2"}]
    assert elsewhere == "own=1" and "late=3" in late
    assert ("b", "/cookies") in jar


def test_event_hooks(unharmed: Any) -> None:
    """One round a hop, and a request that a hook changed is sent changed."""

    async def story(web: Web) -> Any:
        heard: list[Any] = []

        def asked(request: Any) -> None:
            request.headers["x-hook"] = str(len(heard))
            heard.append((request.method, request.url.path))

        def answered(response: Any) -> None:
            heard.append((response.status_code, response.is_closed, response.http_version))

        hooks = {"request": [web.hook(asked)], "response": [web.hook(answered)]}
        async with web.client(event_hooks=hooks, follow_redirects=True) as client:
            response = await client.post(f"{web.url}/redirect?to=/echo&status=307", content=b"x")
            return heard, response.json()["headers"]["x-hook"]

    heard, hook = unharmed(story)
    assert [entry[0] for entry in heard] == ["POST", 307, "POST", 200]
    assert hook == "2"


def test_a_hook_that_raises(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        def strict(response: Any) -> None:
            response.raise_for_status()

        async with web.client(event_hooks={"response": [web.hook(strict)]}) as client:
            for _ in range(3):
                with pytest.raises(web.library.HTTPStatusError) as raised:
                    await client.get(f"{web.url}/status/404")
            return failure(web.library, raised.value), (await client.get(f"{web.url}/echo")).status_code

    assert unharmed(story)[1] == 200


def test_base_url_headers_and_params(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(base_url=f"{web.url}/status/", params={"own": "1"}, headers={"X-Own": "1", "X-Both": "client"}) as client:
            joined = await client.get("404", params={"b": ["2", "3"]})
            absolute = await client.get(f"{web.url}/echo", headers={"X-Both": "request"})
            return seen(joined), absolute.json(), str(client.base_url), dict(client.headers)

    joined, absolute, _, _ = unharmed(story)
    assert urlsplit(joined["url"]).path == "/status/404"
    assert (absolute["headers"]["x-own"], absolute["headers"]["x-both"]) == ("1", "request")


def test_extensions(unharmed: Any) -> None:
    """A program's own reach the library, and the library's reach the program."""

    async def story(web: Web) -> Any:
        heard: list[str] = []

        def note(name: str, _: Any) -> None:
            heard.append(name.partition(".")[0])

        async def note_later(name: str, info: Any) -> None:
            note(name, info)

        async with web.client() as client:
            trace = note if web.world.colour == "sync" else note_later
            response = await client.post(f"{web.url}/echo", content=b"x", extensions={"trace": trace})
            return sorted(set(heard)), sorted(response.extensions), response.extensions["http_version"]

    heard, extensions, _ = unharmed(story)
    assert {"connection"} < set(heard)
    assert "network_stream" in extensions


def test_build_request_and_send(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(headers={"X-Own": "1"}) as client:
            request = client.build_request("GET", f"{web.url}/stream")
            response = await client.send(request, stream=True)
            begun = response.is_closed
            await response.aread()
            told = seen(response)
            await response.aclose()
            left = await client.send(client.build_request("GET", f"{web.url}/stream?pieces=50"), stream=True)
            await left.aclose()
            return begun, told, left.is_closed, response.request is request

    begun, told, left, same = unharmed(story)
    assert not begun and left and same
    assert told["content"].startswith(b"piece 0")


def test_a_connection_is_used_again(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client:
            ports = []
            for path in ("/echo", "/echo", "/redirect?to=/echo", "/echo"):
                response = await client.get(web.url + path, follow_redirects=True)
                ports.append(response.headers["x-connection"])
            async with client.stream("GET", f"{web.url}/stream") as response:
                async for _ in response.aiter_raw():
                    pass
            ports.append((await client.get(f"{web.url}/echo")).headers["x-connection"])
            return len(set(ports)), response.http_version

    connections, version = unharmed(story)
    assert connections == 1
    assert version in ("HTTP/1.1", "HTTP/2")


def test_timeouts(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(timeout=web.library.Timeout(5, read=0.05)) as client:
            with pytest.raises(web.library.ReadTimeout) as raised:
                await client.post(f"{web.url}/slow")
            longer = await client.post(f"{web.url}/slow?seconds=0.1", timeout=3)
            without = await client.post(f"{web.url}/slow?seconds=0.1", timeout=None)
            return failure(web.library, raised.value), longer.text, without.text, client.timeout.as_dict()

    error, longer, without, _ = unharmed(story)
    assert error[0] == "ReadTimeout"
    assert longer == without == "at last"


@over_1_1
def test_a_pool_that_is_full(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        timeout = web.library.Timeout(5, pool=0.1)
        async with web.client(limits=web.library.Limits(max_connections=1), timeout=timeout) as client:
            async with client.stream("GET", f"{web.url}/stream") as response:
                with pytest.raises(web.library.PoolTimeout) as raised:
                    await client.get(f"{web.url}/echo")
                await response.aread()
            return failure(web.library, raised.value)[0], (await client.get(f"{web.url}/echo")).status_code

    assert unharmed(story) == ("PoolTimeout", 200)


def test_errors_of_the_caller(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        errors = []
        async with web.client() as client:
            for url in ("nowhere://x/", "/relative", "http://127.0.0.1:1/"):
                with pytest.raises(web.library.TransportError) as raised:
                    await client.post(url, content=b"x", timeout=2)
                kind, text, request = failure(web.library, raised.value)
                errors.append((kind, text if kind != "ConnectError" else "", request))
            with pytest.raises(web.library.InvalidURL):
                await client.get("http://dep\n/")
        with pytest.raises(RuntimeError, match="closed"):
            await client.get(web.url)
        return errors

    assert [kind for kind, _, _ in unharmed(story)] == ["UnsupportedProtocol", "UnsupportedProtocol", "ConnectError"]


# -- proxies and mounts -----------------------------------------------------------------------------------------------


async def relay(peer: Peer) -> None:
    """A forward proxy: sends a request on with another line at its top, and what comes back as it is."""
    head = await peer.reader.readuntil(b"\r\n\r\n")
    line, rest = head.split(b"\r\n", 1)
    method, target, version = line.split(b" ")
    url = urlsplit(target.decode())
    path = f"{url.path or '/'}{'?' + url.query if url.query else ''}".encode()
    reader, writer = await asyncio.open_connection(url.hostname, url.port)
    writer.write(b"%s %s %s\r\nX-Through: proxy\r\nConnection: close\r\n%s" % (method, path, version, rest))

    async def pump(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        while data := await source.read(65536):
            sink.write(data)
            await sink.drain()

    upward = asyncio.create_task(pump(peer.reader, writer))
    try:
        await pump(reader, peer.writer)
    finally:
        upward.cancel()
        writer.close()


@pytest.fixture(scope="module")
def proxy() -> Iterator[Server]:
    with Server(relay) as running:
        yield running


@over_1_1
def test_a_proxy(unharmed: Any, proxy: Server) -> None:
    async def story(web: Web) -> Any:
        async with web.client(proxy=proxy.url, follow_redirects=True) as client:
            posted = await client.post(f"{web.url}/echo", content=web.pieces(b"one", b"two"))
            moved = await client.get(f"{web.url}/redirect?to=/echo")
            async with client.stream("GET", f"{web.url}/stream") as response:
                lines = [line async for line in response.aiter_lines()]
            return posted.json(), seen(moved), moved.json(), lines

    posted, _, moved, lines = unharmed(story)
    assert posted["headers"]["x-through"] == moved["headers"]["x-through"] == "proxy"
    assert posted["text"] == "onetwo" and len(lines) == 3


@over_1_1
def test_mounts(unharmed: Any, proxy: Server) -> None:
    """A transport for a pattern, each with the policies of what it leads to."""

    async def story(web: Web) -> Any:
        async with web.client(mounts={"http://localhost": proxy.url}) as client:
            through = (await client.get(f"{web.site.elsewhere}/echo")).json()["headers"].get("x-through")
            direct = (await client.get(f"{web.url}/echo")).json()["headers"].get("x-through")
            return through, direct

    assert unharmed(story) == ("proxy", None)


@over_1_1
def test_a_proxy_that_is_not_there(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client(proxy="http://127.0.0.1:1") as client:
            with pytest.raises(web.library.TransportError) as raised:
                await client.post(f"{web.url}/echo", timeout=2)
            return failure(web.library, raised.value)[0]

    assert unharmed(story) == "ConnectError"
