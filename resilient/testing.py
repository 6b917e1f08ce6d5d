"""For tests: a clock that jumps, transports that fail on command, a listener that remembers, the contract of a store.

clock = FakeClock()
resilience = Resilience(clock=clock)
asyncio.Runner(loop_factory=clock.loop).run(main())     # an hour of timeouts in milliseconds

reset = resetting(app.resilience)                       # in conftest.py: no test sees what another one left
"""

from __future__ import annotations

import asyncio
import copy
import heapq
import inspect
import itertools
import math
import selectors
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, Self, TypeVar

import anyio

from .events import Event
from .stores.contract import StoreContract

__all__ = ["HANG", "FakeClock", "FaultyTransport", "RecordingListener", "StoreContract", "resetting"]

E = TypeVar("E", bound=Event)


class FakeClock:
    """A clock that advances only when it is asked to, or when everybody who could run is asleep.

    It stands in for the clock of a `Resilience`, a `Dependency` or a `Pipeline`. For async code run the event loop on
    it too: `loop` makes an asyncio loop, `trio_clock` a clock for `trio.run`; both jump to the next timer as soon as
    nothing else can run. Use neither with real sockets or threads: the loop would not wait for them.

    Args:
        start: what it shows first, in seconds.
    """

    threads = None
    """Synchronous calls keep to their own thread, the only one that this clock waits for: none of them is hedged."""

    def __init__(self, start: float = 1000.0) -> None:
        self._now = start
        self._trio: Any = None
        self._offset = 0.0
        self._planned: list[tuple[float, int, Callable[[], object]]] = []
        self._order = itertools.count()

    def now(self) -> float:
        return self._now if self._trio is None else self._trio.current_time() + self._offset

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and run what was planned for them, in order.

        Raises:
            ValueError: `seconds` is negative.
        """
        if seconds < 0:
            raise ValueError(f"seconds: time does not go back, got {seconds!r}")
        until = self.now() + seconds
        while self._planned and self._planned[0][0] <= until:
            at, _, act = heapq.heappop(self._planned)
            self._jump(at)
            act()
        self._jump(until)

    sleep = advance

    def _jump(self, at: float) -> None:
        # What was planned may itself have made time pass.
        if self._trio is None:
            self._now = max(self._now, at)
        elif at > self.now():
            self._trio.jump(at - self.now())

    def wait(self, event: threading.Event, seconds: float | None) -> bool:
        """Let time pass until something planned sets `event`, for at most `seconds`. Returns whether it is set.

        Raises:
            RuntimeError: nothing that is planned ends a wait without a limit.
        """
        until = math.inf if seconds is None else self.now() + seconds
        while not event.is_set() and self._planned and self._planned[0][0] <= until:
            self.advance(max(self._planned[0][0] - self.now(), 0.0))
        if not event.is_set():
            if seconds is None:
                raise RuntimeError("a wait without end: nothing that is planned on this clock ends it")
            self.advance(max(until - self.now(), 0.0))
        return event.is_set()

    def call_later(self, seconds: float, act: Callable[[], object]) -> None:
        """Plan `act` for when this clock has advanced by `seconds`: the rest of the world, to a synchronous call."""
        heapq.heappush(self._planned, (self.now() + seconds, next(self._order), act))

    def loop(self) -> asyncio.AbstractEventLoop:
        """A new asyncio event loop whose time is this clock, which is its attribute `clock` too.

        Fit for `asyncio.Runner(loop_factory=clock.loop)` and for pytest-asyncio's hook in `conftest.py`, whose tests
        then find the clock at `asyncio.get_running_loop().clock`:

            def pytest_asyncio_loop_factories():
                return {"virtual": lambda: FakeClock().loop()}
        """
        return _VirtualLoop(self)

    def trio_clock(self) -> Any:
        """A clock for one `trio.run(..., clock=...)`, which this one shows from then on."""
        from trio.testing import MockClock

        mock = MockClock(autojump_threshold=0)
        self._offset = self.now() - mock.current_time()
        self._trio = mock
        return mock


class _JumpingSelector(selectors.DefaultSelector):
    """Never waits for a timer: it lets the clock jump to it."""

    clock: FakeClock

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        ready = super().select(0 if timeout is not None else None)
        if not ready and timeout:
            self.clock.advance(timeout)
        return ready


class _VirtualLoop(asyncio.SelectorEventLoop):
    clock: FakeClock

    def __init__(self, clock: FakeClock) -> None:
        selector = _JumpingSelector()
        selector.clock = clock
        super().__init__(selector)
        self.clock = clock
        # Timers may differ from the clock by a rounding error; without this a jump could end just before its timer.
        self._clock_resolution = 1e-9

    def time(self) -> float:
        return self.clock.now()


class Hang:
    """An answer that never comes."""

    def __repr__(self) -> str:
        return "HANG"


HANG = Hang()


class FaultyTransport:
    """A transport that answers by a script, for httpx and httpx2, async and sync: below ours, or a client's only one.

        FaultyTransport([503, httpx.ConnectError("refused"), 200])

    Each request takes the next item; the last one is used again and again. An item is a status, an exception (raised
    as a copy), a function of the request that returns a response (or, for async clients, an awaitable of one), or
    `HANG`. What was asked is kept in `requests`.

    Args:
        answers: the script.
        delay: seconds before each answer, slept on the event loop (async only).
    """

    def __init__(self, answers: Iterable[Any] = (200,), *, delay: float = 0.0) -> None:
        if not isinstance(answers, Iterable):
            raise TypeError(f"answers: expected them in a list, got {answers!r}")
        self._answers = list(answers)
        if not self._answers:
            raise ValueError("answers: expected at least one")
        for answer in self._answers:
            if isinstance(answer, bool) or not (isinstance(answer, int | BaseException | Hang) or callable(answer)):
                raise TypeError(f"answers: expected statuses, exceptions, functions of the request or HANG, got {answer!r}")
        self._delay = delay
        self._given = 0
        self.requests: list[Any] = []

    def _next(self, request: Any) -> Any:
        self.requests.append(request)
        answer = self._answers[min(self._given, len(self._answers) - 1)]
        self._given += 1
        if isinstance(answer, BaseException):
            raise copy.copy(answer)
        if isinstance(answer, type) and issubclass(answer, BaseException):
            raise answer("scripted")
        if isinstance(answer, int):
            return sys.modules[type(request).__module__.partition(".")[0]].Response(answer)
        return answer if isinstance(answer, Hang) else answer(request)

    async def handle_async_request(self, request: Any) -> Any:
        if self._delay:
            await anyio.sleep(self._delay)
        answer = self._next(request)
        if isinstance(answer, Hang):
            await anyio.sleep_forever()
        return await answer if inspect.isawaitable(answer) else answer

    def handle_request(self, request: Any) -> Any:
        answer = self._next(request)
        if isinstance(answer, Hang):
            raise RuntimeError("HANG: a synchronous request cannot be interrupted; script the library's ReadTimeout instead")
        return answer

    async def aclose(self) -> None:
        """Nothing is open."""

    def close(self) -> None:
        """Nothing is open."""

    # A client enters and leaves its transport.

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class RecordingListener:
    """Keeps every event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def on_event(self, event: Event) -> None:
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one class."""
        return [event for event in self.events if isinstance(event, kind)]

    def clear(self) -> None:
        self.events.clear()


class Resettable(Protocol):
    """A `Resilience`, a `Dependency` or a `Pipeline`."""

    def reset(self) -> None: ...


def resetting(*targets: Resettable) -> Any:
    """A pytest fixture that applies to every test: before and after each one `targets` forget all that they learnt.

    Bind it to any name in `conftest.py` (or in one test module, for its tests alone):

        reset = resetting(app.resilience)

    Args:
        targets: what is shared between tests. Declared dependencies and features stay declared.

    Raises:
        TypeError: something given has no `reset()`.
    """
    import pytest  # only tests need it

    for target in targets:
        if not callable(getattr(target, "reset", None)):
            raise TypeError(f"targets: expected a Resilience, a Dependency or a Pipeline, got {target!r}")

    @pytest.fixture(autouse=True)
    def reset() -> Iterator[None]:
        for target in targets:
            target.reset()
        yield
        for target in targets:
            target.reset()

    return reset
