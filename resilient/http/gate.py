"""A queue in front of a connection pool, so that nothing ever queues inside it.

With a few hundred waiters httpcore's assignment loop takes most of a process, and in httpx 0.28 a waiter that is
cancelled there can leave a connection behind that is never used nor closed again.
"""

from __future__ import annotations

import math
import threading
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..core.bulkhead import Slots
from ..core.outcome import Outcome
from ..policies.bulkhead import SlotQueue

if TYPE_CHECKING:
    from .request import HttpCall

__all__ = ["Gate"]

QUEUE = 10_000
FOREVER = math.inf
WAITED = "the deadline came while waiting for a connection"


class Place:
    """A slot of the gate; left once, however many ways lead to its end. One that nobody has any more is left, too."""

    __slots__ = ("_gate", "_left")

    def __init__(self, gate: Gate) -> None:
        self._gate = gate
        self._left = False

    def leave(self) -> None:
        """Let the next one in. Never waits: a task that its event loop will not run again may be collected anywhere."""
        if not self._left:
            self._left = True
            self._gate.take_back()

    __del__ = leave


class _Lock:
    """The gate's: whoever lets go of it looks whether a place was left meanwhile."""

    __slots__ = ("_after", "acquire", "unlock")

    def __init__(self, after: Callable[[], None]) -> None:
        lock = threading.Lock()
        self._after = after
        self.acquire, self.unlock = lock.acquire, lock.release

    def release(self) -> None:
        self.unlock()
        self._after()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *raised: object) -> None:
        self.release()


class Gate:
    """As many slots as the pool has connections; first come, first served; the wait ends in the library's PoolTimeout."""

    def __init__(self, size: int) -> None:
        self.slots = Slots(size, QUEUE, float(2**31), 0.0)
        self._left: deque[None] = deque()
        self._lock = _Lock(self._admit)
        self._queue = SlotQueue(self.slots, self._lock)

    def take_back(self) -> None:
        """Have a slot back, and give it to whoever has waited longest."""
        self._left.append(None)
        self._admit()

    def _admit(self) -> None:
        # Whoever has the lock, perhaps the very code that a collection has interrupted, comes by here when he lets go.
        while self._left and self._lock.acquire(blocking=False):
            waiter: Any = None
            try:
                if self._left:
                    self._left.pop()
                    waiter = self.slots.release(0.0)
            finally:
                self._lock.unlock()
            if waiter is not None and not waiter.wake() and self._queue.give_back(waiter):
                self._left.append(None)  # its event loop is gone

    async def enter(self, call: HttpCall) -> Place:
        """Take a slot.

        Raises:
            PoolTimeout: the request's pool timeout was over, or 10,000 others wait already.
            DeadlineExceeded: the call's deadline was.
        """
        runtime = call.runtime
        if self._queue.try_acquire():
            return Place(self)
        wait = (FOREVER if call.queue_timeout is None else call.queue_timeout) if runtime.may_wait() else 0.0
        call.queueing(runtime.now(), begins=True)
        refusal = await self._queue.acquire(runtime, wait, call.attempt_deadline)
        if refusal == "deadline":
            raise call.cut(WAITED, policy="pool", reason=call.attempt_reason, outcome=Outcome.IGNORED)
        call.queueing(runtime.now(), begins=False)
        if refusal is None:
            return Place(self)
        call.report_rejection("pool", refusal)
        module: Any = call.library.module
        raise module.PoolTimeout(f"no connection became free within {wait:g} s", request=call.request)
