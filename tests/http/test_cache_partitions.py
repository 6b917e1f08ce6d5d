"""No answer ever crosses to whom it is not for, and none outlives its time, whatever happens in which order."""

from __future__ import annotations

import gc
from collections import Counter
from typing import Any

import anyio
import pytest

from resilient.testing import FakeClock

from .cache_worlds import World

pytestmark = pytest.mark.anyio

AT_ONCE = 25


async def worlds(library: Any, clock: FakeClock, seeds: range, requests: int) -> Counter[str]:
    """Worlds that know nothing of each other; several at a time, since the clock then jumps for all of them together."""
    seen: Counter[str] = Counter()

    async def run(seed: int) -> None:
        try:
            await World(library, clock, seed, seen).run(requests)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise

    for first in seeds[::AT_ONCE]:
        async with anyio.create_task_group() as group:
            for seed in range(first, min(first + AT_ONCE, seeds.stop)):
                group.start_soon(run, seed)
        gc.collect()
    return seen


def checked(seen: Counter[str]) -> None:
    """That there was something to judge."""
    for what in ("own", "another's", "fresh", "degraded", "refreshed", "written"):
        assert seen[what] >= 5, (what, seen)


@pytest.mark.usefixtures("by_hand_alone")
async def test_what_is_served_in_small_worlds(library: Any, clock: FakeClock) -> None:
    checked(await worlds(library, clock, range(200), requests=8))


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.usefixtures("by_hand_alone")
async def test_what_is_served_in_many_small_worlds(library: Any, clock: FakeClock) -> None:
    checked(await worlds(library, clock, range(10_000, 12_500), requests=4))
