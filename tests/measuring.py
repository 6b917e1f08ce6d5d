"""Where coverage does not look.

It doubles the time of all Python code, ours or not. What is collected is imported and rewritten, but not yet run; the
process that hands tests out to others runs none; and what is slow goes where quick tests have been, unless its mark says
`measured=True`. Where coverage is not measured at all, nothing here does anything.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
from collections.abc import Iterator
from contextlib import contextmanager

from coverage import Coverage

import resilient

PROCESSES = "COVERAGE_PROCESS_CONFIG"
"""Where coverage tells the processes that a measured one starts to measure themselves."""


@contextmanager
def unmeasured(*, processes: bool) -> Iterator[None]:
    """For as long as this lasts nothing is measured here; nor, if so asked, in the processes that are started meanwhile."""
    measuring = Coverage.current()
    if measuring is None:
        yield
        return
    told = os.environ.pop(PROCESSES, None) if processes else None
    measuring.stop()
    try:
        yield
    finally:
        measuring.start()
        if told is not None:
            os.environ[PROCESSES] = told


def stop_here() -> None:
    """Measure nothing in this process from now on."""
    if (measuring := Coverage.current()) is not None:
        measuring.stop()


def import_all() -> None:
    """Bring in every module of the package while its lines are still measured."""
    if Coverage.current() is not None:
        for module in pkgutil.walk_packages(resilient.__path__, "resilient."):
            importlib.import_module(module.name)
