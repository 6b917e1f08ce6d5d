"""Dependencies on the test's own clock and listener, and clients that go through them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from resilient import Dependency
from resilient.clock import SYSTEM_CLOCK
from resilient.outbox import Outbox
from resilient.testing import RecordingListener

Declare = Callable[..., Dependency]


@pytest.fixture
def declare(request: pytest.FixtureRequest, listener: RecordingListener) -> Declare:
    """Make a dependency that tells `listener`, in virtual time if the test has a `clock`."""
    clock: Any = request.getfixturevalue("clock") if "clock" in request.fixturenames else SYSTEM_CLOCK

    def dependency(*policies: Any, name: str = "dep", **settings: Any) -> Dependency:
        return Dependency(name, *policies, clock=clock, outbox=Outbox([listener]), **settings)

    return dependency
