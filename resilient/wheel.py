"""Cancel scopes that expire, at the cost of a scope without a timer of its own.

A scope with a deadline arms and disarms an event-loop timer per call. Here scopes whose deadlines fall into the same
slot share one timer (Varghese & Lauck, "Hashed and Hierarchical Timing Wheels", SOSP 1987). A slot is at most 1/128 of
the time that was asked for, or 1 ms, so a scope may be cancelled that much late, never early.

The task itself is never cancelled: `task.cancel()` from a timer is cheaper still, but mixed with anyio scopes and task
groups in the code that runs inside it delivers spurious cancellations.
"""

from __future__ import annotations

import asyncio
import math
import threading
import weakref
from types import TracebackType

import anyio

__all__ = ["expiring"]

FINEST = 2.0**-10
FRACTION = 128


class Wheel:
    """The armed scopes of one event loop, by slot."""

    __slots__ = ("slots",)

    def __init__(self) -> None:
        self.slots: dict[float, set[anyio.CancelScope]] = {}

    def slot(self, loop: asyncio.AbstractEventLoop, seconds: float) -> set[anyio.CancelScope]:
        width = FINEST if seconds < FINEST * FRACTION else 2.0 ** math.floor(math.log2(seconds / FRACTION))
        at = (math.floor((loop.time() + seconds) / width) + 1) * width
        slot = self.slots.get(at)
        if slot is None:
            slot = self.slots[at] = set()
            loop.call_at(at, self._expire, at)
        return slot

    def _expire(self, at: float) -> None:
        for scope in self.slots.pop(at, ()):
            scope.cancel()


class _Local(threading.local):
    """The wheel of the loop that ran last on this thread. Held weakly, so that no loop outlives its run."""

    loop: weakref.ref[asyncio.AbstractEventLoop] | None = None
    wheel: Wheel = Wheel()


_local = _Local()


def _wheel(loop: asyncio.AbstractEventLoop) -> Wheel:
    local = _local
    if local.loop is None or local.loop() is not loop:
        local.loop = weakref.ref(loop)
        local.wheel = Wheel()
    return local.wheel


class _Expiring:
    """`with expiring(seconds):` for native asyncio tasks."""

    __slots__ = ("_scope", "_slot")

    def __init__(self, slot: set[anyio.CancelScope]) -> None:
        self._slot = slot
        self._scope = anyio.CancelScope()

    def __enter__(self) -> anyio.CancelScope:
        scope = self._scope
        scope.__enter__()
        self._slot.add(scope)
        return scope

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        self._slot.discard(self._scope)
        return self._scope.__exit__(kind, error, trace)


def expiring(seconds: float, *, exact: bool = False) -> anyio.CancelScope | _Expiring:
    """A cancel scope that is cancelled after `seconds` and then swallows its own cancellation, and no other.

    With `exact` it has a timer of its own. On trio it always has.
    """
    if not exact:
        loop = asyncio._get_running_loop()
        if loop is not None and asyncio.current_task(loop) is not None:
            return _Expiring(_wheel(loop).slot(loop, seconds))
    return anyio.CancelScope(deadline=anyio.current_time() + seconds)
