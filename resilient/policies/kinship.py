"""What users of pybreaker bring along: listeners that may fail, storages that may block."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pybreaker

__all__ = ["Mirror", "store", "tell"]

logger = logging.getLogger("resilient")


def tell(listener: Callable[..., Any], *args: Any, **kwargs: Any) -> None:
    """Call a listener's method; what it raises is logged and goes no further."""
    try:
        listener(*args, **kwargs)
    except Exception:
        logger.exception("a pybreaker listener or storage failed")


class Mirror:
    """Tells somebody else's breaker or storage of a state, off the call path: a storage may be a database.

    The latest state wins; a write that fails is logged, and the next transition tries again.

    Args:
        write: stores a state.
        storage: where it ends up; only `CircuitMemoryStorage` is trusted not to block, and written to at once.
    """

    __slots__ = ("_lock", "_state", "_write", "_writing", "immediate")

    def __init__(self, write: Callable[[str], object], storage: pybreaker.CircuitBreakerStorage) -> None:
        if not isinstance(storage, pybreaker.CircuitBreakerStorage):
            raise TypeError(f"state_storage: expected a pybreaker.CircuitBreakerStorage, got {storage!r}")
        self.immediate = isinstance(storage, pybreaker.CircuitMemoryStorage)
        self._write = write
        self._lock = threading.Lock()
        self._state: str | None = None
        self._writing = False

    def write(self, state: str) -> None:
        if self.immediate:
            self._write(state)
            return
        with self._lock:
            self._state = state
            if self._writing:
                return
            self._writing = True
        threading.Thread(target=self._drain, name="resilient-breaker-storage", daemon=True).start()

    def _drain(self) -> None:
        while True:
            with self._lock:
                state, self._state = self._state, None
                if state is None:
                    self._writing = False
                    return
            tell(self._write, state)


def store(storage: pybreaker.CircuitBreakerStorage, state: str) -> None:
    """Put a breaker's state into a storage, as pybreaker does."""
    if state == pybreaker.STATE_OPEN:
        storage.opened_at = datetime.now(UTC)
    storage.state = state
