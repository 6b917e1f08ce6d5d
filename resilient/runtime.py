"""The only way policies touch the world: one implementation awaits (asyncio and trio), one blocks the calling thread.

A policy is one coroutine. `AsyncRuntime` suspends it; `SyncRuntime` implements the same coroutines without ever
suspending, so that a synchronous caller drives the very same policy with a single `send(None)`.
"""

from __future__ import annotations

import asyncio
import inspect
import math
import warnings
from collections.abc import Awaitable, Callable, Coroutine
from types import AsyncGeneratorType, CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any, NoReturn, TypeVar

import anyio

from .clock import SYSTEM_CLOCK, Clock
from .context import COVER, DEADLINE, Deadline
from .core.outcome import Outcome, outcome_of_cut
from .interruption import EXPIRED, interruptible
from .race import AsyncioRace, Race, ThreadRace, TrioRace
from .threads import AsyncioErrand, Errand, Threads
from .waiters import ThreadWaiter, TrioWaiter, waiter_here
from .wheel import current_home, native_loop

if TYPE_CHECKING:
    from contextvars import Token

    from .call import Call
    from .protocols import Waiter

__all__ = ["EXPIRED", "AsyncRuntime", "SyncRuntime", "ThreadsBusy", "drive"]

INFINITY = math.inf
THREADS = Threads(limit=32)  # for what blocks and was asked for on an event loop
T = TypeVar("T")
UNFINISHED = frozenset({AsyncGeneratorType, CoroutineType, GeneratorType})


class ThreadsBusy(RuntimeError):
    """Nothing was done, for every thread was busy."""


def _throw(error: BaseException) -> NoReturn:
    raise error


def drive(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run a coroutine that never suspends, and return its value."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    coroutine.close()
    raise RuntimeError("a policy suspended during a synchronous call: it awaited something other than its runtime")


def begin_attempt(call: Call, now: float) -> float:
    """Put on the call when the attempt that starts now must end, and whose limit that is. Returns the seconds left.

    Raises:
        DeadlineExceeded: too little is left for the attempt to be of use; it is not started.
    """
    deadline, limit = call.deadline, call.limit
    if now + call.attempt_limit < deadline:
        deadline, limit = now + call.attempt_limit, "attempt"
    left = deadline - now
    if left <= 0 or left < call.min_useful:
        left = max(left, 0.0)
        raise call.cut(f"{left:.3f} s left, too little to start", policy="timeout", reason=limit, outcome=Outcome.IGNORED)
    call.attempt_started, call.attempt_deadline, call.attempt_reason = now, deadline, limit
    return left


def cut_off(call: Call, now: float) -> BaseException:
    """The error for an attempt that was cut: was it the dependency's fault, or was the caller merely impatient?"""
    ran, limit = now - call.attempt_started, call.attempt_reason
    if call.attempt_started <= call.cut_at <= now + 0.001:
        message = f"no answer within {ran:.3f} s, and the circuit has opened"
        return call.cut(message, policy="breaker", reason="stall", outcome=Outcome.OUTAGE)
    outcome = Outcome.OUTAGE if limit == "attempt" else outcome_of_cut(ran, call.attempt_timeout, call.owner.stats.p95())
    return call.cut(f"no answer within {ran:.3f} s", policy="timeout", reason=limit, outcome=outcome)


def start(call: Call) -> Awaitable[Any]:
    """Call the function, and see that there is something to await.

    Raises:
        TypeError: it is a plain function.
    """
    kwargs = call.kwargs
    awaitable = call.fn(*call.args, **kwargs) if kwargs else call.fn(*call.args)
    if type(awaitable) is not CoroutineType and not hasattr(awaitable, "__await__"):
        streamed = isinstance(awaitable, GeneratorType | AsyncGeneratorType)
        advice = "decorate a generator function" if streamed else "use call_sync() for a plain function"
        error = TypeError(f"{call.fn!r} returned {type(awaitable).__name__}, which cannot be awaited: {advice}")
        call.ignore(error)
        raise error
    return awaitable  # type: ignore[no-any-return]


def expendable(call: Call) -> bool:
    """Whether something is served in place of the call, should it fail: by a pipeline, or by a feature around it.

    Then its attempt may be ended from outside.
    """
    if not (call.substituted or call.owner.substitutes):
        cover = COVER.get()
        if cover is None or not cover.up:
            return False
    if call.cut_at != INFINITY:
        call.cut_at = INFINITY  # it was an earlier attempt that was to end then
    return True


def lift(deadline: Deadline, outer: Deadline | None, token: Token[Deadline | None]) -> None:
    """End an attempt's deadline with the attempt: tasks that were started inside have it in contexts of their own."""
    deadline.at = INFINITY if outer is None else outer.at
    try:  # as `put_back` does, without its frame
        DEADLINE.reset(token)
    except ValueError as error:
        if not isinstance(error.__context__, GeneratorExit):
            raise


class AsyncRuntime:
    """Awaits, on asyncio and on trio.

    Args:
        clock: what policies read the time from. With one other than the system's, timers are exact and run on the
            event loop, whose time must then advance with that clock (`resilient.testing.FakeClock`).
    """

    __slots__ = ("clock", "exact", "now")
    sync = False

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.now: Callable[[], float] = clock.now
        self.exact = clock is not SYSTEM_CLOCK

    def may_wait(self) -> bool:
        return True

    def attempt(self, call: Call) -> Awaitable[Any]:
        return self._attempt(call) if call.timed else start(call)

    async def _attempt(self, call: Call) -> Any:
        now = self.now
        seconds = begin_attempt(call, now())
        outer = DEADLINE.get()
        token = DEADLINE.set(deadline := Deadline(call.attempt_deadline, self.clock))
        deadline.of = call.owner.name
        try:
            if seconds == INFINITY:
                value = await start(call)
            elif not call.paced and native_loop() is not None:
                movable = call if expendable(call) else None
                value = await interruptible(start(call), call.attempt_deadline, now, self.exact, movable)
            else:
                if expendable(call):
                    call.home = current_home()
                movable = call if call.home is not None or call.paced else None
                value = await self._within_scope(seconds, start, call, movable=movable)
        finally:
            lift(deadline, outer, token)
        if value is EXPIRED:
            raise cut_off(call, now())
        return value

    def bounded(self, deadline: float, fn: Callable[[], Awaitable[Any]]) -> Awaitable[Any]:
        if deadline == INFINITY:
            return fn()
        if native_loop() is not None:
            return interruptible(fn(), deadline, self.now, self.exact)
        return self._within_scope(deadline - self.now(), fn)

    async def _within_scope(self, seconds: float, fn: Callable[..., Awaitable[Any]], *args: Any, movable: Call | None = None) -> Any:
        """Await `fn(*args)` in a cancel scope; EXPIRED if that had to end it. A `movable` call is given the scope."""
        with anyio.CancelScope(deadline=anyio.current_time() + seconds) as scope:
            if movable is None:
                return await fn(*args)
            movable.scope = scope
            try:
                return await fn(*args)
            finally:
                movable.scope = None
        return EXPIRED

    async def sleep(self, seconds: float) -> None:
        await anyio.sleep(seconds)

    def waiter(self) -> Waiter:
        return waiter_here()

    def race(self) -> Race:
        loop = asyncio._get_running_loop()
        return AsyncioRace(self) if loop is not None and asyncio.current_task(loop) is not None else TrioRace(self)

    async def offload(self, act: Callable[[], T], *, patient: bool = False, threads: Threads = THREADS) -> T:
        """On a thread, while the event loop goes on. A caller who is cancelled leaves it to its end."""
        # Nothing is on the way to a thread and back that need not be: it is that of each hit of a store with a disk.
        loop = asyncio._get_running_loop()
        errand: Errand
        if loop is not None and asyncio.current_task(loop) is not None:
            errand = AsyncioErrand(act, loop)
            if threads.start(errand.do, errand.tell):
                await errand
                return errand.outcome()  # type: ignore[no-any-return]
        else:
            errand, waiter = Errand(act), TrioWaiter()
            if threads.start(errand.do, waiter.wake):
                await waiter.wait()
                return errand.outcome()  # type: ignore[no-any-return]
        if patient:  # in the line for anyio's threads
            return await anyio.to_thread.run_sync(act)
        raise ThreadsBusy("every thread for blocking work is busy")

    def wait(self, waiter: Any, deadline: float) -> Coroutine[Any, Any, bool]:
        return waiter.wait() if deadline == INFINITY else self._wait_until(waiter, deadline)

    async def _wait_until(self, waiter: Any, deadline: float) -> bool:
        with anyio.CancelScope() as scope:
            scope.deadline = anyio.current_time() + max(deadline - self.now(), 0.0)
            await waiter.wait()
        return bool(waiter.is_set())


class SyncRuntime:
    """Blocks the calling thread, never suspends, and never interrupts running code."""

    __slots__ = ("_warned", "clock", "now", "threads")
    sync = True

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self.clock = clock
        self.now: Callable[[], float] = clock.now
        # A clock that only the calling thread advances says that no other thread can live by it.
        self.threads: Threads | None = clock.threads if hasattr(clock, "threads") else Threads()
        self._warned = False

    def may_wait(self) -> bool:
        if not _on_event_loop():
            return True
        if not self._warned:
            self._warned = True
            warnings.warn(
                "a synchronous call on a thread whose event loop is running never waits: full bulkheads reject and "
                "retries are not delayed; make the call in a thread or use the async one",
                RuntimeWarning,
                stacklevel=2,
            )
        return False

    async def attempt(self, call: Call) -> Any:
        if not call.timed:
            return self._value(call)
        begin_attempt(call, self.now())
        outer = DEADLINE.get()
        token = DEADLINE.set(deadline := Deadline(call.attempt_deadline, self.clock))
        deadline.of = call.owner.name
        try:
            value = self._value(call)
        finally:
            lift(deadline, outer, token)
        if self.now() >= call.attempt_deadline:
            call.came_late()
        elif call._late is not None:
            call._late = None  # it was an earlier attempt's value that came late
        return value

    @staticmethod
    def _value(call: Call) -> Any:
        value = call.fn(*call.args, **call.kwargs)
        if type(value) in UNFINISHED:
            _refuse_unfinished(call, value)
        return value

    async def bounded(self, deadline: float, fn: Callable[[], Any]) -> Any:
        return EXPIRED if self.now() >= deadline else fn()

    async def sleep(self, seconds: float) -> None:
        self.clock.sleep(seconds)

    async def offload(self, act: Callable[[], T], *, patient: bool = False) -> T:
        return act()

    def waiter(self) -> Waiter:
        return ThreadWaiter()

    def race(self) -> Race | None:
        return None if self.threads is None or _on_event_loop() else ThreadRace(self, self.threads, drive)

    async def wait(self, waiter: Any, deadline: float) -> bool:
        return self.clock.wait(waiter.event, None if deadline == INFINITY else max(deadline - self.now(), 0.0))


def _refuse_unfinished(call: Call, value: Any) -> None:
    """Nothing has happened yet that could be counted. A function may return a generator that it did not write, though."""
    if type(value) is GeneratorType and not inspect.isgeneratorfunction(call.fn):
        return
    if type(value) is not AsyncGeneratorType:
        value.close()
    advice = "use `await ...call()` for an async function" if type(value) is CoroutineType else "decorate a generator function"
    error = TypeError(f"{call.fn!r} returned a {type(value).__name__}, which has yet to run: {advice}")
    call.ignore(error)
    raise error


def _on_event_loop() -> bool:
    if asyncio._get_running_loop() is not None:
        return True
    try:
        anyio.get_current_task()
    except RuntimeError:  # anyio.NoEventLoopError from 4.12 on
        return False
    return True
