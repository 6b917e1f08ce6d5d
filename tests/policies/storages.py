"""What users of pybreaker bring along: a listener that writes down, a storage that takes its time."""

from __future__ import annotations

import threading
import time
from datetime import datetime
from typing import Any

import pybreaker


class Ear(pybreaker.CircuitBreakerListener):
    """A vanilla listener."""

    def __init__(self) -> None:
        self.heard: list[Any] = []
        self.by: list[Any] = []

    def before_call(self, cb: Any, func: Any, *args: Any, **kwargs: Any) -> None:
        self.heard.append(("before", args))
        self.by.append(cb)

    def success(self, cb: Any) -> None:
        self.heard.append("success")
        self.by.append(cb)

    def failure(self, cb: Any, exc: BaseException) -> None:
        self.heard.append(("failure", type(exc).__name__))
        self.by.append(cb)

    def state_change(self, cb: Any, old_state: Any, new_state: Any) -> None:
        self.heard.append((old_state.name, new_state.name))
        self.by.append(cb)

    @property
    def changes(self) -> list[tuple[str, str]]:
        return [heard for heard in self.heard if isinstance(heard, tuple) and heard[1] in ("open", "closed", "half-open")]


class BlockingStorage(pybreaker.CircuitBreakerStorage):
    """A storage like Redis: every touch takes a while, and who touched it is known."""

    def __init__(self, state: str = "closed", seconds: float = 0.01) -> None:
        super().__init__("blocking")
        self._state = state
        self._seconds = seconds
        self._at: datetime | None = None
        self.threads: set[threading.Thread] = set()
        self.states: list[str] = []
        self.written = threading.Condition()
        self.broken = False

    def _touch(self) -> None:
        self.threads.add(threading.current_thread())
        time.sleep(self._seconds)
        if self.broken:
            raise ConnectionError("the database is away")

    def wait_for(self, state: str) -> None:
        with self.written:
            assert self.written.wait_for(lambda: bool(self.states) and self.states[-1] == state, timeout=5), self.states

    @property
    def state(self) -> str:
        self._touch()
        return self._state

    @state.setter
    def state(self, state: str) -> None:
        self._touch()
        with self.written:
            self._state = state
            self.states.append(state)
            self.written.notify_all()

    @property
    def counter(self) -> int:
        self._touch()
        return 0

    @property
    def success_counter(self) -> int:
        self._touch()
        return 0

    @property
    def opened_at(self) -> datetime | None:
        self._touch()
        return self._at

    @opened_at.setter
    def opened_at(self, moment: datetime) -> None:
        self._touch()
        self._at = moment

    def increment_counter(self) -> None:
        self._touch()

    def reset_counter(self) -> None:
        self._touch()

    def increment_success_counter(self) -> None:
        self._touch()

    def reset_success_counter(self) -> None:
        self._touch()
