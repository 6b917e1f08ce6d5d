"""What a write makes invalid, and what another origin may not."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from resilient.core.invalidation import invalidated_by

URI = "https://api.example.com/a/b?c=1"


def uris(*fields: tuple[str, str], method: str = "POST", status: int = 200, uri: str = URI) -> tuple[str, ...]:
    return invalidated_by(method, status, uri, [(name.encode(), value.encode("latin-1")) for name, value in fields])[0]


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "M-SEARCH", "get", "NEW"])
@pytest.mark.parametrize("status", [200, 201, 204, 301, 303, 304])
def test_a_write_that_succeeded_and_anything_unknown(method: str, status: int) -> None:
    assert uris(method=method, status=status) == (URI,)


@pytest.mark.parametrize("method", ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"])
def test_nothing_that_is_safe(method: str) -> None:
    assert uris(("Location", "/x"), method=method) == ()


@pytest.mark.parametrize("status", [100, 400, 404, 409, 500, 503])
def test_nothing_that_failed(status: int) -> None:
    assert uris(("Location", "/x"), status=status) == ()


@pytest.mark.parametrize("name", ["Location", "Content-Location"])
@pytest.mark.parametrize(
    ("reference", "expected"),
    [
        ("/x", "https://api.example.com/x"),
        ("x", "https://api.example.com/a/x"),
        ("../x?y#z", "https://api.example.com/x?y"),
        ("https://api.example.com/x", "https://api.example.com/x"),
        ("HTTPS://API.example.com:443/x", "https://api.example.com/x"),
        ("//api.example.com", "https://api.example.com/"),
        ("https://user:secret@api.example.com/x", "https://api.example.com/x"),
        ("?d=2", "https://api.example.com/a/b?d=2"),
    ],
)
def test_what_the_answer_points_to(name: str, reference: str, expected: str) -> None:
    assert uris((name, reference)) == (URI, expected)


@pytest.mark.parametrize(
    "reference",
    [
        "https://other.example.com/x",
        "http://api.example.com/x",
        "https://api.example.com:8443/x",
        "//other/x",
        "https://api.example.com:x/",
        "https://[/",
        "mailto:a@b",
        "/" + "x" * 9000,
    ],
)
def test_what_is_elsewhere_or_nowhere(reference: str) -> None:
    assert uris(("Location", reference)) == (URI,)


def test_a_reference_is_no_longer_than_that() -> None:
    longest = "/" + "x" * 8191
    assert uris(("Location", longest)) == (URI, f"https://api.example.com{longest}")
    assert uris(("Location", longest + "x")) == (URI,)


def test_ports_count() -> None:
    assert uris(("Location", "http://h:80/x"), uri="http://h/y") == ("http://h/y", "http://h/x")
    assert uris(("Location", "/x"), uri="http://h:8080/y") == ("http://h:8080/y", "http://h:8080/x")


def test_each_once_and_without_a_fragment() -> None:
    assert uris(("Location", "/a/b?c=1"), ("Content-Location", "/x#y"), uri=URI + "#z") == (URI, "https://api.example.com/x")


def test_groups() -> None:
    fields = [(b"Cache-Group-Invalidation", b'"one", "two";x')]
    assert invalidated_by("POST", 200, URI, fields) == ((URI,), ("one", "two"))
    assert invalidated_by("GET", 200, URI, fields) == ((), ())
    assert invalidated_by("POST", 500, URI, fields) == ((), ())
    assert invalidated_by("POST", 200, URI, [(b"Cache-Group-Invalidation", b"one")]) == ((URI,), ())


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_nothing_raises_and_nothing_leads_away(reference: str) -> None:
    for found in uris(("Location", reference), ("Content-Location", reference)):
        assert found.startswith("https://api.example.com/") and "#" not in found
