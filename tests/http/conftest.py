"""Dependencies on the test's own clock and listener, and clients that go through them."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from resilient import Dependency
from resilient.clock import SYSTEM_CLOCK
from resilient.outbox import Outbox
from resilient.testing import FakeClock, RecordingListener

Declare = Callable[..., Dependency]


@pytest.fixture
def declare(request: pytest.FixtureRequest, listener: RecordingListener) -> Declare:
    """Make a dependency that tells `listener`, in virtual time if the test has a `clock`."""
    clock: Any = request.getfixturevalue("clock") if "clock" in request.fixturenames else SYSTEM_CLOCK

    def dependency(*policies: Any, name: str = "dep", **settings: Any) -> Dependency:
        return Dependency(name, *policies, clock=clock, outbox=Outbox([listener]), **settings)

    return dependency


@pytest.fixture
def sync_clock(clock: FakeClock) -> FakeClock:
    return clock


@pytest.fixture
def collected() -> Iterator[Callable[[], None]]:
    """Collect garbage now; nothing of it may be left for the next test."""
    yield lambda: [gc.collect() for _ in range(3)] and None
    gc.collect()
