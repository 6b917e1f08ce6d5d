"""Where coverage looks.

It doubles the time of all Python code, ours or not. So it looks at tests alone while they run: not at what pytest does
before, after and in between, and not in the process that hands them out to others. Of a test that runs with many parameters
it looks at the runs that bring one with a value that no run before had, not at all their combinations, and until these have
taken long. What draws its cases at random and what is slow go where quick tests have been, unless the mark of the latter
says `measured=True`. Where coverage is not measured at all, nothing here does anything.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Hashable, Iterator
from contextlib import contextmanager

import pytest
from coverage import Coverage

import resilient

PROCESSES = "COVERAGE_PROCESS_CONFIG"
"""Where coverage tells the processes that a measured one starts to measure themselves."""


TRACES = (sys.gettrace(), threading.gettrace()) if Coverage.current() is not None else None
"""What measures this thread, and those that it starts, if anything does.

To put it aside and back costs nothing, where to stop and start `Coverage` takes 25 ms and patches the patched `os._exit`.
"""

MEASURED = pytest.StashKey[bool]()
LONG = 0.05  # seconds of CPU time, measured
took: defaultdict[Hashable, float] = defaultdict(float)


def choose(items: list[pytest.Item]) -> None:
    """Which of the tests are measured: each value of each parameter of a test, with one of the others' values."""
    seen: dict[object, set[tuple[str, object]]] = {}
    for item in items:
        slow = item.get_closest_marker("slow")
        if slow is not None:
            item.stash[MEASURED] = bool(slow.kwargs.get("measured"))
            continue
        if hasattr(getattr(item, "obj", None), "hypothesis"):
            item.stash[MEASURED] = False
            continue
        spec = getattr(item, "callspec", None)
        values = {("", 0)} if spec is None else set(spec.indices.items())
        before = seen.setdefault(function_of(item), set())
        item.stash[MEASURED] = not values <= before
        before |= values


def function_of(item: pytest.Item) -> Hashable:
    """What a test runs, whatever its parameters."""
    return item.parent, getattr(item, "originalname", item.name)


@contextmanager
def measured(item: pytest.Item) -> Iterator[None]:
    """For as long as this lasts it is measured here, if at all, and if the test has not taken long before."""
    if TRACES is None or not item.stash[MEASURED] or took[function_of(item)] > LONG:
        yield
        return
    started = time.process_time()
    threading.settrace(TRACES[1])
    sys.settrace(TRACES[0])
    try:
        yield
    finally:
        stop_here()
        took[function_of(item)] += time.process_time() - started


@contextmanager
def childless() -> Iterator[None]:
    """For as long as this lasts the processes that are started are not measured."""
    told = os.environ.pop(PROCESSES, None)
    try:
        yield
    finally:
        if told is not None:
            os.environ[PROCESSES] = told


def stop_here() -> None:
    """Measure nothing in this process until it is asked for."""
    if TRACES is not None:
        sys.settrace(None)
        threading.settrace(None)


def import_all() -> None:
    """Bring in every module of the package while its lines are still measured."""
    if TRACES is not None:
        for module in pkgutil.walk_packages(resilient.__path__, "resilient."):
            importlib.import_module(module.name)
