"""A queue in front of a connection pool, so that nothing ever queues inside it.

With a few hundred waiters httpcore's assignment loop takes most of a process, and in httpx 0.28 a waiter that is
cancelled there can leave a connection behind that is never used nor closed again.
"""

from __future__ import annotations

import math
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
    """A slot of the gate; left once, however many ways lead to its end."""

    __slots__ = ("_left", "_now", "_queue")

    def __init__(self, queue: SlotQueue, now: Callable[[], float]) -> None:
        self._queue = queue
        self._now = now
        self._left = False

    def leave(self) -> None:
        if not self._left:
            self._left = True
            self._queue.release(self._now())


class Gate:
    """As many slots as the pool has connections; first come, first served; the wait ends in the library's PoolTimeout."""

    def __init__(self, size: int) -> None:
        self.slots = Slots(size, QUEUE, float(2**31), 0.0)
        self._queue = SlotQueue(self.slots)

    async def enter(self, call: HttpCall) -> Place:
        """Take a slot.

        Raises:
            PoolTimeout: the request's pool timeout was over, or 10,000 others wait already.
            DeadlineExceeded: the call's deadline was.
        """
        runtime = call.runtime
        if self._queue.try_acquire():
            return Place(self._queue, runtime.now)
        wait = (FOREVER if call.queue_timeout is None else call.queue_timeout) if runtime.may_wait() else 0.0
        call.queueing(runtime.now(), begins=True)
        refusal = await self._queue.acquire(runtime, wait, call.attempt_deadline)
        if refusal == "deadline":
            raise call.cut(WAITED, policy="pool", reason=call.attempt_reason, outcome=Outcome.IGNORED)
        call.queueing(runtime.now(), begins=False)
        if refusal is None:
            return Place(self._queue, runtime.now)
        call.report_rejection("pool", refusal)
        module: Any = call.library.module
        raise module.PoolTimeout(f"no connection became free within {wait:g} s", request=call.request)
