"""Bodies of requests: bytes, text, JSON, forms, files, generators, large ones, and every method."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path
from typing import Any

import pytest

from .twins import Web, seen

LARGE = bytes(range(251)) * 800  # more than a piece, a window and a buffer of the network's


BODIES: list[dict[str, Any]] = [
    {"content": b"bytes"},
    {"content": "text ä"},
    {"content": b""},
    {"content": LARGE},
    {"json": {"ä": [1, None]}},
    {"data": {"a": ["1", "2"], "b": "ä &"}},
]


def test_bodies(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        told = []
        async with web.client() as client:
            for body in BODIES:
                response = await client.put(f"{web.url}/echo", **body)
                told.append((seen(response), response.json()))
        return told

    for body, (told, answer) in zip(BODIES, unharmed(story), strict=True):
        assert told["status"][0] == 200
        if "content" in body:
            content = body["content"].encode() if isinstance(body["content"], str) else body["content"]
            assert answer["sha"] == hashlib.sha256(content).hexdigest()


def test_a_generator(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        told = []
        async with web.client() as client:
            for headers in ({}, {"Content-Length": "9"}):
                body = web.pieces(b"one", b"", b"two", b"end")
                response = await client.post(f"{web.url}/echo", content=body, headers=headers)
                told.append((seen(response), response.json()))
        return told

    assert [answer["text"] for _, answer in unharmed(story)] == ["onetwoend"] * 2


def test_a_large_generator(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client:
            response = await client.put(f"{web.url}/echo", content=web.pieces(*[LARGE] * 2, b"end"))
            return response.json()

    assert unharmed(story)["sha"] == hashlib.sha256(LARGE * 2 + b"end").hexdigest()


def test_a_generator_that_raises(unharmed: Any) -> None:
    """The error is the program's own, and the client lives on."""

    async def story(web: Web) -> Any:
        def pieces() -> Any:
            yield b"one"
            raise KeyError("mine")

        async def colourful() -> Any:
            for piece in pieces():
                yield piece

        async with web.client() as client:
            with pytest.raises(KeyError, match="mine"):
                await client.post(f"{web.url}/echo", content=pieces() if web.world.colour == "sync" else colourful())
            return (await client.get(f"{web.url}/echo")).status_code

    assert unharmed(story) == 200


def test_multipart(unharmed: Any, tmp_path: Path) -> None:
    path = tmp_path / "lamp.txt"
    path.write_bytes(b"of a file" * 1000)

    async def story(web: Web) -> Any:
        sizes = []
        async with web.client() as client:
            boundary = {"Content-Type": "multipart/form-data; boundary=between"}
            with path.open("rb") as file:
                for files in (
                    {"a": b"bytes"},
                    {"a": ("name.bin", io.BytesIO(b"in memory"), "image/png", {"X-Part": "1"})},
                    [("many", ("1.txt", b"one")), ("many", ("2.txt", b"two"))],
                    {"file": file},
                ):
                    response = await client.post(f"{web.url}/echo", files=files, data={"field": ["x", "y"]}, headers=boundary)
                    sizes.append(response.json())
        return sizes

    told = unharmed(story)
    assert [answer["headers"]["content-type"] for answer in told] == ["multipart/form-data; boundary=between"] * 4
    assert told[3]["size"] > 9000


def test_methods(unharmed: Any) -> None:
    methods = ["GET", "HEAD", "OPTIONS", "POST", "PUT", "PATCH", "DELETE", "QUERY"]

    async def story(web: Web) -> Any:
        told = []
        async with web.client() as client:
            for method in methods:
                if method == "QUERY":  # which httpx2 alone has a function for
                    response = await client.request("QUERY", f"{web.url}/echo", content=b"select")
                else:
                    response = await getattr(client, method.lower())(f"{web.url}/echo")
                told.append(seen(response))
        return told

    assert [told["request"][0] for told in unharmed(story)] == methods


def test_a_request_is_left_as_it_was(unharmed: Any) -> None:
    """Sent twice, it is the same request, with the extensions and headers that the program gave it."""

    async def story(web: Web) -> Any:
        async with web.client(timeout=7) as client:
            request = client.build_request("POST", f"{web.url}/echo", json={"n": 1}, headers={"X-Own": "1"}, extensions={"own": 5})
            before = dict(request.extensions), sorted(request.headers.items()), request.content, type(request.stream).__name__
            answers = [(await client.send(request)).json() for _ in range(2)]
            after = dict(request.extensions), sorted(request.headers.items()), request.content, type(request.stream).__name__
            return before, after, answers

    before, after, answers = unharmed(story)
    assert before == after
    assert answers[0] == answers[1]
