"""Timers for what is nearly always done in time.

`call_later` arms and disarms an event-loop timer per call. Here all whose deadlines fall into the same slot share one
timer (Varghese & Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987). A slot is at most 1/128 of the time that
was asked for, or 1 ms, so what it holds may be cancelled that much late, never early.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import math
import sys
import threading
import time
import weakref
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol

import anyio

if TYPE_CHECKING:
    from .call import Call

__all__ = [
    "AGAIN",
    "ANYWHERE",
    "current_home",
    "current_slot",
    "end_in",
    "interrupt",
    "is_shielded",
    "native_loop",
    "new_scope",
    "scope_of",
    "slot_in",
]

logger = logging.getLogger("resilient")

SOONEST = 0.001
FINEST = -10  # as a power of two: about 1 ms
AGAIN = 1.0  # seconds; long enough for a clean-up that nobody has shielded
FRACTION = 8  # a slot is at most 2**(1 - FRACTION) of the time that was asked for


class Cancellable(Protocol):
    """What a slot holds: an anyio scope, an interruption, or anything else with their `cancel`."""

    def cancel(self) -> object: ...


class Wheel:
    """The armed scopes of one event loop, by slot. Its timers keep it: what they would cancel leads to the loop."""

    __slots__ = ("__weakref__", "_at", "_latest", "_least", "_most", "_time", "_width", "loop", "slots")

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        # What asyncio's own loops say is this very number, at the price of a frame.
        plain = getattr(loop.time, "__func__", None) is asyncio.BaseEventLoop.time
        self._time: Callable[[], float] = time.monotonic if plain else loop.time
        self.slots: dict[float, set[Any]] = {}
        self._least = self._most = 0.0  # the seconds for which a slot as wide as the latest one is right: none
        self._width = self._at = 0.0
        self._latest: set[Any] = set()

    def slot(self, seconds: float) -> set[Any]:
        """What is cancelled in `seconds`, or a little later; the caller adds its own and discards it again."""
        due = self._time() + seconds
        # Nearly all calls of a busy moment ask for the same slot.
        if self._least <= seconds < self._most and 0.0 <= self._at - due <= self._width:
            return self._latest
        exponent = math.frexp(seconds)[1]
        width = math.ldexp(1.0, max(exponent - FRACTION, FINEST))
        at = (due // width + 1.0) * width
        slot = self.slots.get(at)
        if slot is None:
            slot = self.slots[at] = set()
            # An empty context, or the slot would keep the variables of whoever asked first.
            self.loop.call_at(at, self._expire, at, context=contextvars.Context())
        self._most, self._width, self._at, self._latest = math.ldexp(1.0, exponent), width, at, slot
        self._least = self._most / 2
        return slot

    def _expire(self, at: float) -> None:
        if at == self._at:
            self._most = 0.0  # a coarse clock lets a timer come early, while somebody may still ask for this slot
        expired: Iterable[Cancellable] = self.slots.pop(at, ())
        for one in list(expired):
            try:
                one.cancel()
            except Exception:
                logger.exception("a deadline could not be enforced")


class _Local(threading.local):
    """The wheel of the loop that ran last on this thread, for as long as that loop has timers of it."""

    wheel: Callable[[], Wheel | None] = staticmethod(lambda: None)
    scope: type[anyio.CancelScope] | None = None


_local = _Local()


def _wheel(loop: asyncio.AbstractEventLoop) -> Wheel:
    wheel = _local.wheel()
    if wheel is None or wheel.loop is not loop:
        wheel = Wheel(loop)
        _local.wheel = weakref.ref(wheel)
    return wheel


def native_loop() -> asyncio.AbstractEventLoop | None:
    """The event loop whose native task is running; None on trio, which can run as a guest of an asyncio loop."""
    loop = asyncio._get_running_loop()
    if loop is not None and "trio" in sys.modules and asyncio.current_task(loop) is None:
        return None
    return loop


def current_slot(seconds: float) -> set[Any] | None:
    """The running event loop's slot for `seconds`; None unless the caller is a native asyncio task, and for infinity."""
    loop = native_loop()
    if loop is None or seconds == math.inf:
        return None
    return slot_in(loop, seconds)


def slot_in(loop: asyncio.AbstractEventLoop, seconds: float) -> set[Any]:
    """The slot of the loop that runs on this thread for what is due in so many seconds, which are not infinite."""
    wheel = _local.wheel()
    if wheel is None or wheel.loop is not loop:
        wheel = _wheel(loop)
    return wheel.slot(seconds if seconds > SOONEST else SOONEST)  # noqa: FURB136 - max() costs three times that


def new_scope() -> anyio.CancelScope:
    """An `anyio.CancelScope()` for a native asyncio task, of the class that anyio finds out anew each time."""
    kind = _local.scope
    if kind is None:
        kind = _local.scope = type(anyio.CancelScope())
    scope = object.__new__(kind)  # as the class does itself, at the price of a frame
    kind.__init__(scope)
    return scope


def interrupt(task: asyncio.Task[Any]) -> bool:
    """Cancel a task of ours, with all that it does. False if it is inside a shielded anyio scope now, or about to go on."""
    if is_shielded(task):
        return False
    waiting = getattr(task, "_fut_waiter", None)
    return (waiting is None or not waiting.done()) and task.cancel()


def is_shielded(task: asyncio.Task[Any], within: Any = None) -> bool:
    """Whether a task is inside a shielded anyio scope; of those that it has entered inside of the scope `within`, where that is given."""
    scope = scope_of(task)
    while scope is not None and scope is not within:
        if scope.shield:
            return True
        scope = scope._parent_scope
    return False


def scope_of(task: asyncio.Task[Any]) -> Any:
    """The innermost anyio scope that a task is in. anyio tells of the current task only, and only of its deadline."""
    backend = sys.modules.get("anyio._backends._asyncio")
    state = getattr(backend, "_task_states", {}).get(task)
    return None if state is None else state.cancel_scope


# -- ends that are moved, from whichever thread -----------------------------------------------------------------------

ANYWHERE: Any = object()
"""The home of what may be ended from any thread."""


def current_home() -> Any:
    """What a scope of the running task belongs to: an asyncio event loop, or the token of a trio run."""
    loop = native_loop()
    if loop is not None:
        return loop
    import trio

    return trio.lowlevel.current_trio_token()


def end_in(call: Call, seconds: float) -> None:
    """Make the attempt that `call` is making end in `seconds` at the latest. One that has ended meanwhile is left alone.

    So is one in a thread, unless it is a race of several: the caller waits for that, and a wait can be ended.
    """
    branches = call.branches
    while call.scope is None and branches:
        call = branches[-1]
        branches = call.branches
    home, scope = call.home, call.scope
    if scope is None or home is None:
        return
    try:
        if home is ANYWHERE:
            _end_at(call, scope, seconds, call.runtime.now)
        elif isinstance(home, asyncio.AbstractEventLoop):
            home.call_soon_threadsafe(_end_at, call, scope, seconds, home.time)
        else:
            import trio

            home.run_sync_soon(_end_at, call, scope, seconds, trio.current_time)
    except RuntimeError:  # of a closed loop, and trio's RunFinishedError: its tasks are gone, and this one with them
        return


def _end_at(call: Call, scope: Any, seconds: float, time: Callable[[], float]) -> None:
    if call.scope is not scope:
        return
    call.cut_at = call.runtime.now() + max(seconds, 0.0)
    if seconds <= 0:
        scope.cancel()
    elif isinstance(scope, anyio.CancelScope):
        scope.deadline = min(scope.deadline, time() + seconds)
    else:
        scope.bring_forward(seconds)
