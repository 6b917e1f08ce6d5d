"""Every test marked `anyio` runs on asyncio and on trio; the fixture `clock` makes it run in virtual time there."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import httpx
import httpx2
import pytest

import resilient.httpx
import resilient.httpx2
from resilient.testing import FakeClock, RecordingListener

from .conformance.counting import count, tell


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
