"""The turns of an event loop: when one has taken on enough, when the next begins, and how late the loop is.

A handler that computes holds the event loop, and whoever comes meanwhile waits where nobody sees him: in a socket, or
among the loop's ready tasks. So a turn of the loop takes on requests for `target` seconds only. Who comes later waits in
our own line, where he is counted and sorted; the loop then looks at its sockets, and the next ones go in: as many as fit
into `target`, by what the last ones took.
"""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from contextvars import Context
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .door import Door

__all__ = ["Pulse", "running_loop"]

BEAT = 0.02  # seconds between two looks at how late the loop is
RECENT = 0.3  # weight of the last turn in what a request takes of the loop
MOST = 256  # let in at one turn, however little they take


def running_loop() -> Any:
    """What runs the caller: an asyncio loop, or the token of a trio run."""
    loop = asyncio._get_running_loop()
    if loop is not None:  # trio may run as its guest: then the host's turns are what there is
        return loop
    import trio

    return trio.lowlevel.current_trio_token()


class Pulse:
    """Of one event loop, for one `Door`. Nothing is armed while nobody comes; and no loop is kept.

    Args:
        door: who is let in.
        loop: what runs the caller.
        target: seconds for which a turn takes on requests.

    Attributes:
        held: slots that requests of this loop have; changed under the door's lock.
        streams: places of streams that they have.
    """

    __slots__ = (
        *("_arrived", "_beating", "_began", "_context", "_cost", "_door", "_due", "_let_in", "_now", "_target", "_task", "_turning"),
        *("held", "loop", "native", "streams"),
    )

    def __init__(self, door: Door, loop: Any, target: float) -> None:
        self._door = door
        self._now = door.now
        self._target = target
        self.loop = weakref.ref(loop)
        self.native = isinstance(loop, asyncio.AbstractEventLoop)
        self._turning = self._beating = self._arrived = False
        self._began = self._due = 0.0
        self._context = Context()  # empty, or it would keep the variables of whoever came first; no two threads may share one
        self._task: object = None
        self._let_in = 0
        self._cost = 0.0  # seconds that a request takes of the loop, before it first waits for something
        self.held = self.streams = 0

    @property
    def gone(self) -> bool:
        """Whether its event loop was closed, and whatever ran on it will never go on. Trio ends its tasks with a run."""
        loop = self.loop()
        return loop is None or (self.native and loop.is_closed())

    # -- turns ----------------------------------------------------------------------------------------------------

    def open(self, now: float, task: object) -> bool:
        """Whether this turn takes on one more, which `task` runs. To be asked by each who comes."""
        self._arrived = True
        if not self._beating:
            self._beating = True
            self._look_later(now)
        if self._turning:
            # Who comes from the very task that was let in last has nobody to wait for: nothing runs before it does.
            if now - self._began >= self._target and (task is None or task is not self._task):
                return False
            self._task = task
            self._let_in += 1
            return True
        self._task = task
        self._turning, self._began, self._let_in = True, now, 1
        self._soon(self._over)
        return True

    def kick(self) -> None:
        """A slot has become free, and somebody waits."""
        if not self._turning:
            self._turning, self._began = True, self._now()
            self._soon(self._let)

    def _over(self) -> None:
        """The next turn begins. What the loop finds in its sockets now is in line one turn later."""
        if self._let_in:
            taken = max(self._now() - self._began, 0.0) / self._let_in
            self._cost += RECENT * (taken - self._cost) if self._cost else taken
            self._let_in = 0
        self._task = None
        if self._door.queued:
            self._soon(self._listen)
        else:
            self._turning = False

    def _listen(self) -> None:
        self._soon(self._let)

    def _let(self) -> None:
        """Let in as many as fit into a turn."""
        fitting = MOST if self._cost * MOST <= self._target else max(int(self._target / self._cost), 1)
        granted = self._door.grant(fitting)
        if not granted:
            self._turning = False  # all slots are taken: whoever gives one back says so
            return
        self._let_in = len(granted)
        self._mark()
        if self.native:
            self._soon(self._mark)  # runs right before them, and `_over` right after
        for one in granted:
            one.wake()
        self._soon(self._over)

    def _mark(self) -> None:
        self._began = self._now()

    # -- lateness -------------------------------------------------------------------------------------------------

    def _look_later(self, now: float) -> None:
        self._due = now + BEAT
        self._later(BEAT, self._look)

    def _look(self) -> None:
        now = self._now()
        # A timer may come early by the resolution of its clock.
        self._door.looked(max(now - self._due, 0.0), now)
        if self._arrived or self._door.queued:
            self._arrived = False
            self._look_later(now)
        else:
            self._beating = False
            self._door.rested()

    # -- the loop -------------------------------------------------------------------------------------------------

    def _soon(self, act: Callable[[], None]) -> None:
        loop: Any = self.loop()  # it is running, so it is there
        if self.native:
            loop.call_soon(act, context=self._context)
        else:
            loop.run_sync_soon(act)

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        if self.native:
            loop: Any = self.loop()
            loop.call_later(seconds, act, context=self._context)
            return
        import trio

        until = trio.current_time() + seconds

        async def later() -> None:
            await trio.sleep_until(until)
            act()

        trio.lowlevel.spawn_system_task(later)
