"""pybreaker: the breaker that ours descends from, driven through `calling()`, because its `call` never trips on a coroutine."""

from __future__ import annotations

from collections.abc import Iterator

import pybreaker

from overhead.bare import noop, refused
from overhead.entry import Entry, Target
from overhead.memory import Specimen

DISTRIBUTION = "pybreaker"


def breaker() -> pybreaker.CircuitBreaker:
    """Its one breaker: failures in a row."""
    return pybreaker.CircuitBreaker(reset_timeout=3600)


def _guarded(circuit: pybreaker.CircuitBreaker, target: Target) -> Target:
    async def call() -> None:
        with circuit.calling():
            await target()

    return call


IDLE = Specimen(breaker, lambda circuit: _guarded(circuit, noop)())


def entries() -> Iterator[Entry]:
    """What pybreaker has for each case."""
    yield Entry("breaker", _guarded(breaker(), noop), lacks="no window; a cancelled caller counts as a failure")
    yield Entry("breaker_open", _guarded(breaker(), refused), rejects=pybreaker.CircuitBreakerError, lacks="no retry-after")
