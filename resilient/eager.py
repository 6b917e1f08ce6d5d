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
        waiting = context.run(work.send, None)
    except BaseException as error:
        task._log_destroy_pending = False  # it has nothing left to do
        if isinstance(error, (StopIteration, asyncio.CancelledError)):
            return None
        raise
    finally:
        _leave(loop, task)
        if caller is not None:
            _enter(loop, caller)
    mark = getattr(waiting, "_asyncio_future_blocking", None)
    if mark:  # as every task does: others may await the same future
        waiting._asyncio_future_blocking = False
    begun += (waiting, mark)
    return task  # type: ignore[no-any-return]


async def _rest(work: Work, begun: list[Any]) -> None:
    await _going_on(work, begun)


@types.coroutine
def _going_on(work: Work, begun: list[Any]) -> Generator[Any, Any, None]:
    """Go on with what has `begun`.

    Args:
        work: what has run to its first wait.
        begun: the future that it waits for, None where it only lets others run, and the mark of that future by which a task
            knows that it was awaited; nothing if it has ended.
    """
    thrown: list[BaseException] = []
    try:
        yield  # until the event loop comes to it
    except asyncio.CancelledError as error:
        thrown.append(error)
    if not begun:
        return
    waiting, mark = begun
    begun.clear()
    # It is told by what it waits for, as every task is, and in the same words: a scope knows by them that they are its own.
    if thrown and waiting is not None and waiting.cancel(*thrown[0].args):
        thrown.clear()
    if mark and not thrown:
        waiting._asyncio_future_blocking = True
    came = waiting is None
    try:
        while thrown or not came:
            if thrown:
                # Outside the handler, or what is raised next would be told to have come of it.
                waiting = work.throw(thrown.pop())
            try:
                yield waiting
                came = True
            except GeneratorExit:
                work.close()
                raise
            except BaseException as error:  # noqa: BLE001 - thrown into the work
                thrown.append(error)
    except StopIteration:
        return
    yield from work
