"""Runs the garbage collector at a chosen place of the code under test, on its thread."""

from __future__ import annotations

import gc
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any

Where = Callable[[FrameType, str, Any], bool]


class Cycle:
    """Holds what nobody but itself refers to: only the collector can end it."""

    def __init__(self, ended: Any) -> None:
        self.ended = ended
        self.me = self


def collect(work: Callable[[], Any], where: Where) -> Any:
    """Run `work` in a thread, and the collector in that thread where the profiler is asked and `where` says so, once."""
    hits: list[bool] = []
    results: list[Any] = []

    def profile(frame: FrameType, event: str, argument: Any) -> None:
        if not hits and where(frame, event, argument):
            hits.append(True)
            gc.collect()

    def run() -> None:
        sys.setprofile(profile)
        try:
            results.append(work())
        except Exception as error:  # noqa: BLE001 - it is looked at by the test
            results.append(error)
        finally:
            sys.setprofile(None)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join(5)
    assert hits, "never came by there"
    assert not thread.is_alive(), "it waits for a lock that it holds"
    return results[0]


def entering(module: str, name: str) -> Where:
    """On the way into a function or method of the module."""
    return lambda frame, event, argument: event == "call" and frame.f_code.co_name == name and frame.f_globals["__name__"] == module
