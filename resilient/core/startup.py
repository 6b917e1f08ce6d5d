"""When a service has started: once all is done that it waits for, or once it has waited for long enough.

Rules of this file: names go in and are crossed off; `now` is an argument, and nobody is told anything.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

__all__ = ["Startup"]


class Startup:
    """The start of a service, which may be begun again.

    Args:
        timeout: seconds after which it is late.
        anyway: whether it is over then, though something is not done.

    Attributes:
        over: whether it is over. So it is as long as nothing has to be done for it.
        began: when it began; plus infinity before that.
    """

    __slots__ = ("_waiting", "anyway", "began", "over", "timeout")

    def __init__(self, timeout: float, *, anyway: bool) -> None:
        self.timeout = timeout
        self.anyway = anyway
        self.over = True
        self.began = math.inf
        self._waiting: dict[str, None] = {}

    @property
    def waiting(self) -> tuple[str, ...]:
        """What is not done, though it may be over, in the order in which it was asked for."""
        return tuple(self._waiting)

    def expect(self, name: str) -> None:
        """It takes this one too. What comes after the end is too late to be waited for."""
        if self.began == math.inf or not self.over:
            self._waiting[name] = None
            self.over = False

    def begin(self, names: Iterable[str], now: float) -> None:
        """It begins, or begins again, and takes these."""
        self._waiting = dict.fromkeys(names)
        self.began = now
        self.over = not self._waiting

    def done(self, name: str) -> bool:
        """One of them is done. Returns whether that was the end of it."""
        if name not in self._waiting:
            return False
        del self._waiting[name]
        ended = not self._waiting and not self.over
        self.over = self.over or ended
        return ended

    def left(self, now: float) -> float:
        """Seconds until it is late."""
        return max(self.began + self.timeout - now, 0.0)

    def late(self) -> bool:
        """Its time is over. Returns whether there is something to say: it was not."""
        if self.over:
            return False
        self.over = self.anyway
        return True
