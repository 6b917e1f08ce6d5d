"""The three worlds that policies are tested in, and the virtual loop for pytest-asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping

import pytest

from resilient.testing import FakeClock

from .driver import WORLDS, World


@pytest.fixture(params=sorted(WORLDS))
def world(request: pytest.FixtureRequest) -> World:
    """The same test on asyncio, on trio and in threads."""
    return WORLDS[request.param]()


def pytest_asyncio_loop_factories() -> Mapping[str, Callable[[], asyncio.AbstractEventLoop]]:
    """Tests marked `asyncio` run in virtual time; their loop knows its clock."""
    return {"virtual": lambda: FakeClock().loop()}
