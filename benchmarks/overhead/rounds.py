"""Times entries in many short rounds, all of them in each, so that a drift of the machine hits all alike."""

from __future__ import annotations

import asyncio
import gc
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from itertools import repeat
from typing import Any

from overhead.entry import Entry, Target

SLICE = 0.001  # seconds that one entry runs in a round
WARM_UP = 300  # calls before anything is counted; a third of them sets how many fit in a slice
MOST_CALLS_TO_OPEN = 2_000

Loop = Callable[[int], Awaitable[int]]


@dataclass
class Lane:
    """One entry's loop, how many calls it makes in a round, what a call took in each, in microseconds, and what comes after a slice,
    so that nothing of it goes on beside the next one.
    """

    library: str
    entry: Entry
    loop: Loop
    calls: int = 1
    samples: list[float] = field(default_factory=list)
    after: Callable[[], object] = bool


def loop_of(entry: Entry) -> Loop:
    """A loop that awaits the entry's target `n` times and gives the nanoseconds it took."""
    if entry.rejects is not None:
        return _rejected(entry.target, entry.rejects, entry.args)
    if not entry.args:
        return _awaited(entry.target)
    (argument,) = entry.args
    return _awaited_with(entry.target, argument)


def _awaited(target: Target) -> Loop:
    async def loop(n: int) -> int:
        start = time.perf_counter_ns()
        for _ in repeat(None, n):
            await target()
        return time.perf_counter_ns() - start

    return loop


def _awaited_with(target: Target, argument: Any) -> Loop:
    async def loop(n: int) -> int:
        start = time.perf_counter_ns()
        for _ in repeat(None, n):
            await target(argument)
        return time.perf_counter_ns() - start

    return loop


def _rejected(target: Target, error: type[Exception], args: tuple[Any, ...]) -> Loop:
    async def loop(n: int) -> int:
        start = time.perf_counter_ns()
        for _ in repeat(None, n):
            try:
                await target(*args)
            except error:
                continue
            raise AssertionError(f"{target!r} let a call through that it should have rejected")
        return time.perf_counter_ns() - start

    return loop


async def prepare(library: str, entry: Entry, seconds: float = SLICE) -> Lane:
    """The entry's lane, opened if it is to reject, warmed up, and with enough calls in a round to fill its slice of so many seconds."""
    lane = Lane(library, entry, loop_of(entry))
    if entry.rejects is not None:
        await _until_rejected(entry, entry.rejects)
    await lane.loop(WARM_UP)
    best = min([await lane.loop(WARM_UP // 3) for _ in range(3)])
    lane.calls = max(1, int(seconds * 1e9 * (WARM_UP // 3) / max(best, 1)))
    return lane


async def _until_rejected(entry: Entry, error: type[Exception]) -> None:
    for _ in range(MOST_CALLS_TO_OPEN):
        try:
            await entry.target(*entry.args)
        except error:
            return
        except ConnectionError:
            continue
    raise AssertionError(f"{entry.case}: {entry.target!r} never raised {error.__name__}")


async def run_rounds(groups: Sequence[Sequence[Lane]], seconds: float, least: int = 3) -> int:
    """Fills the lanes' samples until `seconds` have passed, at least `least` rounds; how many there were.

    A group's lanes run next to each other, because they are subtracted from one another. Their order is shuffled
    anew in each round, so that none always runs after the same neighbour.
    """
    order = random.Random(20)
    gc.collect()
    gc.freeze()
    rounds = 0
    end = time.perf_counter() + seconds
    while rounds < least or time.perf_counter() < end:
        for group in groups:
            for lane in order.sample(group, len(group)):
                lane.samples.append(await _one_slice(lane))
                lane.after()
        rounds += 1
    gc.unfreeze()
    return rounds


async def _one_slice(lane: Lane) -> float:
    # What the neighbour left behind, garbage and cancelled timers, is not this lane's to sweep.
    gc.collect(0)
    await asyncio.sleep(0)
    gc.disable()
    try:
        return await lane.loop(lane.calls) / lane.calls / 1_000
    finally:
        gc.enable()
