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
        self._free: list[SimpleQueue[Job]] = []
        self._pid = os.getpid()

    @property
    def count(self) -> int:
        """Threads there are, busy and idle."""
        return self._count

    def start(self, job: Job) -> bool:
        """Run `job` on a thread. False if all are busy, or the system gives no more of them: then it does not run."""
        if self._pid != os.getpid():
            self._begin()  # threads don't survive a fork, and neither does a lock that one of them held
        with self._lock:
            inbox = self._free.pop() if self._free else None
            if inbox is None:
                if self._count >= self._limit:
                    return False
                self._count += 1
        if inbox is not None:
            inbox.put(job)
            return True
        try:
            threading.Thread(target=self._work, args=(job,), name="resilient-race", daemon=True).start()
        except RuntimeError:  # the system's limit, or the interpreter is about to end
            with self._lock:
                self._count -= 1
            return False
        return True

    def _work(self, job: Job) -> None:
        inbox: SimpleQueue[Job] = SimpleQueue()
        while True:
            job()
            del job  # or the last call's objects would live for as long as the thread is idle
            with self._lock:
                self._free.append(inbox)
            try:
                job = inbox.get(timeout=self._idle)
            except Empty:
                with self._lock:
                    if inbox in self._free:
                        self._free.remove(inbox)
                        self._count -= 1
                        return
                job = inbox.get()  # given in the very moment that the wait was over
