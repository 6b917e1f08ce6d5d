"""Tasks of asyncio that run to their first wait at once: Python's own from 3.12 on, and the same for 3.11.

Who is about to wait for a task spares a turn of the event loop by it; and where the task has nothing to wait for, both.
"""

from __future__ import annotations

import asyncio
import contextvars
import sys
import types
from collections.abc import Coroutine, Generator
from typing import Any

__all__ = ["begin_eagerly"]

Work = Coroutine[Any, Any, None]

_new_task: Any = asyncio.Task
# For tasks that others implement; they are documented, and in no stub.
_enter: Any = getattr(asyncio.tasks, "_enter_task", None)
_leave: Any = getattr(asyncio.tasks, "_leave_task", None)


def begin_eagerly(work: Work, loop: asyncio.AbstractEventLoop, context: contextvars.Context | None) -> asyncio.Task[None] | None:
    """Begin a task from within another one, or a callback, which goes on as soon as this one waits, or has ended.

    Args:
        work: what to do.
        loop: the event loop that runs now.
        context: what it runs in; None for a copy of the caller's.

    Returns:
        None if it has ended.
    """
    if sys.version_info >= (3, 12):
        task = _new_task(work, loop=loop, context=context, eager_start=True)
        return None if task.done() else task
    begun: list[Any] = []
    rest = _rest(work, begun)
    rest.send(None)  # what has begun reaches its end also where it is cancelled before the event loop comes to it
    if context is None:
        context = contextvars.copy_context()
    task = _new_task(rest, loop=loop, context=context)
    caller = asyncio.current_task(loop)
    if caller is not None:
        _leave(loop, caller)
    _enter(loop, task)
    try:
        begun.append(context.run(work.send, None))
    except (StopIteration, asyncio.CancelledError):
        task._log_destroy_pending = False  # it has nothing left to do
        return None
    finally:
        _leave(loop, task)
        if caller is not None:
            _enter(loop, caller)
    return task  # type: ignore[no-any-return]


async def _rest(work: Work, begun: list[Any]) -> None:
    await _going_on(work, begun)


@types.coroutine
def _going_on(work: Work, begun: list[Any]) -> Generator[Any, Any, None]:
    """Go on with what has `begun`: it waits for the future that is in there, or lets others run; nothing is in there if it has ended."""
    thrown: list[BaseException] = []
    try:
        yield  # until the event loop comes to it
    except asyncio.CancelledError as error:
        thrown.append(error)
    if not begun:
        return
    waiting = begun.pop()
    if thrown and waiting is not None and waiting.cancel():
        thrown.clear()  # it is told by what it waits for, as every task is
    try:
        while True:
            if waiting is not None and not thrown:
                try:
                    yield waiting
                except GeneratorExit:
                    work.close()
                    raise
                except BaseException as error:  # noqa: BLE001 - thrown into the work
                    thrown.append(error)
            if not thrown:
                break
            # Outside the handler, or what is raised next would be told to have come of it.
            waiting = work.throw(thrown.pop())
    except StopIteration:
        return
    yield from work
