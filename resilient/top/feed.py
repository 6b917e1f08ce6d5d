"""Where the numbers come from: the dashboard's event stream, and its state where there is no stream to be had."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import httpx

__all__ = ["VERSION", "Feed", "FeedError", "News", "dashboard_url"]

VERSION = 1
PATH = "/resilience"
LARGEST = 16 * 1024 * 1024  # bytes of a document, and of a line of the stream
POLL = 2.0  # seconds between two looks at the state
RETRY = 30.0  # seconds after which the stream is tried again meanwhile
AGAIN = 1.0  # seconds before the next try where nothing could be read
LIMITS = httpx.Timeout(5.0, connect=5.0)  # the stream says something at least each second


class FeedError(Exception):
    """The dashboard could not be read; the message says why.

    Args:
        message: for people.
        lasting: whether another try would end the same way.
    """

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class News(NamedTuple):
    """One thing that the dashboard has said.

    Attributes:
        what: "state" (a document), "log" (one event), "lost" (nothing could be read; `value` is the error).
        live: whether it came through the stream.
    """

    what: str
    value: Any
    live: bool = True


def dashboard_url(text: str) -> str:
    """The address of the dashboard: `text` itself, or `/resilience` below it.

    Raises:
        FeedError: that is no address.
    """
    given = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(given)
        valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        valid = False
    if not valid or parts.query or parts.fragment:
        raise FeedError(f"{text!r} is no address such as http://127.0.0.1:8000", lasting=True)
    base = f"{parts.scheme}://{parts.netloc}{parts.path}".rstrip("/")
    return base if base.endswith(PATH) else base + PATH


class Feed:
    """One reader of a dashboard.

    Args:
        url: of the dashboard, as `dashboard_url` makes it.
        headers: sent along, for whoever guards it.
        transport: an httpx transport in place of the network.
        wait: waits for so many seconds, and returns whether to give up.
    """

    def __init__(
        self, url: str, headers: dict[str, str], *, transport: httpx.BaseTransport | None = None, wait: Callable[[float], bool]
    ) -> None:
        self.url = url
        self._client = httpx.Client(headers=headers, timeout=LIMITS, transport=transport)
        self._wait = wait
        self._spoke = False  # whether the stream that was opened last has said anything

    def close(self) -> None:
        """Give the connections back."""
        self._client.close()

    def state(self) -> dict[str, Any]:
        """The whole document.

        Raises:
            FeedError: there is none.
        """
        try:
            with self._client.stream("GET", f"{self.url}/state") as response:
                self._check(response)
                content = b"".join(_bounded(response.iter_bytes()))
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _told(error, self.url) from error
        return _document(content, self.url)

    def news(self) -> Iterator[News]:
        """What is new, until `wait` gives up. It raises nothing: what goes wrong is news too."""
        pause = 0.0
        while not self._wait(pause):
            pause, reached, self._spoke = AGAIN, False, False
            try:
                document = self.state()
                reached = True
                yield News("state", document, live=False)
                yield from self._stream(document.get("cursor"))
            except FeedError as error:
                yield News("lost", error)
            if reached and not self._spoke:
                yield from self._polled()

    def _polled(self) -> Iterator[News]:
        """The state every now and then, until it is time to try the stream again."""
        for _ in range(round(RETRY / POLL)):
            if self._wait(POLL):
                return
            try:
                yield News("state", self.state(), live=False)
            except FeedError as error:
                yield News("lost", error)
                return

    def _stream(self, cursor: Any) -> Iterator[News]:
        """What the stream says, until it ends."""
        query = {"after": cursor} if isinstance(cursor, str) else {}
        try:
            with self._client.stream("GET", f"{self.url}/stream", params=query, headers={"Accept": "text/event-stream"}) as response:
                self._check(response)
                if not response.headers.get("content-type", "").startswith("text/event-stream"):
                    raise FeedError(f"{self.url}/stream is no event stream")
                for event, data in _messages(response.iter_bytes()):
                    self._spoke = True
                    if event == "state":
                        yield News("state", _document(data, self.url))
                    elif event == "log":
                        yield News("log", _parsed(data, self.url))
                    elif event == "reset":
                        yield News("state", self.state(), live=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise _told(error, self.url) from error

    def _check(self, response: httpx.Response) -> None:
        status = response.status_code
        if status == 200:
            return
        if status in (401, 403):
            raise FeedError(f"{self.url}: you may not read this ({status}); --header sends what the app asks for", lasting=True)
        if status == 404:
            raise FeedError(
                f"{self.url}: there is no dashboard (404); is it installed with dashboard=True, and under this path?", lasting=True
            )
        if 300 <= status < 400:
            raise FeedError(f"{self.url}: it is elsewhere ({status}): {response.headers.get('location', '?')}", lasting=True)
        raise FeedError(f"{self.url}: the server says {status}")


def _messages(chunks: Iterator[bytes]) -> Iterator[tuple[str, bytes]]:
    """Event and data of each message of a stream of server-sent events."""
    event, data = "", list[bytes]()
    for line in _lines(chunks):
        field, _, value = line.partition(b":")
        if not line and data:
            yield event, b"\n".join(data)
        if not line:
            event, data = "", []
        elif field == b"event":
            event = value.removeprefix(b" ").decode("utf-8", "replace")
        elif field == b"data":
            data.append(value.removeprefix(b" "))


def _lines(chunks: Iterator[bytes]) -> Iterator[bytes]:
    rest: list[bytes] = []
    for chunk in chunks:
        first, *others = chunk.split(b"\n")
        rest.append(first)
        if sum(map(len, rest)) > LARGEST:
            raise FeedError("what the stream says has no end", lasting=True)
        for line in others:
            yield b"".join(rest).removesuffix(b"\r")
            rest = [line]


def _bounded(chunks: Iterator[bytes]) -> Iterator[bytes]:
    size = 0
    for chunk in chunks:
        size += len(chunk)
        if size > LARGEST:
            raise FeedError("the state has no end", lasting=True)
        yield chunk


def _parsed(content: bytes, url: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError):
        value = None
    if not isinstance(value, dict):
        raise FeedError(f"{url} answers, but with no state of a service that uses resilient", lasting=True)
    return value


def _document(content: bytes, url: str) -> dict[str, Any]:
    document = _parsed(content, url)
    if not all(isinstance(document.get(part), kind) for part, kind in (("service", dict), ("worker", dict), ("dependencies", list))):
        raise FeedError(f"{url} answers, but with no state of a service that uses resilient", lasting=True)
    if document.get("version") != VERSION:
        raise FeedError(f"{url} speaks version {str(document.get('version'))[:20]}, and this command version {VERSION}", lasting=True)
    return document


def _told(error: Exception, url: str) -> FeedError:
    if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
        return FeedError(f"{url} is no address: {error}", lasting=True)
    if isinstance(error, httpx.TimeoutException):
        return FeedError(f"{url}: no answer in time")
    return FeedError(f"{url} cannot be reached: {str(error) or type(error).__name__}")
