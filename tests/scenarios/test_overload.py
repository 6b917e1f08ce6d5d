"""A dependency that is asked for more than it can do, in virtual time: what users get of it with which policies.

The dependency is a queue in front of some servers. As most do, it goes on working for callers who have left: what
nobody waits for any more is wasted, and a queue of it is what an overload does not end by.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Iterable
from typing import Any

import anyio
import pytest

from resilient import AdaptiveConcurrency, Bulkhead, CircuitBreaker, Dependency, Timeout
from resilient.testing import FakeClock

pytestmark = pytest.mark.slow

SERVICE = 0.1
SERVERS = 10
CAPACITY = SERVERS / SERVICE  # calls a second


class Upstream:
    """A number of servers, and one queue for all of them."""

    def __init__(self, clock: FakeClock, servers: int | None = SERVERS) -> None:
        self._now = clock.now
        self._rng = random.Random(7)
        self.serve(servers)

    def serve(self, servers: int | None) -> None:
        """From now on by so many, with nothing left to do; None is as many as anybody wants."""
        self._free = None if servers is None else [self._now()] * servers

    async def __call__(self, service: float = SERVICE) -> None:
        service *= self._rng.lognormvariate(0, 0.3)
        now = self._now()
        if self._free is not None:
            first = min(range(len(self._free)), key=self._free.__getitem__)
            self._free[first] = max(now, self._free[first]) + service
            service = self._free[first] - now
        await anyio.sleep(service)


class Story:
    """What came of the calls, second by second."""

    def __init__(self) -> None:
        self.ends: Counter[tuple[int, str]] = Counter()
        self.limits: dict[int, int] = {}

    def rate(self, end: str, since: int, until: int) -> float:
        """How many a second ended so, of those that came between the two."""
        return sum(count for (second, what), count in self.ends.items() if what == end and since <= second < until) / (until - since)


def tell(
    *policies: Any,
    phases: Iterable[tuple[float, int]],
    servers: int | None = SERVERS,
    service: Callable[[], float] = lambda: SERVICE,
    events: dict[int, int | None] | None = None,
) -> Story:
    """So many calls a second, for so many seconds, one phase after the other; `events` change the number of servers."""
    clock = FakeClock(1000.0)
    upstream, story, rng = Upstream(clock, servers), Story(), random.Random(20)
    dependency = Dependency("upstream", *policies, clock=clock)
    left = dict(events or {})

    async def call(second: int) -> None:
        try:
            await dependency.call(upstream, service())
        except Exception as error:  # noqa: BLE001  # it is told
            story.ends[second, type(error).__name__] += 1
        else:
            story.ends[second, "ok"] += 1

    async def main() -> None:
        begun, moment, end = clock.now(), 0.0, 0.0
        async with anyio.create_task_group() as group:
            for rate, seconds in phases:
                end += seconds
                while (moment := moment + rng.expovariate(rate)) < end:
                    await anyio.sleep(begun + moment - clock.now())
                    second = int(moment)
                    for due in [due for due in left if due <= second]:
                        upstream.serve(left.pop(due))
                    if dependency.bulkhead is not None:
                        story.limits[second] = dependency.bulkhead.limit
                    group.start_soon(call, second)
                moment = end

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    return story


def preset(**settings: Any) -> AdaptiveConcurrency:
    """As in `standard()`."""
    return AdaptiveConcurrency(initial=100, min_concurrent=4, max_concurrent=100, **settings)


def timeout() -> Timeout:
    return Timeout(total=0.5)


def breaker() -> CircuitBreaker:
    return CircuitBreaker(random=random.Random(3).random)


TWICE = [(0.6 * CAPACITY, 6), (2 * CAPACITY, 24), (0.6 * CAPACITY, 10)]


def test_overload_at_twice_the_capacity() -> None:
    """A breaker alone uses a fifth of what is there, and so does one behind a bulkhead of 100; the limit all but all."""
    alone = tell(timeout(), breaker(), phases=TWICE)
    fixed = tell(timeout(), Bulkhead(), breaker(), phases=TWICE)
    adaptive = tell(timeout(), preset(), breaker(), phases=TWICE)
    for story in (alone, fixed):
        assert story.rate("ok", 6, 30) < 0.4 * CAPACITY
    assert adaptive.rate("ok", 16, 30) > 0.9 * CAPACITY
    assert adaptive.rate("ok", 6, 16) > 0.6 * CAPACITY
    # Before it nothing is lost, and nothing after it.
    assert {end for second, end in adaptive.ends if second < 5 or second > 30} == {"ok"}


@pytest.mark.parametrize("make", [AdaptiveConcurrency, lambda: AdaptiveConcurrency(law="aimd", timeout=0.4)], ids=["gradient2", "aimd"])
def test_with_its_own_defaults(make: Callable[[], AdaptiveConcurrency]) -> None:
    story = tell(timeout(), make(), breaker(), phases=TWICE)
    assert story.rate("ok", 16, 30) > 0.9 * CAPACITY


def test_an_overload_from_the_first_second_on() -> None:
    """Nothing was ever learnt of the dependency without load."""
    phases = [(2 * CAPACITY, 30)]
    assert tell(timeout(), Bulkhead(), breaker(), phases=phases).rate("ok", 15, 30) < 0.4 * CAPACITY
    assert tell(timeout(), preset(), breaker(), phases=phases).rate("ok", 15, 30) > 0.9 * CAPACITY


def test_a_quarter_of_the_servers_and_all_of_them_again() -> None:
    """Three quarters of the capacity are gone from the 5th to the 20th second."""
    story = tell(timeout(), preset(), breaker(), phases=[(300, 30)], servers=40, events={5: 10, 20: 40})
    assert story.rate("ok", 15, 20) > 0.85 * 100
    assert story.rate("ok", 22, 25) > 0.85 * 300
    assert story.rate("ok", 26, 30) > 0.98 * story.rate("ok", 0, 4)


def test_after_an_outage_everything_is_there_at_once() -> None:
    """It hung for 10 s, under forty calls at a time: nothing is left of the limit, and nothing speaks against it."""
    clock: list[int] = []

    def service() -> float:
        clock.append(1)
        return 60.0 if 4000 < len(clock) < 4150 else 0.05

    story = tell(Timeout(total=1), preset(), breaker(), phases=[(800, 20)], servers=None, service=service)
    assert min(story.limits.values()) < 100
    assert story.limits[19] >= 80
    assert story.rate("ok", 15, 20) > 0.99 * story.rate("ok", 0, 4)


def test_noise_costs_nothing() -> None:
    """Latencies over two orders of magnitude, few calls at a time and many."""
    rng = random.Random(20)
    for policy, rate in ((AdaptiveConcurrency(), 60), (preset(), 1000), (AdaptiveConcurrency(), 600)):
        story = tell(Timeout(), policy, breaker(), phases=[(rate, 20)], servers=None, service=lambda: 0.05 * rng.lognormvariate(0, 1))
        assert {end for _, end in story.ends} == {"ok"}
        assert min(story.limits.values()) >= 20


def test_a_slow_endpoint_among_fast_ones_costs_nothing() -> None:
    """Every tenth call takes 2 s, the others 10 ms: 60 of 63 in flight are slow ones."""
    rng = random.Random(20)

    def service() -> float:
        return 2.0 if rng.random() < 0.1 else 0.01

    story = tell(Timeout(), preset(), breaker(), phases=[(300, 30)], servers=None, service=service)
    assert {end for _, end in story.ends} == {"ok"}
    assert min(story.limits.values()) >= 85


def test_calls_that_all_take_longer_from_now_on_are_not_held_back_for_long() -> None:
    """A hundred times as long, however few there are at a time: no load."""
    asked: list[int] = []

    def service() -> float:
        asked.append(1)
        return 1.0 if len(asked) > 2000 else 0.01

    story = tell(Timeout(), preset(), breaker(), phases=[(100, 20), (70, 60)], servers=None, service=service)
    assert story.limits[79] == 100
    assert story.rate("BulkheadFull", 60, 80) == 0
