"""Work that goes on beside its caller, and after him: a task on an event loop, a thread elsewhere.

It runs in a copy of the caller's context without what belongs to the caller alone: his deadline, his degradation record,
and the promise that something is served in his answer's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
from collections.abc import Callable, Coroutine
from typing import Any

import anyio

from .context import COVER, DEADLINE, RECORD
from .threads import Threads
from .wheel import current_home, native_loop, new_scope

__all__ = ["Task", "begin_on", "begin_task", "begin_thread", "home_here"]

logger = logging.getLogger("resilient")


Job = Callable[[], Coroutine[Any, Any, None]]


# An event loop by itself holds its tasks only weakly. Each leaves this set when it is done.
_RUNNING: set[asyncio.Task[None]] = set()


class Task:
    """Work in progress.

    Attributes:
        cancelled: whether it was asked to end.
    """

    __slots__ = ("_dropped", "_home", "_scope", "cancelled")

    def __init__(self, scope: anyio.CancelScope | None, home: Any, dropped: Callable[[], None] | None = None) -> None:
        self._scope = scope
        self._home = home
        self._dropped = dropped
        self.cancelled = False

    def cancel(self) -> None:
        """Ask it to end, from whichever thread. A thread cannot be interrupted: it only learns of it."""
        self.cancelled = True
        if self._scope is None:
            return
        with contextlib.suppress(RuntimeError):  # of a closed loop, and trio's RunFinishedError: its tasks are gone
            if isinstance(self._home, asyncio.AbstractEventLoop):
                self._home.call_soon_threadsafe(self._scope.cancel)
            else:
                self._home.run_sync_soon(self._scope.cancel)

    @property
    def stuck(self) -> bool:
        """Whether it goes no further: its event loop was closed, or stands still. Trio ends its tasks with a run."""
        return isinstance(self._home, asyncio.AbstractEventLoop) and not self._home.is_running()

    @property
    def apart(self) -> bool:
        """Whether it may get stuck while the caller goes on."""
        return isinstance(self._home, asyncio.AbstractEventLoop) and asyncio._get_running_loop() is not self._home

    async def _run(self, job: Job) -> None:
        try:
            with self._scope or anyio.CancelScope():
                if not self.cancelled:
                    self._dropped = None
                    await job()
        except Exception:
            logger.exception("work in the background failed")
        finally:
            self._drop()

    def _drop(self) -> None:
        dropped, self._dropped = self._dropped, None
        if dropped is not None:
            dropped()

    def _done(self, task: asyncio.Task[None]) -> None:
        _RUNNING.discard(task)
        self._drop()  # it was cancelled before its first step


def _context() -> contextvars.Context:
    context = contextvars.copy_context()
    if not (DEADLINE.get() is None and RECORD.get() is None and COVER.get() is None):
        context.run(_leave_caller)
    return context


def _leave_caller() -> None:
    DEADLINE.set(None)
    RECORD.set(None)
    COVER.set(None)


def begin_task(job: Job, dropped: Callable[[], None] | None = None) -> Task:
    """Run `job` in a task of its own on the event loop that runs now, asyncio's or trio's.

    Args:
        job: what to do.
        dropped: called in its place where it is cancelled before it has begun, as an event loop that ends may do.
    """
    loop = native_loop()
    if loop is not None:
        task = Task(new_scope(), loop, dropped)
        native = loop.create_task(task._run(job), context=_context())
        _RUNNING.add(native)
        native.add_done_callback(task._done)
        return task
    import trio

    task = Task(anyio.CancelScope(), trio.lowlevel.current_trio_token(), dropped)
    trio.lowlevel.spawn_system_task(task._run, job, context=_context())
    return task


def begin_thread(job: Callable[[], None], threads: Threads) -> Task | None:
    """Run `job` on a thread. None if there is none to be had."""
    context = _context()

    def work() -> None:
        try:
            context.run(job)
        except Exception:
            logger.exception("work in the background failed")

    return Task(None, None) if threads.start(work) else None


def home_here() -> Any:
    """The event loop that runs the caller, as `begin_on` wants it; None where none does."""
    try:
        return current_home()
    except (RuntimeError, ImportError):  # not on trio; or a callback of asyncio's, which is no task
        return asyncio._get_running_loop()


def begin_on(home: Any, job: Job, dropped: Callable[[], object] | None = None) -> bool:
    """Run `job` in a task on an event loop: from another thread, from a callback, from the handler of a signal.

    Args:
        home: an asyncio event loop, or the token of a trio run.
        job: what to do; in a context of its own.
        dropped: called in its place where the loop is about to end.

    Returns:
        False if the loop is gone.
    """

    def begin() -> None:
        if isinstance(home, asyncio.AbstractEventLoop):
            native = home.create_task(_guarded(job), context=contextvars.Context())
            _RUNNING.add(native)
            native.add_done_callback(_RUNNING.discard)
        else:
            import trio

            try:
                trio.lowlevel.spawn_system_task(_guarded, job)
            except RuntimeError:  # the run is ending, and takes on no more
                if dropped is not None:
                    dropped()

    try:
        (home.call_soon_threadsafe if isinstance(home, asyncio.AbstractEventLoop) else home.run_sync_soon)(begin)
    except RuntimeError:  # of a closed loop, and trio's RunFinishedError
        return False
    return True


async def _guarded(job: Job) -> None:
    try:
        await job()
    except Exception:
        logger.exception("work in the background failed")
