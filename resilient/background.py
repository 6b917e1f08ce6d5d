"""Work that goes on beside its caller, and after him: a task on an event loop, a thread elsewhere.

It runs in a copy of the caller's context without what belongs to the caller alone: his deadline, his degradation record,
and the promise that something is served in his answer's place.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import types
from collections.abc import Callable, Coroutine, Generator
from typing import Any

import anyio

from .context import COVER, DEADLINE, RECORD
from .eager import begin_eagerly
from .threads import Threads
from .wheel import AGAIN, current_home, interrupt, native_loop

__all__ = ["Task", "begin_on", "begin_task", "begin_thread", "home_here"]

logger = logging.getLogger("resilient")


Job = Callable[[], Coroutine[Any, Any, None]]

SOON = 0.01  # seconds after which what is shielded, or about to go on, is looked at again
# An event loop by itself holds its tasks only weakly. Each leaves this set when it is done.
_RUNNING: set[Any] = set()


class Task:
    """Work in progress. For as long as it is entered, as a context by the work itself, it does not end for being asked to.

    Attributes:
        cancelled: whether it was asked to end.
    """

    __slots__ = ("_dropped", "_entered", "_home", "_native", "_scope", "cancelled")

    def __init__(self, scope: anyio.CancelScope | None, home: Any, dropped: Callable[[], None] | None = None) -> None:
        self._scope = scope
        self._home = home
        self._dropped = dropped
        self._native: Any = None
        self._entered = False
        self.cancelled = False

    def __enter__(self) -> None:
        self._entered = True
        if self._scope is not None:
            self._scope.shield = True  # trio ends what is left of a run, too

    def __exit__(self, *raised: Any) -> None:
        self._entered = False
        if self._scope is not None:
            self._scope.shield = False
        if self.cancelled:
            self._end()

    def cancel(self) -> None:
        """Ask it to end, from whichever thread. A thread cannot be interrupted: it only learns of it."""
        self.cancelled = True
        if self._home is None:
            return
        with contextlib.suppress(RuntimeError):  # of a closed loop, and trio's RunFinishedError: its tasks are gone
            if isinstance(self._home, asyncio.AbstractEventLoop):
                self._home.call_soon_threadsafe(self._end)
            else:
                self._home.run_sync_soon(self._end)

    def _end(self) -> None:
        """Interrupt it where it may be interrupted, and again where it goes on all the same. On its own event loop."""
        if self._entered:
            return
        if self._scope is not None:
            self._scope.cancel()
        elif self._native is not None and not self._native.done():
            self._home.call_later(AGAIN if interrupt(self._native) else SOON, self._end)

    @property
    def stuck(self) -> bool:
        """Whether it goes no further: its event loop was closed, or stands still. Trio ends its tasks with a run."""
        return isinstance(self._home, asyncio.AbstractEventLoop) and not self._home.is_running()

    @property
    def apart(self) -> bool:
        """Whether it may get stuck while the caller goes on."""
        return isinstance(self._home, asyncio.AbstractEventLoop) and asyncio._get_running_loop() is not self._home

    async def _run(self, job: Job, pause: bool = False) -> None:
        try:
            if pause:
                await _pause()
            if not self.cancelled:
                self._dropped = None
                await job()
        except Exception:
            logger.exception("work in the background failed")
        except GeneratorExit:  # its event loop has ended, and who collects what is left of it may hold any lock
            self._dropped = None
            raise
        finally:
            self._native = None
            _RUNNING.discard(self)
            if self._dropped is not None:
                self._dropped()

    async def _run_in(self, scope: anyio.CancelScope, job: Job) -> None:
        with scope:
            await self._run(job)

    def _begin(self, job: Job, loop: asyncio.AbstractEventLoop, *, eager: bool) -> None:
        """Let it run on asyncio."""
        _RUNNING.add(self)
        if eager:
            self._native = begin_eagerly(self._run(job), loop, _context())
            return
        work = self._run(job, pause=True)
        # What has begun reaches its end also where it is cancelled before the event loop comes to it.
        work.send(None)
        self._native = loop.create_task(work, context=_context())


@types.coroutine
def _pause() -> Generator[None, None, None]:
    yield


def _context() -> contextvars.Context | None:
    """What work begins with: None for just what is there now, with which a task of asyncio's begins by itself."""
    if DEADLINE.get() is None and RECORD.get() is None and COVER.get() is None:
        return None
    context = contextvars.copy_context()
    context.run(_leave_caller)
    return context


def _leave_caller() -> None:
    DEADLINE.set(None)
    RECORD.set(None)
    COVER.set(None)


def begin_task(job: Job, dropped: Callable[[], None] | None = None, known: Callable[[Task], None] | None = None) -> Task:
    """Run `job` in a task of its own on the event loop that runs now, asyncio's or trio's.

    Args:
        job: what to do.
        dropped: called in its place where it is cancelled before it has begun, as an event loop that ends may do.
        known: told of the task before it begins. Where this is given the caller is about to wait for it, so that on asyncio
            it is taken to its first wait at once, which spares a turn of the loop.
    """
    loop = native_loop()
    if loop is not None:
        task = Task(None, loop, dropped)
        if known is not None:
            known(task)
        task._begin(job, loop, eager=known is not None and loop.get_task_factory() is None)
        return task
    import trio

    scope = anyio.CancelScope()
    task = Task(scope, trio.lowlevel.current_trio_token(), dropped)
    if known is not None:
        known(task)
    trio.lowlevel.spawn_system_task(task._run_in, scope, job, context=_context() or contextvars.copy_context())
    return task


def begin_thread(job: Callable[[], None], threads: Threads) -> Task | None:
    """Run `job` on a thread. None if there is none to be had."""
    context = _context() or contextvars.copy_context()

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
