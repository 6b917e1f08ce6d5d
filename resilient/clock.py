"""One clock for everything that is timed. Wall time is for HTTP dates alone."""

from __future__ import annotations

import threading
import time
from typing import Protocol, runtime_checkable

__all__ = ["SYSTEM_CLOCK", "Clock", "SystemClock"]


@runtime_checkable
class Clock(Protocol):
    """A source of monotonic seconds. Only differences between two readings mean anything."""

    def now(self) -> float:
        """The present moment, in seconds since an origin of the clock's own."""
        ...

    def sleep(self, seconds: float, /) -> None:
        """Block the calling thread. Only synchronous calls use it; async ones sleep on their event loop."""
        ...

    def wait(self, event: threading.Event, seconds: float | None, /) -> bool:
        """Block the calling thread until `event` is set, for at most `seconds`. Returns whether it is set."""
        ...


class SystemClock:
    """`time.monotonic`, `time.sleep` and `threading.Event.wait`. A step of the wall clock changes nothing."""

    # The built-ins themselves, so that reading the time costs no Python frame.
    now = staticmethod(time.monotonic)
    sleep = staticmethod(time.sleep)
    wait = staticmethod(threading.Event.wait)


SYSTEM_CLOCK = SystemClock()
