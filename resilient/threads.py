"""Threads for what blocks: kept for a while, and never more than so many; and what a task asks of one and waits for."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable, Generator
from contextvars import Context
from queue import Empty, SimpleQueue
from typing import Any

__all__ = ["AsyncioErrand", "Errand", "Threads"]

LIMIT = 128
IDLE = 10.0

Job = Callable[[], object]


def _nothing() -> None: ...


class Threads:
    """Runs each job on a thread of its own; a thread that is done waits a while for another job.

    They are daemons: a program that ends does not wait for an answer that nobody will read. A job must not raise.

    Args:
        limit: threads at a time.
        idle: seconds for which a thread without a job is kept.
    """

    __slots__ = ("_count", "_free", "_idle", "_limit", "_lock", "_pid")

    def __init__(self, limit: int = LIMIT, idle: float = IDLE) -> None:
        self._limit = limit
        self._idle = idle
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._count = 0
        self._free: list[SimpleQueue[tuple[Job, Job]]] = []
        self._pid = os.getpid()

    @property
    def count(self) -> int:
        """Threads there are, busy and idle."""
        return self._count

    def start(self, job: Job, tell: Job = _nothing) -> bool:
        """Run `job` on a thread. False if all are busy, or the system gives no more of them: then it does not run.

        Args:
            job: what to do.
            tell: called by the thread once it is free for another job: whoever is told may have one at once, and would
                have to begin another thread.
        """
        if self._pid != os.getpid():
            self._begin()  # threads don't survive a fork, and neither does a lock that one of them held
        try:
            inbox = self._free.pop()  # which needs no lock: it is one step, as is the way back
        except IndexError:
            return self._begin_thread(job, tell)
        inbox.put((job, tell))
        return True

    def _begin_thread(self, job: Job, tell: Job) -> bool:
        with self._lock:
            if self._count >= self._limit:
                return False
            self._count += 1
        # Not as arguments of the thread, which would keep them for as long as it lives.
        inbox: SimpleQueue[tuple[Job, Job]] = SimpleQueue()
        inbox.put((job, tell))
        try:
            threading.Thread(target=self._work, args=(inbox,), name="resilient-race", daemon=True).start()
        except RuntimeError:  # the system's limit, or the interpreter is about to end
            with self._lock:
                self._count -= 1
            return False
        return True

    def _work(self, inbox: SimpleQueue[tuple[Job, Job]]) -> None:
        job, tell = inbox.get()
        while True:
            job()
            self._free.append(inbox)
            tell()
            del job, tell  # or the last call's objects would live for as long as the thread is idle
            try:
                job, tell = inbox.get(timeout=self._idle)
            except Empty:
                try:
                    self._free.remove(inbox)
                except ValueError:
                    job, tell = inbox.get()  # given in the very moment that the wait was over
                else:
                    with self._lock:
                        self._count -= 1
                    return


class Errand:
    """Something to be done on a thread.

    Attributes:
        value, error: what came of it.
    """

    __slots__ = ("_act", "error", "value")

    def __init__(self, act: Callable[[], Any]) -> None:
        self._act = act
        self.error: BaseException | None = None

    def do(self) -> None:
        """On the thread."""
        try:
            self.value = self._act()
        except BaseException as error:  # noqa: BLE001 - raised where the caller waits
            self.error = error

    def outcome(self) -> Any:
        """What came of it.

        Raises:
            Exception: likewise.
        """
        error, self.error = self.error, None  # what its traceback leads to is not to lead back to it
        if error is None:
            return self.value
        try:
            raise error
        finally:
            del error


class AsyncioErrand(Errand):
    """One that a task of asyncio's awaits, once; that returns None, and `outcome` has what came of it.

    It is to the task what a future is (`asyncio.isfuture`), but the thread has the task itself called by the event loop,
    where it could but have a future told, which calls the task in the loop's next turn: a turn is a third of a way there
    and back.
    """

    __slots__ = ("_asyncio_future_blocking", "_cancelled", "_loop", "_over", "_waiting")

    def __init__(self, act: Callable[[], Any], loop: asyncio.AbstractEventLoop) -> None:
        self._act = act
        self.error = None
        self._loop = loop
        self._asyncio_future_blocking = False
        # The task's callback, which is taken out by whoever calls it: the thread, or who cancels the task.
        self._waiting: list[tuple[Callable[[Any], object], Context | None]] = []
        self._over = False
        self._cancelled: tuple[Any, ...] | None = None

    def tell(self) -> None:
        """On the thread, once it is done."""
        self._over = True
        try:
            self._call(self._loop.call_soon_threadsafe)
        except RuntimeError:
            return  # the loop was closed: its tasks are gone

    def _call(self, soon: Callable[..., object]) -> bool:
        try:
            callback, context = self._waiting.pop()
        except IndexError:  # nobody waits yet, or any more
            return False
        soon(callback, self, context=context)
        return True

    # -- what a task asks of a future ---------------------------------------------------------------------------------

    def __await__(self) -> Generator[Any, None, None]:
        self._asyncio_future_blocking = True
        yield self

    def get_loop(self) -> asyncio.AbstractEventLoop:
        return self._loop

    def add_done_callback(self, callback: Callable[[Any], object], *, context: Context | None = None) -> None:
        self._waiting.append((callback, context))
        if self._over:  # since before it was waited for, or in this moment
            self._call(self._loop.call_soon)

    def cancel(self, msg: Any = None) -> bool:
        """The task is to wait no longer. False if it is about to be called anyway."""
        if not self._call(self._loop.call_soon):
            return False
        self._cancelled = () if msg is None else (msg,)
        return True

    def result(self) -> None:
        if self._cancelled is not None:
            raise asyncio.CancelledError(*self._cancelled)
