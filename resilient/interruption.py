"""Awaiting up to a deadline on asyncio, at no cost as long as nothing is waited for.

`asyncio.timeout` cancels the task, and a cancel scope stands in the task's way from its first to its last step. Here the
awaited code is driven step by step instead: what never suspends needs no timer, and what does is interrupted by cancelling
the future that it waits on. The task is not cancelled, so nobody's count of cancellations is touched, none can come after
the code it was meant for, and one of ours is never taken for somebody else's.

To the code inside it is a `CancelledError` at an await, as from `asyncio.timeout`. It is not raised inside an anyio scope
that is shielded, but after that one. Code that goes on in spite of it is interrupted again each second.
"""

from __future__ import annotations

import asyncio
import types
from collections.abc import Awaitable, Callable, Generator
from types import CoroutineType, GeneratorType
from typing import TYPE_CHECKING, Any

from .wheel import AGAIN, is_shielded, scope_of, slot_in

if TYPE_CHECKING:
    from .call import Call

__all__ = ["EXPIRED", "interruptible"]

EXPIRED: Any = object()
"""What comes instead of a value where the deadline was first."""


@types.coroutine
def interruptible(
    awaitable: Awaitable[Any], deadline: float, now: Callable[[], float], exact: bool, movable: Call | None = None
) -> Generator[Any, Any, Any]:
    """Await in a native asyncio task; EXPIRED if the deadline came first.

    Args:
        awaitable: what to await.
        deadline: absolute time ...
        now: ... on this clock.
        exact: arm a timer of its own, rather than share one that may be up to 1/128 late.
        movable: a call that is given, as its `scope` and its `home`, what its end can be moved with, and where.
    """
    inner: Any = awaitable if type(awaitable) is CoroutineType else _steps_of(awaitable)
    try:
        interruption = Interruption(inner.send(None), deadline - now(), exact)
    except StopIteration as stop:
        return stop.value
    if movable is None:
        return (yield from _interrupted(inner, interruption))
    movable.scope, movable.home = interruption, interruption.home
    try:
        return (yield from _interrupted(inner, interruption))
    finally:
        movable.scope = None


def _interrupted(inner: Any, interruption: Interruption) -> Generator[Any, Any, Any]:
    """Go on with `inner`, which has suspended: what `yield from inner` does, and a look at the timer at each step."""
    thrown: list[BaseException] = []
    try:
        while True:
            try:
                sent = yield interruption.waiting
            except GeneratorExit:
                inner.close()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown into the code that waits
                thrown.append(error)
            # Outside the handler, or what is raised next would be told to have come of it.
            if not thrown and interruption.due and interruption.waiting is None and interruption.ready():
                thrown.append(asyncio.CancelledError())
            if thrown:
                interruption.hears(thrown[0])
                interruption.waiting = inner.throw(thrown.pop())
            else:
                interruption.waiting = inner.send(sent)
            if interruption.due:
                interruption.deliver()
    except StopIteration as stop:
        return stop.value
    except asyncio.CancelledError as error:
        if interruption.caused(error):
            return EXPIRED
        raise
    finally:
        interruption.disarm()


class Interruption:
    """One await's timer, and whether what comes of it is its own doing.

    Attributes:
        waiting: the future that the task waits on; None for a task that only lets others run.
        due: the deadline has come, and the code has yet to hear of it.
        delivered: the code was interrupted.
    """

    # On the class, for they are seldom set.
    due: bool = False
    delivered: bool = False
    _own: bool = False
    _others: BaseException | None = None
    _slot: set[Any] | None = None
    _handle: asyncio.TimerHandle | None = None

    def __init__(self, waiting: Any, seconds: float, exact: bool) -> None:
        self.waiting = waiting
        self.home = loop = asyncio.get_running_loop()
        task: Any = asyncio.current_task(loop)
        self._task: Any = task
        self._asked: int = _native_requests(task)
        self._outer = scope_of(task)
        if exact:
            self._call_in(seconds)
        else:
            slot = self._slot = slot_in(loop, seconds)
            slot.add(self)

    def _call_in(self, seconds: float) -> None:
        self._handle = self.home.call_later(max(seconds, 0.0), self.cancel)

    def disarm(self) -> None:
        if self._slot is not None:
            self._slot.discard(self)
        if self._handle is not None:
            self._handle.cancel()
        # What they hold or lead to is the frame that holds this, once it has failed.
        self.waiting = self._others = self._task = self._outer = None

    def bring_forward(self, seconds: float) -> None:
        """Let it come in so many seconds, if that is sooner."""
        due = self._handle
        if due is None or due.when() > self.home.time() + seconds:
            if due is not None:
                due.cancel()
            self._call_in(seconds)

    def cancel(self) -> None:
        """The deadline has come, or the code has gone on for a second since it heard of it."""
        self.due = True
        self.deliver()
        if self._slot is not None:  # it was brought forward, and must not come once more so soon
            self._slot.discard(self)
        if self._handle is not None:
            self._handle.cancel()
        self._call_in(AGAIN)

    def deliver(self) -> None:
        """Interrupt the code if it waits where it may be interrupted; otherwise it is looked at again at its next step."""
        # What is done already cannot be cancelled: the task is about to go on with its result.
        if self.waiting is not None and not is_shielded(self._task, self._outer) and self.waiting.cancel():
            self.delivered, self.due, self._own = True, False, True

    def ready(self) -> bool:
        """Whether to interrupt code that waits for nothing, now that it is about to go on."""
        if is_shielded(self._task, self._outer):
            return False
        self.delivered, self.due, self._own = True, False, True
        return True

    def hears(self, error: BaseException) -> None:
        """An error is about to be thrown into the code: the one of our making, or that of somebody else."""
        if self._own:
            self._own = False
        else:
            self._others = error

    def caused(self, error: BaseException) -> bool:
        """Whether a cancellation that the code let pass is ours, and nobody else has asked for one."""
        return self.delivered and error is not self._others and _native_requests(self._task) <= self._asked


def _native_requests(task: asyncio.Task[Any]) -> int:
    """How many cancellations of a task were asked for and not taken back, those of anyio scopes left out.

    A scope that has cancelled the task does so again for as long as the task is inside: it need not be told by us, and
    would not know a cancellation of ours as its own.
    """
    requests = task.cancelling()
    scope = scope_of(task) if requests else None
    while scope is not None:
        requests -= getattr(scope, "_pending_uncancellations", 0) or 0
        scope = scope._parent_scope
    return requests


def _steps_of(awaitable: Awaitable[Any]) -> Any:
    # What `@types.coroutine` makes of a generator has no `__await__`; anything else may have a `send` that is its own.
    steps: Any = awaitable if isinstance(awaitable, GeneratorType) else awaitable.__await__()
    return steps if hasattr(steps, "send") and hasattr(steps, "throw") else _awaited(awaitable)


async def _awaited(awaitable: Awaitable[Any]) -> Any:
    return await awaitable
