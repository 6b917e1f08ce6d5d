from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest
from click.testing import CliRunner
from rich.console import Console

from resilient.demo.command import command as group
from resilient.top import command as module
from resilient.top.command import top
from resilient.top.feed import Feed, FeedError
from resilient.top.keys import keys

from ..dashboard.staged import Staged, served
from ..dashboard.staged import dependency as staged_dependency
from ..dashboard.staged import document as staged_document
from .documents import WELL, dependency, document, event, message, streamed

Handler = Callable[[httpx.Request], httpx.Response]


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def go(handler: Handler, *arguments: str) -> Any:
        def made(url: str, headers: dict[str, str], **settings: Any) -> Feed:
            return Feed(url, headers, transport=httpx.MockTransport(handler), **settings)

        monkeypatch.setattr(module, "Feed", made)
        return CliRunner().invoke(top, ["http://shop", *arguments])

    return go


def state(answer: dict[str, Any]) -> Handler:
    return lambda request: httpx.Response(200, json=answer)


@pytest.mark.parametrize(
    ("facts", "options", "code"),
    [
        ({}, [], 0),
        ({"service": {**WELL, "level": "degraded"}}, [], 1),
        ({"service": {**WELL, "level": "critical"}}, [], 1),
        ({"service": {**WELL, "ready": False, "status": "draining"}}, [], 1),
        ({"dependencies": [dependency("mail", state="open")]}, [], 0),
        ({"dependencies": [dependency("mail", state="open")]}, ["--strict"], 1),
        ({}, ["--strict"], 0),
    ],
)
@pytest.mark.parametrize("as_json", [False, True])
def test_once_says_by_its_exit_code_how_the_service_is(
    run: Any, facts: dict[str, Any], options: list[str], code: int, as_json: bool
) -> None:
    said = document(**facts, controls={"token": "secret"})
    done = run(state(said), "--once", *options, *(["--json"] if as_json else []))
    assert done.exit_code == code and "secret" not in done.output
    if as_json:
        assert json.loads(done.output) == {name: value for name, value in said.items() if name != "controls"}
    else:
        assert said["service"]["level"].upper() in done.output and "\x1b" not in done.output


def test_rates_of_a_service_that_nobody_looked_at_take_two_looks(run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK", 0.001)
    answers = [document(load={"requests": None}), document(load={"requests": 55.0})]
    done = run(lambda request: httpx.Response(200, json=answers.pop(0)), "--once")
    assert "requests 55/s" in done.output


@pytest.mark.parametrize("options", [["--once"], ["--json"], []])
def test_what_cannot_be_read_ends_with_two(run: Any, options: list[str]) -> None:
    done = run(lambda request: httpx.Response(403), *options)
    assert done.exit_code == 2 and "you may not read this (403)" in done.stderr and "Traceback" not in done.output


@pytest.mark.parametrize("header", ["Authorization", ": x", "a b: c", "a: b\r\nc: d", "ä: b"])
def test_a_header_that_is_none_is_refused(run: Any, header: str) -> None:
    done = run(state(document()), "--once", "--header", header)
    assert done.exit_code == 2 and "expected a name and a value" in done.output


def test_headers_are_sent_along(run: Any) -> None:
    def handler(request: httpx.Request) -> httpx.Response:
        return httpx.Response(200 if request.headers.get("authorization") == "Bearer x" else 401, json=document())

    assert run(handler, "--once", "--header", "Authorization: Bearer x").exit_code == 0


def test_an_address_that_is_none_is_refused() -> None:
    done = CliRunner().invoke(group, ["--help"])
    assert done.exit_code == 0
    done = CliRunner().invoke(top, ["ftp://shop"])
    assert done.exit_code == 2 and "is no address such as http://127.0.0.1:8000" in done.stderr


def stream(*parts: str) -> Handler:
    """One state, one stream, and then Ctrl-C."""

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("state"):
            return httpx.Response(200, json=document(events=[event(1)]))
        return streamed(*parts, KeyboardInterrupt())

    return handler


def test_what_is_no_terminal_gets_a_frame_and_then_lines(run: Any) -> None:
    worker = {"id": "shop:18", "started": 1.0}
    done = run(stream(message("log", event(2, "open -> closed")), message("state", document()), message("state", document(worker=worker))))
    lines = done.output.splitlines()
    assert done.exit_code == 0 and lines[0].startswith("● HEALTHY") and "\x1b" not in done.output
    assert lines[-2].endswith("■ catalog open -> closed") and lines[-1].endswith("this shows worker shop:18 from here on")


def test_the_state_as_a_line_of_json_each(run: Any) -> None:
    done = run(stream(message("state", document(at=4601.0))), "--json")
    assert [json.loads(line)["at"] for line in done.output.splitlines()] == [4600.0, 4601.0] and done.exit_code == 0


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing is waited for."""
    for name in ("POLL", "RETRY", "AGAIN"):
        monkeypatch.setattr(f"resilient.top.feed.{name}", 0.001)


@pytest.mark.usefixtures("hasty")
def test_what_goes_wrong_later_is_told_and_tried_again(run: Any) -> None:
    answers: list[Any] = [document(), httpx.ReadError("broken"), KeyboardInterrupt()]

    def handler(request: httpx.Request) -> httpx.Response:
        answer = answers.pop(0)
        if isinstance(answer, BaseException):
            raise answer
        return httpx.Response(200, json=answer)

    done = run(handler)
    assert done.exit_code == 0 and "reconnecting: http://shop/resilience cannot be reached: broken" in done.output


# -- the live view ------------------------------------------------------------------------------------------------------


class Pressed:
    """Keys that are pressed one after the other, each once what it waits for is shown."""

    def __init__(self, screen: io.StringIO, *script: tuple[str, str]) -> None:
        self._screen = screen
        self._script = list(script)
        self._from = 0
        self._ends = time.monotonic() + 30

    @contextlib.contextmanager
    def __call__(self) -> Iterator[Callable[[float], str]]:
        yield self._next

    def _next(self, seconds: float) -> str:
        assert time.monotonic() < self._ends, f"not seen: {self._script[0]} in {self._screen.getvalue()[-3000:]}"
        words, key = self._script[0]
        if words not in self._screen.getvalue()[self._from :]:
            time.sleep(0.01)
            return ""
        self._from = len(self._screen.getvalue())
        self._script.pop(0)
        return key


def live(monkeypatch: pytest.MonkeyPatch, handler: Handler, *script: tuple[str, str]) -> str:
    screen, stop = io.StringIO(), threading.Event()
    console = Console(file=screen, force_terminal=True, width=120, height=30, color_system=None, legacy_windows=False, _environ={})
    monkeypatch.setattr(module, "keys", Pressed(screen, *script))
    feed = Feed("http://shop/resilience", {}, transport=httpx.MockTransport(handler), wait=stop.wait)
    module._live(feed, console, stop, "trouble")
    assert stop.is_set()
    return screen.getvalue()


def test_keys_sort_move_and_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [dependency(f"d{number:02}", calls=float(number)) for number in range(60)]

    def handler(request: httpx.Request) -> httpx.Response:
        if request.url.path.endswith("state"):
            return httpx.Response(200, json=document(dependencies=rows))
        return httpx.Response(503)

    text = live(monkeypatch, handler, ("d00", "c"), ("d59", "page down"), ("d49", "n"), ("d10", "up"), ("d09", "q"))
    assert "the server says 503" in text


@pytest.mark.usefixtures("hasty")
def test_a_service_that_is_not_up_yet_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    up = threading.Event()

    def handler(request: httpx.Request) -> httpx.Response:
        if not up.is_set():
            raise httpx.ConnectError("refused")
        return httpx.Response(200, json=document())

    threading.Timer(0.5, up.set).start()
    assert "refused" in live(monkeypatch, handler, ("reconnecting", ""), ("HEALTHY", "q"))


def test_a_service_that_is_none_ends_the_live_view(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(FeedError, match="there is no dashboard"):
        live(monkeypatch, lambda request: httpx.Response(404), ("never shown", ""))


def test_keys_are_read_as_they_are_pressed(monkeypatch: pytest.MonkeyPatch) -> None:
    master, slave = pty.openpty()
    with open(slave, closefd=True) as terminal:
        monkeypatch.setattr(sys, "stdin", terminal)
        with keys() as pressed:
            assert pressed(0.001) == ""
            for sent, name in ((b"q", "q"), (b"\x1b[A", "up"), (b"\x1b[6~", "page down"), (b"j", "j")):
                os.write(master, sent)
                assert pressed(10.0) == name
        os.close(master)


def test_without_a_terminal_there_are_no_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO())
    with keys() as pressed:
        assert pressed(0.0) == ""


@pytest.mark.slow
def test_in_a_terminal_against_a_real_server() -> None:
    staged = Staged(staged_document(dependencies=[staged_dependency("catalog")]))
    with served(staged.app("/internal")) as url:
        master, slave = pty.openpty()
        command = [sys.executable, "-m", "resilient.cli", "top", f"{url}/internal"]
        process = subprocess.Popen(command, stdin=slave, stdout=slave, stderr=slave, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"})
        os.close(slave)
        seen = b""
        while b"catalog" not in seen:
            seen += os.read(master, 4096)
        staged.state["dependencies"][0]["state"] = "open"
        while "■ open".encode() not in seen:
            seen += os.read(master, 4096)
        os.write(master, b"q")
        drain = threading.Thread(target=_drain, args=(master,), daemon=True)
        drain.start()
        assert process.wait(30) == 0
        os.close(master)
        drain.join(10)


def _drain(number: int) -> None:
    with contextlib.suppress(OSError):
        while os.read(number, 4096):
            pass
