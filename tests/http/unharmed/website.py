"""A website on loopback that does what clients have to cope with, over HTTP/1.1 and HTTP/2 on the same port.

Run as a program it prints its port, and ends with its standard input.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import os
import re
import socket
import subprocess
import sys
import threading
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Self

import hypercorn.asyncio
import hypercorn.config
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, RedirectResponse, Response, StreamingResponse
from starlette.routing import Route

__all__ = ["Website"]

Endpoint = Callable[[Request], Awaitable[Response]]

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "QUERY"]
TOLD = {"accept", "authorization", "content-type", "content-length", "transfer-encoding", "cookie", "referer", "idempotency-key"}
USER, PASSWORD, REALM, NONCE = "ann", "se:cret", "site", "5ca1ab1e"


def after_reading(endpoint: Endpoint) -> Endpoint:
    """An endpoint that looks at the whole request before it answers, whether or not it has a use for it."""

    async def read(request: Request) -> Response:
        await request.body()
        return await endpoint(request)

    return read


async def echo(request: Request) -> Response:
    """What was asked, as it arrived."""
    body = await request.body()
    headers = {name: value for name, value in request.headers.items() if name in TOLD or name.startswith("x-")}
    assert request.client is not None
    told = {
        "method": request.method,
        "target": str(request.url.path) + ("?" + request.url.query if request.url.query else ""),
        "headers": headers,
        "size": len(body),
        "sha": hashlib.sha256(body).hexdigest(),
        "text": body.decode("latin-1") if len(body) < 2000 else "",
        "version": request.scope["http_version"],
    }
    return JSONResponse(told, headers={"x-connection": str(request.client.port)})


async def redirect(request: Request) -> Response:
    query = request.query_params
    target = query["to"]
    left = int(query.get("left", 1)) - 1
    if left > 0:
        target = str(request.url.include_query_params(left=left))
    response = RedirectResponse(target, int(query.get("status", 302)))
    if "cookie" in query:
        response.set_cookie("hop", query["cookie"])
    return response


async def basic(request: Request) -> Response:
    expected = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
    if request.headers.get("authorization") == expected:
        return await echo(request)
    return PlainTextResponse("who?", 401, {"WWW-Authenticate": f'Basic realm="{REALM}"'})


def md5(*parts: str) -> str:
    return hashlib.md5(":".join(parts).encode()).hexdigest()


async def digest(request: Request) -> Response:
    """RFC 7616 with qop=auth and MD5, and a nonce that holds for ever."""
    given = dict(re.findall(r'(\w+)="?([^",]*)"?', request.headers.get("authorization", "").removeprefix("Digest ")))
    body = await request.body()
    if given.get("nonce") == NONCE:
        secret = md5(USER, REALM, PASSWORD)
        proof = md5(secret, NONCE, given["nc"], given["cnonce"], "auth", md5(request.method, given["uri"]))
        if given["response"] == proof:
            return JSONResponse({"nc": given["nc"], "uri": given["uri"], "size": len(body)})
    return PlainTextResponse("who?", 401, {"WWW-Authenticate": f'Digest realm="{REALM}", nonce="{NONCE}", qop="auth", algorithm=MD5'})


async def token(request: Request) -> Response:
    """For a flow of one's own: says a token first, and wants it back."""
    if request.headers.get("x-token") == "t-1":
        return await echo(request)
    return JSONResponse({"token": "t-1"}, 401)


async def cookies(request: Request) -> Response:
    response = JSONResponse(dict(request.cookies))
    for name, value in request.query_params.items():
        if value:
            response.set_cookie(name, value, path="/cookies")
        else:
            response.delete_cookie(name, path="/cookies")
    return response


async def stream(request: Request) -> Response:
    """Pieces that arrive one by one, without a length."""

    async def pieces() -> AsyncIterator[bytes]:
        for number in range(int(request.query_params.get("pieces", 3))):
            yield b"piece %d \xc3\xa4\n" % number
            await asyncio.sleep(0.001)

    return StreamingResponse(pieces(), media_type="text/plain; charset=utf-8")


async def lines(request: Request) -> Response:
    return PlainTextResponse("one\ntwo\r\nthree\rfour\n\nlast")


async def encoded(request: Request) -> Response:
    how = request.path_params["how"]
    plain = b"in many words " * 200
    body = {
        "gzip": lambda: zlib.compress(plain, wbits=31),
        "deflate": lambda: zlib.compress(plain),
        "gzip, gzip": lambda: zlib.compress(zlib.compress(plain, wbits=31), wbits=31),
        "broken": lambda: b"no gzip at all",
        "identity": lambda: plain,
    }[how]()
    return Response(body, headers={"Content-Encoding": "gzip" if how == "broken" else how, "Content-Type": "text/plain"})


async def status(request: Request) -> Response:
    code = request.path_params["code"]
    return Response(None if code in (204, 304) else b"said %d" % code, code)


async def latin(request: Request) -> Response:
    return Response("müde".encode("latin-1"), headers={"Content-Type": request.query_params.get("type", "text/plain")})


async def large(request: Request) -> Response:
    return Response(bytes(range(256)) * 1024)


async def slow(request: Request) -> Response:
    await asyncio.sleep(float(request.query_params.get("seconds", 5)))
    return PlainTextResponse("at last")


ROUTES = [
    Route("/status/{code:int}", after_reading(status), methods=METHODS),
    Route("/encoded/{how}", encoded),
    *[
        Route(f"/{endpoint.__name__}", after_reading(endpoint), methods=METHODS)
        for endpoint in (echo, redirect, basic, digest, token, cookies, stream, lines, latin, large, slow)
    ],
]


class Website:
    """Runs the site in a process of its own while it is entered, so that it does not share the interpreter with the clients."""

    def __enter__(self) -> Self:
        # It has nothing to do with us, and is measured with nobody.
        alone = {name: value for name, value in os.environ.items() if not name.startswith("COVERAGE")}
        self._process = subprocess.Popen([sys.executable, __file__], env=alone, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"http://127.0.0.1:{self.port}"
        self.elsewhere = f"http://localhost:{self.port}"  # which to a client is another origin
        return self

    def __exit__(self, *raised: Any) -> None:
        with self._process as process:
            assert process.stdin is not None
            process.stdin.close()
            assert process.wait(10) == 0


async def main() -> None:
    """Print the port, and serve until the standard input ends."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    print(listener.getsockname()[1], flush=True)
    config = hypercorn.config.Config()
    config.bind = [f"fd://{listener.detach()}"]
    config.errorlog = config.accesslog = None

    def end_with_the_input() -> None:
        sys.stdin.read()
        os._exit(0)  # without waiting for connections that somebody might still keep

    threading.Thread(target=end_with_the_input, daemon=True).start()
    app: Any = Starlette(routes=ROUTES)
    await hypercorn.asyncio.serve(app, config)


if __name__ == "__main__":
    asyncio.run(main())
