"""Errors of synchronous clients: each is told as what it is, and those that are nobody's failure open no circuit."""

from __future__ import annotations

from typing import Any

import pybreaker
import pytest

from resilient import CircuitBreaker, ResilienceError, Timeout, standard
from resilient.testing import FakeClock, FaultyTransport

from .bodies import scripted
from .conftest import Declare


def client_of(library: Any, target: Any, inner: Any) -> Any:
    return library.Client(transport=library.ours.ResilientTransport(target, inner))


def test_ground_13_sync_the_users_timeout_error_is_his_own(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(timeout=Timeout(total=5)))
    mine = TimeoutError("mine")

    def raising(request: Any) -> Any:
        raise mine

    with client_of(library, dependency, FaultyTransport([raising, scripted(library, b"x", mine)])) as client:
        for _ in range(2):
            with pytest.raises(TimeoutError) as raised:
                client.get("http://dep/")
            assert raised.value is mine


def test_ground_22_sync_each_except_clause_catches(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare(*standard(breaker=CircuitBreaker(fail_max=1)))
    with client_of(library, dependency, FaultyTransport([500])) as client:
        client.post("http://dep/")
        for kind in (library.TransportError, library.HTTPError, pybreaker.CircuitBreakerError, ResilienceError, library.ours.CircuitOpen):
            with pytest.raises(kind) as raised:
                client.get("http://dep/")
            assert type(raised.value) is library.ours.CircuitOpen
            assert raised.value.request.url == "http://dep/"
            assert 0 < raised.value.retry_after <= 1.2


def test_ground_25_sync_pool_timeout_and_local_protocol_error_do_not_trip(library: Any, clock: FakeClock, declare: Declare) -> None:
    dependency = declare()
    kinds = (library.PoolTimeout, library.LocalProtocolError, library.UnsupportedProtocol) * 20
    inner = FaultyTransport(kinds)
    with client_of(library, dependency, inner) as client:
        for kind in kinds:
            with pytest.raises(kind):
                client.get("http://dep/")
            clock.advance(0.2)
    assert len(inner.requests) == 60, "none of them is retried"
    assert (dependency.breaker.fail_counter, dependency.state) == (0, "closed")
    assert dependency.stats.snapshot().counts == {"success": 0, "failure": 0, "ignored": 60}
