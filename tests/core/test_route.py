"""Patterns of requests: what they are for, and which of two is the narrower one."""

from __future__ import annotations

import re
import time
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.route import Route


def url(text: str) -> Any:
    scheme, rest = text.split("://", 1)
    host, slash, path = rest.partition("/")
    name, _, port = host.partition(":")
    return SimpleNamespace(scheme=scheme, host=name, port=int(port) if port else None, path=slash + path)


def means(route: Route, method: str, asked: str) -> bool:
    return route.matches(method, url(asked), url(asked).path)


@pytest.mark.parametrize(
    ("pattern", "method", "asked", "meant"),
    [
        ("GET", "GET", "http://a/x", True),
        ("GET", "POST", "http://a/x", False),
        ("GET,HEAD /x", "HEAD", "http://a/x", True),
        ("GET,HEAD /x", "GET", "http://a/y", False),
        ("M-SEARCH /x", "M-SEARCH", "http://a/x", True),
        ("/orders/{id}", "PUT", "http://a/orders/7", True),
        ("/orders/{id}", "PUT", "http://a/orders/7/lines", False),
        ("/orders/{id}", "PUT", "http://a/orders/", False),
        ("/orders/{id}", "PUT", "http://a/orders", False),
        ("/orders/{id}/lines", "GET", "http://a/orders/7/lines", True),
        ("/files/{name:path}", "GET", "http://a/files/a/b/c", True),
        ("/files/{name:path}", "GET", "http://a/files/", True),
        ("/files/{name:path}", "GET", "http://a/files", False),
        ("/files/{name:path}", "GET", "http://a/files/a\nb", True),
        ("/v1.0/x", "GET", "http://a/v1x0/x", False),
        ("/", "GET", "http://a/", True),
        ("http://a", "GET", "http://a/x", True),
        ("http://a:80", "GET", "http://a/x", True),
        ("http://a", "GET", "https://a/x", False),
        ("http://a", "GET", "http://a:81/x", False),
        ("POST https://a:8443/x/{y}", "POST", "https://a:8443/x/1", True),
        ("POST https://a:8443/x/{y}", "POST", "https://b:8443/x/1", False),
    ],
)
def test_what_a_pattern_is_for(pattern: str, method: str, asked: str, meant: bool) -> None:
    assert means(Route(pattern), method, asked) is meant
    assert str(Route(pattern)) == pattern


def test_below_the_beginning_of_every_path() -> None:
    route = Route("/orders/{id}", below="/v1")
    assert means(route, "GET", "http://a/v1/orders/7") and not means(route, "GET", "http://a/orders/7")
    assert route.template == "/orders/{id}"
    assert Route("GET", below="/v1").template is None


@pytest.mark.parametrize(
    "pattern",
    [
        "",
        " ",
        "get /x",
        "GET/x",
        "GET  ?",
        "orders/{id}",
        "/orders/{id",
        "/orders/x{id}",
        "/orders/id}",
        "/{a:path}/x",
        "/{a:int}",
        "GET /a b",
    ],
)
def test_what_is_no_pattern(pattern: str) -> None:
    with pytest.raises(ValueError, match="^match: "):
        Route(pattern, name="match")


def test_a_pattern_is_text() -> None:
    with pytest.raises(TypeError, match="^route: "):
        Route(7)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="^origin: "):
        Route("ftp://a/x")


def test_the_narrower_one_comes_first() -> None:
    narrow_first = ["GET /a/b", "/a/b", "GET /a/{x}", "/a/{x}", "/a/{x:path}", "GET http://a", "GET", "http://a"]
    assert [str(route) for route in sorted(map(Route, reversed(narrow_first)), key=lambda one: one.order)] == narrow_first


@pytest.mark.parametrize(
    ("one", "other", "twins"),
    [
        ("/a/{x}", "/a/{y}", True),
        ("/a/{x}", "/a/b", False),
        ("GET /a", "GET,HEAD /a", True),
        ("GET /a", "POST /a", False),
        ("GET /a", "/a", False),
        ("http://a/x", "http://a:80/x", True),
        ("http://a/x", "http://b/x", False),
        ("http://a/x", "/x", False),
        ("GET", "GET", True),
    ],
)
def test_twins_are_for_the_same_requests(one: str, other: str, twins: bool) -> None:
    assert Route(one).twin(Route(other)) is Route(other).twin(Route(one)) is twins


SEGMENT = st.text(st.characters(blacklist_characters="/{}", blacklist_categories=("Z", "C")), min_size=1, max_size=8)


@pytest.mark.slow
@given(st.lists(st.one_of(SEGMENT, st.just("{x}")), min_size=1, max_size=5), st.lists(SEGMENT, min_size=1, max_size=5))
def test_a_template_is_compared_segment_by_segment(template: list[str], path: list[str]) -> None:
    """Whatever stands in a segment stands for itself."""
    meant = len(template) == len(path) and all(part in ("{x}", given) for part, given in zip(template, path, strict=True))
    if re.search(r"\s", "".join(template)):
        return
    assert means(Route("/" + "/".join(template)), "GET", "http://a/" + "/".join(path)) is meant


def test_a_long_path_costs_no_more_than_its_length() -> None:
    route = Route("/" + "/".join("{x}" for _ in range(20)) + "/{rest:path}")
    began = time.thread_time()
    assert not means(route, "GET", "http://a/" + "x" * 100_000)
    assert time.thread_time() - began < 0.5
