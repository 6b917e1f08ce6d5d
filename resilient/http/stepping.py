"""Awaiting something that may have no need to wait, and acting in time where it does."""

from __future__ import annotations

import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

__all__ = ["told_of_waiting"]

TURNS = 8  # of the event loop that are no wait yet: locks that nobody holds let others run, too
T = TypeVar("T")


@types.coroutine
def told_of_waiting(steps: Coroutine[Any, Any, T], waits: Callable[[], object]) -> Generator[Any, Any, T]:
    """Await `steps`, and call `waits` once, before it waits for anything. To let others run, on asyncio, is no wait.

    It goes on in the same task, so that timers and scopes of any kind hold for all of it.
    """
    turns = 0
    thrown: list[BaseException] = []
    try:
        waiting = steps.send(None)
        while True:
            turns += 1
            if turns == TURNS or (turns < TURNS and waiting is not None):
                turns = TURNS
                waits()
            try:
                sent = yield waiting
            except GeneratorExit:
                steps.close()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown into the code that waits
                thrown.append(error)
            # Outside the handler, or what is raised next would be told to have come of it.
            waiting = steps.throw(thrown.pop()) if thrown else steps.send(sent)
    except StopIteration as stop:
        return stop.value  # type: ignore[no-any-return]
