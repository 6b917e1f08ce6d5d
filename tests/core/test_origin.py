from __future__ import annotations

from typing import Any

import pytest

from resilient.core.origin import Origin


@pytest.mark.parametrize(
    ("url", "key", "path", "shown"),
    [
        ("http://a.example", ("http", "a.example", 80), "", "http://a.example"),
        ("https://a.example/", ("https", "a.example", 443), "", "https://a.example"),
        ("https://a.example:443/v1/", ("https", "a.example", 443), "/v1", "https://a.example/v1"),
        ("http://a.example:443/a%20b", ("http", "a.example", 443), "/a b", "http://a.example:443/a b"),
        ("http://a.example/X", ("http", "a.example", 80), "/X", "http://a.example/X"),
        ("http://[::1]:8000", ("http", "::1", 8000), "", "http://[::1]:8000"),
    ],
)
def test_scheme_host_port_and_path(url: str, key: tuple[str, str, int], path: str, shown: str) -> None:
    origin = Origin(url)
    assert (origin.key, origin.path, str(origin)) == (key, path, shown)


@pytest.mark.parametrize(("path", "covered"), [("/v1", True), ("/v1/orders", True), ("/v11", False), ("/", False), ("/v2/v1", False)])
def test_what_lies_at_or_below(path: str, covered: bool) -> None:
    assert Origin("http://a.example/v1").covers(path) is covered
    assert Origin("http://a.example").covers(path)


WANTED = "origin: expected a URL such as https://api.example.com"


@pytest.mark.parametrize(
    ("url", "error", "message"),
    [
        (5, TypeError, f"{WANTED}, got 5"),
        *[
            (url, ValueError, f"{WANTED} or https://api.example.com/v1, got {url!r}")
            for url in ("ftp://a.example", "a.example", "http://", "http://a.example?q=1", "http://a.example#top", "http://me@a.example")
        ],
        ("http://a.example:port", ValueError, "origin: Port could not be cast to integer value as 'port', got 'http://a.example:port'"),
    ],
)
def test_what_is_no_origin(url: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error) as caught:
        Origin(url)
    assert str(caught.value) == message
