"""One of those who race: its call, how that ended, and what it lets go of if it has lost."""

from __future__ import annotations

import asyncio
import logging
from typing import TYPE_CHECKING, Any

from ..core.outcome import Outcome

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .race import Race

__all__ = ["Entrant"]

logger = logging.getLogger("resilient")


class Entrant:
    """One call of a race, and how it ended.

    Attributes:
        call: a call of its own, which holds what it holds.
        value, error: its end, once it has one.
        outcome: what that says of the dependency; nothing, unless somebody has looked at it.
        lost: nobody waits for it any more.
        task: where it is one, the event loop's.
    """

    __slots__ = ("_gone", "_race", "_scope", "call", "ended", "error", "lost", "outcome", "task", "value")

    def __init__(self, race: Race, call: Call, scope: Any) -> None:
        self._race = race
        self._scope = scope
        self._gone = False
        self.call = call
        self.value: Any = None
        self.error: BaseException | None = None
        self.outcome = Outcome.IGNORED
        self.ended = self.lost = False
        self.task: Any = None

    async def run(self, inner: Inner) -> None:
        """Run the call to its end, and hand that over; if it has lost, let go of everything."""
        left = None
        try:
            with self._scope:
                if not self.lost:
                    self.value = await inner(self.call)
        except Exception as error:  # noqa: BLE001  # handed to whoever waits
            self.error = error
        except BaseException as error:  # noqa: BLE001  # likewise, and to the event loop where it is its doing
            self.error = left = error
        try:
            if not self._race.finish(self):
                if isinstance(left, GeneratorExit):
                    self.settle()  # nothing can be awaited any more
                else:
                    await self.let_go()
            if left is not None and self._race.passes_on(left, lost=self.lost):
                raise left
        finally:
            del left

    async def let_go(self) -> None:
        """Close the answer that nobody will read, and settle what the call holds."""
        value, self.value, self.error = self.value, None, None
        try:
            await self.call.abandon(value)
        except Exception:
            logger.debug("the answer of a call that had lost a race could not be closed", exc_info=True)
        finally:
            self.settle()

    def settle(self) -> None:
        """Give back what the call holds, once it has lost. However often it is asked, it does so once."""
        if self._gone:
            return
        self._gone = True
        self.call.settle(0, self.outcome, None)
        self.call.owner.outbox.flush()
        self._race.gone()

    def stopped(self, task: asyncio.Task[Any]) -> None:
        """The task is done: perhaps it was cancelled before it had even begun."""
        if self.lost:
            self.settle()
        elif not self.ended:
            self.error = asyncio.CancelledError()
            self._race.finish(self)

    def cancel(self) -> None:
        self.call.lost = True
        self._scope.cancel()
