"""The site, the worlds, and the one assertion: a story told twice is the same story."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import httpx
import httpx2
import pytest

import resilient.httpx
import resilient.httpx2
from resilient import Resilience

from ...conftest import Both
from .twins import Web, World
from .website import Website

Story = Callable[[Web], Awaitable[Any]]


@pytest.fixture(scope="session")
def site() -> Iterator[Website]:
    with Website() as running:
        yield running


# Both libraries, all three colours, both versions; not each with each, for that would take twice as long.
WORLDS = ["httpx-asyncio-1.1", "httpx-asyncio-2", "httpx-sync-1.1", "httpx2-asyncio-1.1", "httpx2-trio-2", "httpx2-sync-2"]


@pytest.fixture(params=WORLDS)
def world(request: pytest.FixtureRequest) -> World:
    name, colour, version = request.param.split("-")
    library = {"httpx": Both(httpx, resilient.httpx), "httpx2": Both(httpx2, resilient.httpx2)}[name]
    return World(library, colour, version == "2")


@pytest.fixture
def unharmed(world: World, site: Website) -> Callable[[Story], Any]:
    """Tell a story with a bare client and with ours; returns what both saw."""

    def tell(story: Story) -> Any:
        bare = world.run(story(Web(world, site)))  # type: ignore[arg-type]
        resilience = Resilience()
        ours = world.run(story(Web(world, site, resilience)))  # type: ignore[arg-type]
        assert ours == bare
        assert any(any(dependency.stats.snapshot().counts.values()) for dependency in resilience.dependencies.values())
        held = [dependency.bulkhead.in_use for dependency in resilience.dependencies.values() if dependency.bulkhead]
        assert not any(held)
        return ours

    return tell
