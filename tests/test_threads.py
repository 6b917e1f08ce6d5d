"""The threads that synchronous calls race in: kept for a while, bounded, and no trouble after a fork."""

from __future__ import annotations

import os
import threading

import pytest

from resilient.threads import Threads


def test_a_thread_takes_one_job_after_the_other() -> None:
    threads, ids = Threads(), []
    for _ in range(5):
        done = threading.Event()

        def job(done: threading.Event = done) -> None:
            ids.append(threading.get_ident())
            done.set()

        assert threads.start(job)
        assert done.wait(5)
        for _ in range(1000):  # it says that it is free a moment after the job has
            with threads._lock:
                if threads._free:
                    break
            threading.Event().wait(0.001)
    assert len(set(ids)) == 1 and threads.count == 1
    assert threading.get_ident() not in ids


def test_who_is_told_has_the_thread_for_the_next_job() -> None:
    threads, ids, over = Threads(), [], threading.Event()

    def next_job() -> None:
        ids.append(threading.get_ident())
        if len(ids) == 50:
            over.set()
        else:
            assert threads.start(lambda: None, next_job)

    assert threads.start(lambda: None, next_job)
    assert over.wait(5)
    assert len(set(ids)) == 1 and threads.count == 1


def test_no_more_than_so_many() -> None:
    threads, released = Threads(limit=2), threading.Event()
    assert [threads.start(lambda: released.wait(5)) for _ in range(3)] == [True, True, False]
    assert threads.count == 2
    released.set()


def test_an_idle_thread_leaves() -> None:
    threads, before = Threads(idle=0.001), set(threading.enumerate())
    assert threads.start(lambda: None)
    for thread in set(threading.enumerate()) - before:
        thread.join(5)
        assert not thread.is_alive()
    assert (threads.count, threads._free) == (0, [])
    assert threads.start(lambda: None)


def test_a_system_that_gives_no_more_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(self: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    threads = Threads()
    monkeypatch.setattr(threading.Thread, "start", refuse)
    assert not threads.start(lambda: None)
    assert threads.count == 0


def test_the_child_of_a_fork_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    threads, done = Threads(), threading.Event()
    threads._count, threads._free = 5, [None]  # type: ignore[list-item]  # as the parent left them
    threads._lock.acquire()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    assert threads.start(done.set)
    assert done.wait(5)
    assert threads.count == 1
