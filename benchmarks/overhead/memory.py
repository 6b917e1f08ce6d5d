"""Bytes that one idle breaker keeps, with everything it refers to, as tracemalloc counts them."""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

INSTANCES = 1_000
GOAL = 1_200  # bytes


@dataclass(frozen=True)
class Specimen:
    """A library's breaker: `make` builds one, `touch` makes one successful call through it."""

    make: Callable[[], Any]
    touch: Callable[[Any], Awaitable[Any]]


async def bytes_each(specimen: Specimen, *, touched: bool) -> float:
    """What one instance keeps, fresh from its constructor or after one successful call."""
    await _rear(specimen, 10, touched)  # what is made once for all of them is not an instance's
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        kept = await _rear(specimen, INSTANCES, touched)
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
    return (after - before - kept.__sizeof__()) / INSTANCES


async def _rear(specimen: Specimen, count: int, touched: bool) -> list[Any]:
    kept: list[Any] = [None] * count
    for index in range(count):
        kept[index] = specimen.make()
        if touched:
            await specimen.touch(kept[index])
    return kept
