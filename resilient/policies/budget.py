"""RetryBudget: how many retries and hedges a dependency may be sent."""

from __future__ import annotations

import threading

from ..clock import SYSTEM_CLOCK, Clock
from ..core.budget import Budget

__all__ = ["RetryBudget"]


class RetryBudget:
    """A limit on retries (and hedges) that grows with traffic: they help in a blip and must not feed an outage.

    Over any `window` at most `ratio` of the calls plus `reserve` a second are repeated (the form of Finagle's
    RetryBudget). Share one between the policies of a dependency.

    Args:
        ratio: retries per call.
        reserve: retries a second that are allowed at any traffic.
        window: seconds.
        saved: retries that may be saved up at most.
    """

    __slots__ = ("_budget", "_lock", "_settings", "clock")

    def __init__(self, *, ratio: float = 0.2, reserve: float = 3.0, window: float = 10.0, saved: int = 30) -> None:
        self._settings = {"ratio": ratio, "reserve": reserve, "window": window, "saved": saved}
        self._budget = Budget(**self._settings)
        self._lock = threading.Lock()
        self.clock: Clock = SYSTEM_CLOCK

    def deposit(self) -> None:
        """Count a call."""
        # Looked at without the lock: a debt made in this very moment is repaid by the next call.
        if self._budget.owed:
            with self._lock:
                self._budget.deposit()

    def withdraw(self, now: float) -> bool:
        """Pay for a retry. False if the budget refuses it."""
        with self._lock:
            return self._budget.withdraw(now)

    def remaining_ratio(self) -> float:
        """What is left, from 0 to 1."""
        now = self.clock.now()
        with self._lock:
            return self._budget.remaining_ratio(now)

    def reset(self) -> None:
        with self._lock:
            self._budget = Budget(**self._settings)
