"""Synchronous clients among event loops and threads."""

from __future__ import annotations

import threading
import time
import warnings
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, Resilience, Retry, Timeout
from resilient.core.backoff import Constant
from resilient.events import RetryDecided
from resilient.testing import FaultyTransport, RecordingListener

from .bodies import scripted
from .conftest import Declare
from .test_sync import client_of


@pytest.mark.anyio
async def test_on_a_running_event_loop_nothing_waits(library: Any, declare: Declare, listener: RecordingListener) -> None:
    began = time.monotonic()
    bulkhead = declare(Bulkhead(max_concurrent=1, max_wait=60))
    retry = declare(Retry(backoff=Constant(10, jitter="none")), name="retry")
    with client_of(library, bulkhead, FaultyTransport([scripted(library, b"x")])) as client:
        with client.stream("GET", "http://dep/"):
            with pytest.warns(RuntimeWarning, match="event loop"), pytest.raises(library.ours.BulkheadFull):
                client.get("http://dep/")
            with warnings.catch_warnings(), pytest.raises(library.ours.BulkheadFull):
                warnings.simplefilter("error")  # it is said once
                client.get("http://dep/")
    with client_of(library, retry, FaultyTransport([503, 503, 200])) as client, pytest.warns(RuntimeWarning, match="event loop"):
        assert client.get("http://dep/").status_code == 200
    paused = FaultyTransport([lambda request: library.Response(503, headers={"retry-after": "1"}), 200])
    with client_of(library, declare(Retry(), name="after"), paused) as client, pytest.warns(RuntimeWarning, match="event loop"):
        assert client.get("http://dep/").status_code == 503
    assert [event.result for event in listener.of(RetryDecided) if event.dependency == "after"] == ["pushback"]
    assert time.monotonic() - began < 8


@pytest.mark.anyio
@pytest.mark.parametrize("library", ["httpx"], indirect=True)
async def test_on_a_running_event_loop_a_full_pool_is_told_at_once(library: Any, declare: Declare) -> None:
    with client_of(library, declare(), FaultyTransport([scripted(library, b"x")]), max_connections=1) as client:
        with client.stream("GET", "http://dep/"):
            with pytest.warns(RuntimeWarning, match="event loop"), pytest.raises(library.PoolTimeout):
                client.get("http://dep/")


@pytest.mark.anyio
async def test_in_a_worker_thread_it_waits(library: Any, declare: Declare) -> None:
    dependency = declare(Bulkhead(max_concurrent=1, max_wait=5))
    with client_of(library, dependency, FaultyTransport([scripted(library, b"x")])) as client:
        with anyio.fail_after(5):
            async with anyio.create_task_group() as group:
                with client.stream("GET", "http://dep/"):
                    group.start_soon(anyio.to_thread.run_sync, client.get, "http://dep/")
                    while dependency.bulkhead.queued == 0:
                        await anyio.sleep(0.001)
    assert dependency.bulkhead.in_use == 0


def test_many_threads_share_one_client(library: Any) -> None:
    resilience = Resilience()
    dependency = resilience.dependency("dep", Timeout(total=10), Bulkhead(max_concurrent=3, max_wait=10), origin="http://dep")
    running, most, lock = 0, 0, threading.Lock()

    def answer(request: Any) -> Any:
        nonlocal running, most
        with lock:
            running += 1
            most = max(most, running)
        threading.Event().wait(0.002)
        with lock:
            running -= 1
        return library.Response(200)

    with client_of(library, resilience, FaultyTransport([answer]), max_connections=3) as client:
        threads = [threading.Thread(target=lambda: [client.get("http://dep/") for _ in range(10)]) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(20)
    assert most <= 3
    assert dependency.bulkhead.in_use == dependency.bulkhead.queued == 0
    assert dependency.stats.snapshot().counts["success"] == 80
