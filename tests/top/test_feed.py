from __future__ import annotations

from typing import Any

import httpx
import pytest

from resilient.top import feed as module
from resilient.top.feed import FeedError, News, dashboard_url

from .documents import document, event, feed, message, streamed


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("http://shop:8000", "http://shop:8000/resilience"),
        ("http://shop:8000/", "http://shop:8000/resilience"),
        ("https://shop/internal", "https://shop/internal/resilience"),
        ("https://shop/internal/resilience/", "https://shop/internal/resilience"),
        ("127.0.0.1:8000", "http://127.0.0.1:8000/resilience"),
        ("[::1]:8000", "http://[::1]:8000/resilience"),
    ],
)
def test_addresses(text: str, url: str) -> None:
    assert dashboard_url(text) == url


@pytest.mark.parametrize("text", ["", "ftp://shop", "http://", "http://shop:99999", "http://[::1", "shop?x=1", "http://shop/#top"])
def test_what_is_no_address_is_said_so(text: str) -> None:
    with pytest.raises(FeedError, match="is no address such as") as told:
        dashboard_url(text)
    assert told.value.lasting


def test_headers_are_sent_along_and_the_state_is_read() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        assert request.url == "http://shop/resilience/state" and request.headers["x-user"] == "ann"
        return httpx.Response(200, json=document())

    reader = feed(handler, **{"x-user": "ann"})
    assert reader.state() == document()
    reader.close()


def refuse(request: httpx.Request) -> httpx.Response:
    raise httpx.ConnectError("refused")


def never(request: httpx.Request) -> httpx.Response:
    raise httpx.ReadTimeout("")


@pytest.mark.parametrize(
    ("answer", "words", "lasting"),
    [
        (httpx.Response(401), "you may not read this (401)", True),
        (httpx.Response(403), "--header", True),
        (httpx.Response(404), "there is no dashboard (404)", True),
        (httpx.Response(307, headers={"location": "http://there"}), "elsewhere (307): http://there", True),
        (httpx.Response(503), "the server says 503", False),
        (httpx.Response(200, text="<html>"), "no state of a service", True),
        (httpx.Response(200, json=[]), "no state of a service", True),
        (httpx.Response(200, json={"version": 1}), "no state of a service", True),
        (httpx.Response(200, text="[" * 100_000), "no state of a service", True),
        (httpx.Response(200, json=document(version=2)), "speaks version 2, and this command version 1", True),
        (refuse, "cannot be reached: refused", False),
        (never, "no answer in time", False),
    ],
)
def test_what_is_wrong_is_said(answer: Any, words: str, lasting: bool) -> None:
    with pytest.raises(FeedError) as told:
        feed(answer if callable(answer) else lambda request: answer).state()
    assert words in str(told.value) and told.value.lasting is lasting


def test_a_document_and_a_line_without_an_end_are_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LARGEST", 1000)
    with pytest.raises(FeedError, match="no end"):
        feed(lambda request: httpx.Response(200, text="x" * 2000)).state()

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=document()) if request.url.path.endswith("state") else streamed("data: " + "x" * 2000)

    assert "no end" in str(list(feed(handler).news())[1].value)


@pytest.mark.parametrize("end", ["\n", "\r\n"])
@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_the_stream_is_read_in_whatever_pieces(end: str, size: int) -> None:
    first, second = document(), document(at=4601.0)
    asked: list[httpx.URL] = []

    def handler(request: httpx.Request) -> httpx.Response:
        asked.append(request.url)
        if request.url.path.endswith("state"):
            return httpx.Response(200, json={**first, "cursor": "run-3"})
        parts = [
            f": awake{end}{end}retry: 2000{end}{end}",
            message("log", event(4), end),
            message("other", {}, end),
            message("state", second, end),
        ]
        return streamed(*parts, size=size)

    news = list(feed(handler).news())
    assert news == [News("state", {**first, "cursor": "run-3"}, live=False), News("log", event(4)), News("state", second)]
    assert asked[1].params["after"] == "run-3"


def test_a_reset_is_answered_with_another_look() -> None:
    states = [document(), document(at=4700.0)]

    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=states.pop(0)) if request.url.path.endswith("state") else streamed(message("reset", {}))

    assert list(feed(handler).news()) == [News("state", document(), live=False), News("state", document(at=4700.0), live=False)]


def test_a_stream_that_breaks_off_is_opened_again() -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("state"):
            return httpx.Response(200, json=document())
        return streamed(message("state", document(at=4601.0)), httpx.ReadError("broken"))

    slept: list[float] = []
    news = list(feed(handler, waits=1, slept=slept).news())
    assert [one.what for one in news] == ["state", "state", "lost"] * 2 and "broken" in str(news[2].value)
    assert slept == [0.0, 1.0, 1.0]


@pytest.mark.parametrize("answer", [httpx.Response(503), httpx.Response(200, text="<html>"), httpx.Response(404)])
def test_without_a_stream_the_state_is_asked_for(answer: httpx.Response) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200, json=document()) if request.url.path.endswith("state") else answer

    slept: list[float] = []
    news = list(feed(handler, waits=17, slept=slept).news())
    # 15 looks, two seconds apart; then the stream is tried again, in vain, and asking goes on.
    assert [one.what for one in news] == ["state", "lost", *["state"] * 15, "state", "lost", "state"]
    assert not any(one.live for one in news if one.what == "state") and slept.count(2.0) == 17


def test_it_goes_on_trying() -> None:
    answers = [httpx.ConnectError("refused"), httpx.Response(200, json=document()), httpx.Response(503), httpx.ConnectError("gone")]

    def handler(request: httpx.Request) -> httpx.Response:
        answer = answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    news = list(feed(handler, waits=2).news())
    assert [one.what for one in news] == ["lost", "state", "lost", "lost"]
