"""What stands between the public cache suite and a transport adds nothing, and the results are told as the suite means them."""

from __future__ import annotations

import http.client
import importlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any
from urllib.parse import urlsplit

import pytest

pytest.importorskip("uvicorn")

ROOT = Path(__file__).parents[2]


@pytest.fixture
def caching(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The modules of benchmarks/caching, which is on the path of that folder's programs only."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    return lambda name: importlib.import_module(f"caching.{name}")


@pytest.fixture(params=["httpx2", "httpx"])
def library(request: pytest.FixtureRequest) -> ModuleType:
    return pytest.importorskip(request.param)


class Origin:
    """Keeps the last request and answers with what it was given."""

    def __init__(self, library: ModuleType) -> None:
        self.library = library
        self.request: Any = None
        self.status, self.fields, self.body = 200, [(b"Content-Type", b"text/plain")], [b"o", b"k"]
        self.stored: bytes | None = None
        self.error: Exception | None = None

    async def __call__(self, request: Any) -> Any:
        self.request = request
        if self.error is not None:
            raise self.error
        return self.library.Response(self.status, headers=self.fields, content=self._stream() if self.stored is None else self.stored)

    async def _stream(self) -> AsyncIterator[bytes]:
        for part in self.body:
            yield part


@contextmanager
def exchange(caching: Any, origin: Origin, method: str, target: str, fields: list[tuple[str, str]], body: bytes = b"") -> Iterator[Any]:
    """One request by hand, with these fields and no others."""
    proxy = caching("proxy")
    app = proxy.Proxy(origin.library, origin.library.MockTransport(origin), "http://origin.test:8080")
    with proxy.serving(app) as url:
        connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=10)
        try:
            connection.putrequest(method, target, skip_host=True, skip_accept_encoding=True)
            for name, value in fields:
                connection.putheader(name, value)
            connection.endheaders(body)
            yield connection.getresponse()
        finally:
            connection.close()


def test_the_origin_sees_the_request_that_was_made(caching: Any, library: ModuleType) -> None:
    origin = Origin(library)
    fields = [("Host", "proxy"), ("Foo", "1"), ("Foo", "2"), ("Connection", "close, Bar"), ("Bar", "3"), ("TE", "trailers"), ("Last", "4")]
    with exchange(caching, origin, "M-SEARCH", "/a%2Fb?x=1&x=2", fields) as answer:
        assert answer.read() == b"ok"
    assert origin.request.method == "M-SEARCH"
    assert origin.request.url.raw_path == b"/a%2Fb?x=1&x=2"
    # Neither User-Agent nor Accept, Accept-Encoding, Connection: whatever is more than this would be the proxy's.
    seen = [(name.lower(), value) for name, value in origin.request.headers.raw]
    assert seen == [(b"host", b"origin.test:8080"), (b"foo", b"1"), (b"foo", b"2"), (b"last", b"4")]


def test_a_body_goes_with_its_length(caching: Any, library: ModuleType) -> None:
    origin = Origin(library)
    with exchange(caching, origin, "PUT", "/", [("Host", "proxy"), ("Content-Length", "3")], b"abc") as answer:
        assert answer.status == 200
    assert origin.request.content == b"abc"
    assert origin.request.headers.get_list("content-length") == ["3"]


def test_the_answer_comes_as_it_was_sent(caching: Any, library: ModuleType) -> None:
    origin = Origin(library)
    origin.status = 599
    origin.fields = [
        (b"Date", b"Sun, 22 Nov 2026 09:00:00 GMT"),
        (b"Content-Encoding", b"gzip"),
        (b"Connection", b"a"),
        (b"Keep-Alive", b"timeout=5"),
        (b"a", b"1"),
        (b"Set-Cookie", b"one=1"),
        (b"Set-Cookie", b"two=2"),
    ]
    origin.body = [b"not ", b"gzip"]
    with exchange(caching, origin, "GET", "/", [("Host", "proxy")]) as answer:
        assert answer.status == 599
        assert answer.read() == b"not gzip"
        fields = [(name.lower(), value) for name, value in answer.getheaders() if name.lower() != "transfer-encoding"]
    assert fields == [
        ("date", "Sun, 22 Nov 2026 09:00:00 GMT"),
        ("content-encoding", "gzip"),
        ("a", "1"),  # named by Connection: whether a cache keeps it is for the suite to find
        ("set-cookie", "one=1"),
        ("set-cookie", "two=2"),
    ]


def test_999_is_passed_on(caching: Any, library: ModuleType) -> None:
    """The suite's origin says so where it should have been asked conditionally."""
    origin = Origin(library)
    origin.status = 999
    with exchange(caching, origin, "GET", "/", [("Host", "proxy")]) as answer:
        assert answer.status == 999


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_an_answer_with_its_body_in_memory(caching: Any, library: ModuleType, method: str) -> None:
    """As a cache makes it; aiter_raw refuses to read it."""
    origin = Origin(library)
    origin.fields, origin.stored = [(b"Content-Length", b"2")], b"ok"
    with exchange(caching, origin, method, "/", [("Host", "proxy")]) as answer:
        assert answer.read() == (b"ok" if method == "GET" else b"")
        assert answer.getheader("Content-Length") == "2"


def test_a_failure_below_is_a_502(caching: Any, library: ModuleType) -> None:
    origin = Origin(library)
    origin.error = library.ReadError("cut off")
    with exchange(caching, origin, "GET", "/", [("Host", "proxy")]) as answer:
        assert (answer.status, answer.read()) == (502, b"ReadError: cut off\n")


def group(*results: tuple[str, str]) -> dict[str, Any]:
    tests = [
        {"id": f"t{number}", "name": "", "kind": kind, "result": result, "detail": ""} for number, (kind, result) in enumerate(results)
    ]
    return {"id": "g", "name": "Group", "tests": tests}


def test_the_table_counts_only_what_was_judged(caching: Any) -> None:
    table = caching("table")
    some = group(
        ("required", "pass"),
        ("required", "dependency"),
        ("required", "setup"),
        ("optimal", "pass"),
        ("optimal", "not optimal"),
        ("check", "no"),
    )
    row = next(line for line in table.lines([some], [], "subject") if line.startswith("subject"))
    assert row.split()[1:] == ["1/0", "1/1", "0/1", "1", "dependency", "1", "setup"]


@pytest.mark.parametrize(
    ("result", "failed"),
    [("pass", False), ("fail", True), ("harness", True), ("setup", False), ("dependency", False), ("retry", False), ("untested", False)],
)
def test_only_a_required_test_fails_the_run(caching: Any, result: str, failed: bool) -> None:
    table = caching("table")
    assert table.failed([group(("required", result))]) is failed
    assert not table.failed([group(("optimal", "not optimal"), ("check", "no"))])


def test_what_rfc_9111_has_turned_round_is_counted_and_fails_no_run(caching: Any) -> None:
    table = caching("table")
    some = group(("required", "fail"), ("required", "pass"))
    some["tests"][0]["id"] = "age-parse-dup-0"
    said = list(table.lines([some], [], "subject"))
    assert not table.failed([some])
    assert next(line for line in said if line.startswith("subject")).split()[1] == "1/1"
    assert any("RFC 9111 section 5.1" in line for line in said)


@pytest.mark.slow
def test_a_group_without_a_cache(caching: Any, tmp_path: Path) -> None:
    """Nothing is reused, so what must not be reused passes, and what could be is not optimal."""
    if shutil.which("node") is None or not caching("package").folder_of_suite().exists():
        pytest.skip("needs node, and the suite: python benchmarks/cache_suite.py fetches it")
    file = tmp_path / "suite.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "cache_suite.py"), "--cache", "none", "--only", "auth", "--json", str(file)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert done.returncode == 0, done.stderr
    assert json.loads(file.read_text())["totals"] == {"required": {"pass": 1}, "optimal": {"not optimal": 3}}
