"""No answer ever crosses to whom it is not for, and none outlives its time, whatever happens in which order."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from resilient.testing import FakeClock

from .cache_worlds import World

pytestmark = pytest.mark.anyio


async def worlds(library: Any, clock: FakeClock, seeds: range) -> Counter[str]:
    seen: Counter[str] = Counter()
    for seed in seeds:
        try:
            await World(library, clock, seed, seen).run(12)
        except BaseException as error:
            error.add_note(f"seed {seed}")
            raise
    return seen


def checked(seen: Counter[str]) -> None:
    """That there was something to judge."""
    for what in ("own", "another's", "fresh", "degraded", "refreshed", "written"):
        assert seen[what] >= 5, (what, seen)


async def test_what_is_served_in_small_worlds(library: Any, clock: FakeClock) -> None:
    checked(await worlds(library, clock, range(200)))


@pytest.mark.slow
@pytest.mark.timeout(900)
async def test_what_is_served_in_many_small_worlds(library: Any, clock: FakeClock) -> None:
    checked(await worlds(library, clock, range(10_000, 12_500)))
