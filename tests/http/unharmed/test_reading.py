"""Bodies of answers: whole or piece by piece, read twice, encoded, broken, empty."""

from __future__ import annotations

from typing import Any

import pytest

from .twins import Web, failure, seen

READERS: list[tuple[str, dict[str, int]]] = [
    ("aiter_raw", {}),
    ("aiter_raw", {"chunk_size": 70}),
    ("aiter_bytes", {}),
    ("aiter_bytes", {"chunk_size": 70}),
    ("aiter_text", {}),
    ("aiter_lines", {}),
]


@pytest.mark.parametrize("path", ["/stream?pieces=8", "/large", "/encoded/gzip", "/latin"], ids=lambda path: path[1:4])
def test_piece_by_piece(unharmed: Any, path: str) -> None:
    async def story(web: Web) -> Any:
        told = []
        async with web.client() as client:
            for reader, settings in READERS if path != "/large" else READERS[::2]:
                async with client.stream("GET", web.url + path) as response:
                    begun = response.is_closed, response.is_stream_consumed
                    pieces = [piece async for piece in getattr(response, reader)(**settings)]
                    whole = pieces if reader == "aiter_lines" else type(pieces[0])().join(pieces)
                    sizes = {len(piece) for piece in pieces[:-1]} if settings else None
                    told.append((begun, whole, sizes, response.is_closed, response.num_bytes_downloaded))
        return told

    for begun, whole, sizes, closed, downloaded in unharmed(story):
        assert begun == (False, False) and closed
        assert whole and downloaded and not (sizes or set()) - {70}


def test_lines_of_every_ending(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client, client.stream("GET", f"{web.url}/lines") as response:
            return [line async for line in response.aiter_lines()]

    assert unharmed(story) == ["one", "two", "three", "four", "", "last"]


def test_read_twice(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client, client.stream("GET", f"{web.url}/stream") as response:
            with pytest.raises(web.library.ResponseNotRead):
                _ = response.content
            first = await response.aread()
            again = await response.aread(), b"".join([piece async for piece in response.aiter_bytes()]), response.text
            with pytest.raises(web.library.StreamConsumed) as raised:
                [piece async for piece in response.aiter_raw()]
            return first, again, failure(web.library, raised.value)

    first, again, error = unharmed(story)
    assert again[0] == again[1] == first
    assert error[0] == "StreamConsumed"


def test_iterated_twice(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        errors = []
        async with web.client() as client, client.stream("GET", f"{web.url}/stream") as response:
            async for _ in response.aiter_raw():
                pass
            for again in (response.aiter_raw, response.aiter_bytes):
                with pytest.raises(web.library.StreamConsumed) as raised:
                    [piece async for piece in again()]
                errors.append(failure(web.library, raised.value))
            with pytest.raises(web.library.StreamConsumed):
                await response.aread()
        return errors

    assert [error[0] for error in unharmed(story)] == ["StreamConsumed"] * 2


def test_left_early_and_asked_again(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client:
            async with client.stream("GET", f"{web.url}/stream?pieces=50") as response:
                pass
            with pytest.raises(web.library.StreamClosed) as raised:
                await response.aread()
            after = await client.get(f"{web.url}/echo")
            return response.is_closed, response.is_stream_consumed, failure(web.library, raised.value), seen(after)

    closed, consumed, error, after = unharmed(story)
    assert closed and not consumed
    assert error[0] == "StreamClosed" and after["status"][0] == 200


def test_encodings(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client:
            return [seen(await client.get(f"{web.url}/encoded/{how}")) for how in ("gzip", "deflate", "identity", "gzip, gzip")]

    assert [told["content"] for told in unharmed(story)] == [b"in many words " * 200] * 4


@pytest.mark.filterwarnings("ignore:Async generator 'http:ResourceWarning")  # of the libraries, with us or without
def test_an_encoding_that_is_none(unharmed: Any) -> None:
    async def story(web: Web) -> Any:
        async with web.client() as client:
            with pytest.raises(web.library.DecodingError) as raised:
                await client.get(f"{web.url}/encoded/broken")
            after = await client.get(f"{web.url}/echo")
            return failure(web.library, raised.value), after.status_code

    error, after = unharmed(story)
    assert (error[0], after) == ("DecodingError", 200)


def test_default_encoding(unharmed: Any) -> None:
    encodings: list[Any] = ["utf-8", "latin-1", lambda content: "cp1252"]
    declared = ["text/plain", "text/plain; charset=iso-8859-1", "text/plain; charset=none-such"]

    async def story(web: Web) -> Any:
        told = []
        for encoding in encodings:
            async with web.client(default_encoding=encoding) as client:
                told.append([seen(await client.get(f"{web.url}/latin", params={"type": kind})) for kind in declared])
        return told

    readable = [["müde" in told["text"] for told in answers] for answers in unharmed(story)]
    assert readable == [[False, True, False], [True] * 3, [True] * 3]


def test_answers_without_a_body(unharmed: Any) -> None:
    cases = [("HEAD", "/large"), ("GET", "/status/204"), ("GET", "/status/304"), ("POST", "/status/204")]

    async def story(web: Web) -> Any:
        async with web.client() as client:
            return [seen(await client.request(method, web.url + path)) for method, path in cases for _ in range(2)]

    told = unharmed(story)
    assert told[::2] == told[1::2]
    assert all(answer["closed"] == (True, True, True) and answer["content"] == b"" for answer in told)


def test_raise_for_status(unharmed: Any) -> None:
    """A POST, since a GET of an answer in the 500s would be tried again; a 429 would be for any that can be."""
    codes = [200, 204, 302, 400, 404, 418, 429, 500, 501]

    async def story(web: Web) -> Any:
        told = []
        async with web.client() as client:
            for code in codes:
                response = await client.post(f"{web.url}/status/{code}", content=web.pieces(b"x"))
                try:
                    told.append(("fine", response.raise_for_status().status_code, seen(response)))
                except web.library.HTTPStatusError as error:
                    told.append(("raised", failure(web.library, error), seen(error.response)))
        return told

    for code, (word, detail, told) in zip(codes, unharmed(story), strict=True):
        assert word == ("fine" if code < 300 else "raised")
        assert told["status"][0] == code
        assert detail == code or detail[0] == "HTTPStatusError"
