"""One world in three makes: the same policies awaited on asyncio, awaited on trio, and driven by blocking threads.

Each runs in virtual time, so a test tells in plain words what a dependency does and sees the same thing happen in all
three. A dependency's behaviour is a script; each attempt takes the next item of it, and the last one again and again:

    "ok"                a value: it is returned
    ValueError          an exception class (or instance): a new one is raised
    takes(3)            the attempt lasts three seconds, then comes what `takes` was given
    some_function       called without arguments; what it returns is the value
"""

from __future__ import annotations

import asyncio
import contextvars
import copy
import inspect
import itertools
import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
import trio

from resilient import Pipeline
from resilient.testing import FakeClock, RecordingListener

START = 1000.0


@dataclass(frozen=True)
class takes:  # noqa: N801  # it reads as a word of the script
    """An item of a script that lasts."""

    seconds: float
    then: Any = "ok"


class Script:
    """What a dependency does, attempt by attempt, and when it was asked."""

    def __init__(self, *items: Any) -> None:
        self._items = items or ("ok",)
        self.asked: list[float] = []

    def next(self, now: float) -> Any:
        self.asked.append(now)
        return self._items[min(len(self.asked), len(self._items)) - 1]


def outcome(item: Any) -> Any:
    """Return or raise what an item of a script says."""
    if isinstance(item, BaseException):
        raise copy.copy(item)
    if isinstance(item, type) and issubclass(item, BaseException):
        raise item("scripted")
    return item() if inspect.isroutine(item) else item


@dataclass(frozen=True)
class Ended:
    """How a call ended, and how many seconds after the beginning of the scene."""

    at: float
    value: Any = None
    error: Exception | None = None


@dataclass(frozen=True)
class Arrival:
    """A call that comes `at` seconds into a scene, or something else that happens then."""

    at: float
    act: Callable[[], Any] | None = None
    script: Script | None = None
    pipeline: Pipeline | None = None


def at(seconds: float, act: Callable[[], Any]) -> Arrival:
    """Something that happens beside the calls: a hand on a switch, a look at a number."""
    return Arrival(seconds, act=act)


class World:
    """What a test sees of any of the three."""

    interrupts: bool
    """Whether a deadline cuts running code: it cannot, in a thread."""

    def __init__(self, clock: Any) -> None:
        self.clock = clock
        self.listener = RecordingListener()

    @property
    def now(self) -> float:
        """Seconds since the beginning of the test."""
        return float(self.clock.now()) - START

    def pipeline(self, *policies: Any, **settings: Any) -> Pipeline:
        made = Pipeline(*policies, clock=self.clock, **settings)
        made.outbox.add(self.listener)
        return made

    def call(self, pipeline: Pipeline, *items: Any) -> Any:
        """Call a dependency that behaves like this; returns its value or raises its error."""
        script = items[0] if len(items) == 1 and isinstance(items[0], Script) else Script(*items)
        (ended,) = self.scene([Arrival(0.0, script=script, pipeline=pipeline)])
        if ended.error is not None:
            raise ended.error
        return ended.value

    def fails(self, pipeline: Pipeline, *items: Any) -> Exception:
        """As `call`, for a call that must raise: returns the error."""
        try:
            value = self.call(pipeline, *items)
        except Exception as error:  # noqa: BLE001  # it is what is asked for
            return error
        raise AssertionError(f"the call returned {value!r}")

    def times(self, count: int, pipeline: Pipeline, *items: Any, every: float = 0.0) -> list[str]:
        """Make calls one after the other, `every` so many seconds; returns the names of their ends ("ok", "ValueError")."""
        ends = []
        for _ in range(count):
            try:
                ends.append(str(self.call(pipeline, *items)))
            except Exception as error:  # noqa: BLE001
                ends.append(type(error).__name__)
            if every:
                self.sleep(every)
        return ends

    def together(self, pipeline: Pipeline, *calls: tuple[Any, ...] | Arrival) -> list[Ended]:
        """Calls `(seconds, *items)` that overlap; returns how each ended, in the order written."""
        arrivals = [call if isinstance(call, Arrival) else Arrival(call[0], script=Script(*call[1:]), pipeline=pipeline) for call in calls]
        return self.scene(arrivals)

    def scene(self, arrivals: list[Arrival]) -> list[Ended]:
        raise NotImplementedError

    def sleep(self, seconds: float) -> None:
        """Let time pass while nobody calls."""
        self.clock.advance(seconds)


class AsyncWorld(World):
    interrupts = True

    def __init__(self, run: Callable[[FakeClock, Callable[[], Any]], Any]) -> None:
        super().__init__(FakeClock(START))
        self._run = run

    def scene(self, arrivals: list[Arrival]) -> list[Ended]:
        ended: dict[int, Ended] = {}

        async def arrive(index: int, arrival: Arrival) -> None:
            await anyio.sleep(arrival.at)
            value, error = None, None
            try:
                value = arrival.act() if arrival.act else await arrival.pipeline.call(self._play, arrival.script)  # type: ignore[union-attr]
            except Exception as raised:  # noqa: BLE001  # the test looks at it
                error = raised
            ended[index] = Ended(self.now - begun, value, error)

        async def scene() -> None:
            async with anyio.create_task_group() as group:
                for index, arrival in enumerate(arrivals):
                    group.start_soon(arrive, index, arrival)

        begun = self.now
        self._run(self.clock, scene)
        return [ended[index] for index, arrival in enumerate(arrivals) if arrival.act is None]

    async def _play(self, script: Script) -> Any:
        item = script.next(self.now)
        if isinstance(item, takes):
            await anyio.sleep(item.seconds)
            item = item.then
        return outcome(item)


def on_asyncio(clock: FakeClock, main: Callable[[], Any]) -> None:
    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())


def on_trio(clock: FakeClock, main: Callable[[], Any]) -> None:
    trio.run(main, clock=clock.trio_clock())


class SyncWorld(World):
    interrupts = False

    def __init__(self) -> None:
        super().__init__(ThreadClock())

    def scene(self, arrivals: list[Arrival]) -> list[Ended]:
        ended: dict[int, Ended] = {}
        begun = self.now

        def arrive(index: int, arrival: Arrival) -> None:
            value, error = None, None
            try:
                value = arrival.act() if arrival.act else arrival.pipeline.call_sync(self._play, arrival.script)  # type: ignore[union-attr]
            except Exception as raised:  # noqa: BLE001  # the test looks at it
                error = raised
            ended[index] = Ended(self.now - begun, value, error)

        self.clock.run((arrival.at, lambda index=index, arrival=arrival: arrive(index, arrival)) for index, arrival in enumerate(arrivals))
        return [ended[index] for index, arrival in enumerate(arrivals) if arrival.act is None]

    def _play(self, script: Script) -> Any:
        item = script.next(self.now)
        if isinstance(item, takes):
            self.clock.sleep(item.seconds)
            item = item.then
        return outcome(item)


class Lane:
    """A thread of the virtual world: it runs only when it is its turn."""

    def __init__(self, live: Callable[[Lane, Callable[[], object]], None], job: Callable[[], object], until: float, order: int) -> None:
        self.until = until
        self.event: threading.Event | None = None
        self.order = order
        self.turn = threading.Semaphore(0)
        self.thread = threading.Thread(target=contextvars.copy_context().run, args=(live, self, job), daemon=True)

    def due(self) -> tuple[float, int]:
        return (-1.0 if self.event is not None and self.event.is_set() else self.until), self.order


class ThreadClock:
    """Virtual time for threads that block: one runs at a time, and when all are blocked time jumps to the next of them."""

    def __init__(self) -> None:
        self._now = START
        self._lanes: list[Lane] = []
        self._back = threading.Semaphore(0)
        self._mine: Any = threading.local()
        self._order = itertools.count()

    @property
    def threads(self) -> ThreadClock:
        """Where a race finds the threads to run in: they live by this clock too."""
        return self

    def start(self, job: Callable[[], object]) -> bool:
        """Run `job` beside whoever is running, from now on."""
        lane = Lane(self._live, job, self._now, next(self._order))
        self._lanes.append(lane)
        lane.thread.start()
        return True

    def now(self) -> float:
        return self._now

    def advance(self, seconds: float) -> None:
        self._now += seconds

    def sleep(self, seconds: float) -> None:
        self._block(self._now + seconds, None)

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        if not event.is_set():
            self._block(float("inf") if seconds is None else self._now + seconds, event)
        return event.is_set()

    def _block(self, until: float, event: threading.Event | None) -> None:
        lane: Lane | None = getattr(self._mine, "lane", None)
        if lane is None:  # the test itself, while nobody else runs
            self._now = until
            return
        lane.until, lane.event, lane.order = until, event, next(self._order)
        self._back.release()
        lane.turn.acquire()

    def run(self, jobs: Iterable[tuple[float, Callable[[], None]]]) -> None:
        """Run each job in a thread of its own, from so many seconds on, until all have ended."""
        for seconds, job in jobs:
            self._lanes.append(Lane(self._live, job, self._now + seconds, next(self._order)))
        for lane in list(self._lanes):
            lane.thread.start()
        while self._lanes:
            lane = min(self._lanes, key=Lane.due)
            assert lane.due()[0] != float("inf"), "every thread waits for another one"
            self._now = max(self._now, lane.due()[0])
            lane.event = None
            lane.turn.release()
            assert self._back.acquire(timeout=10), "a thread blocks in real time"

    def _live(self, lane: Lane, job: Callable[[], object]) -> None:
        self._mine.lane = lane
        lane.turn.acquire()
        try:
            job()
        finally:
            self._lanes.remove(lane)
            self._back.release()


WORLDS: dict[str, Callable[[], World]] = {
    "asyncio": lambda: AsyncWorld(on_asyncio),
    "trio": lambda: AsyncWorld(on_trio),
    "sync": SyncWorld,
}

only_awaited = pytest.mark.parametrize("world", ["asyncio", "trio"], indirect=True)
only_in_threads = pytest.mark.parametrize("world", ["sync"], indirect=True)
