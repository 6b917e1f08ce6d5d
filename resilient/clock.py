"""One clock for everything that is timed. Wall time is for HTTP dates alone."""

from __future__ import annotations

import time
from typing import Protocol, runtime_checkable

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


@runtime_checkable
class Clock(Protocol):
    """A source of monotonic seconds. Only differences between two readings mean anything."""

    def now(self) -> float:
        """The present moment, in seconds since an origin of the clock's own."""
        ...

    def sleep(self, seconds: float) -> None:
        """Block the calling thread. Only synchronous calls use it; async ones sleep on their event loop."""
        ...


class SystemClock:
    """`time.monotonic` and `time.sleep`. A step of the wall clock changes nothing."""

    # The built-ins themselves, so that reading the time costs no Python frame.
    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)


SYSTEM_CLOCK = SystemClock()
