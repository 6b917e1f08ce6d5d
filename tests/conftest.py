"""Every test marked `anyio` runs on asyncio and on trio; the fixture `clock` makes it run in virtual time there."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator, Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import httpx
import httpx2
import hypothesis  # it asks the collector who refers to trio's random numbers, which has to come before the freeze
import pytest

import resilient.httpx
import resilient.httpx2
from resilient.testing import FakeClock, RecordingListener

from .conformance.counting import count, tell
from .measuring import MEASURED, childless, choose, import_all, measured, stop_here
from .rewriting import rewrite_share
from .thorough import often

ROOT = Path(__file__).parent
TIMED = {"asgi", "dashboard", "demo", "docs", "http", "recipes", "scenarios", "stores", "telemetry", "top"}
"""Folders of tests with sockets, threads and processes in them."""


hypothesis.settings.register_profile("usual", max_examples=often(100))
hypothesis.settings.load_profile("usual")


def pytest_configure() -> None:
    """What a shell has begun in the background ignores Ctrl-C, and so would every program that the tests begin."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_setupnodes() -> None:
    stop_here()


@pytest.hookimpl(tryfirst=True)
def pytest_collection(session: pytest.Session) -> None:
    import_all()
    stop_here()
    rewrite_share(session.config, sorted(ROOT.rglob("test_*.py")))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Generator[None, object, object]:
    with nullcontext() if item.stash[MEASURED] else childless():
        result = yield
    if nextitem is not None and nextitem.path != item.path:
        settle()
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, object, object]:
    with measured(item):
        return (yield)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Real sockets, threads and processes on a machine that has other things to do may be late by more than a test allows for.

    So a test that has real time is given a second and a third chance, and the summary names it; one in virtual time is not.
    """
    for item in items:
        virtual = "clock" in getattr(item, "fixturenames", ())
        random = hasattr(getattr(item, "obj", None), "hypothesis")  # what it found once stands
        if item.path.relative_to(ROOT).parts[0] in TIMED and not virtual and not random:
            item.add_marker(pytest.mark.flaky(reruns=2))
    choose(items)


def pytest_collection_finish() -> None:
    settle()


def settle() -> None:
    """What the libraries and the tests consist of is no garbage, nor is what the tests of a file have left behind in caches.

    A collection looks at what was made since, not at a million objects more; there are thousands of collections.
    """
    gc.collect()
    gc.freeze()


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    count(report)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    tell(terminalreporter)


@pytest.fixture(params=["asyncio", "trio"])
def anyio_backend(request: pytest.FixtureRequest) -> Any:
    """Real time. Tests that ask for `clock` get virtual time."""
    backend: str = request.param
    if "clock" not in request.fixturenames:
        return backend
    clock: FakeClock = request.getfixturevalue("clock")
    if backend == "asyncio":
        return backend, {"loop_factory": clock.loop}
    return backend, {"clock": clock.trio_clock()}


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def listener() -> RecordingListener:
    return RecordingListener()


@pytest.fixture(params=["httpx", "httpx2"])
def library(request: pytest.FixtureRequest) -> Any:
    """The client library, with our module for it as `library.ours`."""
    return {"httpx": Both(httpx, resilient.httpx), "httpx2": Both(httpx2, resilient.httpx2)}[request.param]


class Both:
    """A client library; what it does not have is looked for in our module for it."""

    def __init__(self, module: Any, ours: Any) -> None:
        self.module = module
        self.ours = ours

    def __getattr__(self, name: str) -> Any:
        return getattr(self.module, name)


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests see neither the machine's proxies nor its switches."""
    for name in (
        "HTTP_PROXY",
        "HTTPS_PROXY",
        "ALL_PROXY",
        "http_proxy",
        "https_proxy",
        "all_proxy",
        "RESILIENT_ENABLED",
        "RESILIENT_CHAOS",
    ):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def by_hand_alone() -> Iterator[None]:
    """The garbage collector runs where the test says, and nowhere else."""
    gc.collect()
    gc.disable()
    yield
    gc.enable()
