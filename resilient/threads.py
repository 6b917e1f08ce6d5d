"""Threads for synchronous calls that need more than one: kept for a while, and never more than so many."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

__all__ = ["Threads"]

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
