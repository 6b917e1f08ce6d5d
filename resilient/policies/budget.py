"""RetryBudget: how many retries and hedges a dependency may be sent."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import whole
from ..core.budget import Budget, Grant
from ..core.keys import Keyed
from .key import MAX_KEYS, NO_KEY, Key, check_key, forgiving_finder
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call

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
        key: "route", "origin", "partition" or a function of the call's arguments; each key has a budget of its own. Calls
            whose key cannot be computed share one.
        max_keys: how many keys are told apart; beyond, one whose budget is whole is forgotten, or else the one used least
            recently, which then begins anew.

    Raises:
        TypeError, ValueError: naming the parameter.
    """

    __slots__ = ("_budget", "_find", "_key", "_keyed", "_lock", "_max_keys", "_settings", "clock", "keyed")

    def __init__(
        self,
        *,
        ratio: float = 0.2,
        reserve: float = 3.0,
        window: float = 10.0,
        saved: int = 30,
        key: Key | None = None,
        max_keys: int = MAX_KEYS,
    ) -> None:
        self._settings: dict[str, Any] = {"ratio": ratio, "reserve": reserve, "window": window, "saved": saved}
        self._budget = Budget(**self._settings)
        self._lock = threading.Lock()
        self.clock: Clock = SYSTEM_CLOCK
        if key is not None:
            check_key(key)
        whole("max_keys", max_keys)
        self._key, self._max_keys = key, max_keys
        self._find = None if key is None else forgiving_finder(key, "RetryBudget", "budget")
        self.keyed: bool = key is not None
        self._keyed: Keyed[RetryBudget] = Keyed(self._another, max_keys, forgetful=True)

    def __repr__(self) -> str:
        return shown(self, **self._settings, key=self._key, max_keys=self._max_keys)

    def _another(self) -> RetryBudget:
        made = RetryBudget(**self._settings)
        made.clock = self.clock
        return made

    def of(self, call: Call) -> RetryBudget:
        """The budget that pays for the repetitions of `call`: this one, or that of its key."""
        if self._find is None:
            return self
        key = self._find(call)
        if key is NO_KEY:
            return self
        with self._lock:
            return self._keyed.get(key, call.runtime.now()) or self

    def at_rest(self, now: float) -> bool:
        """Whether a new one would do as well: nothing has been spent that is not made up for."""
        with self._lock:
            return self._budget.remaining_ratio(now) >= 1.0

    def deposit(self) -> None:
        """Count a call."""
        # Looked at without the lock: a debt made in this very moment is repaid by the next call.
        if self._budget.owed:
            with self._lock:
                self._budget.deposit()

    def withdraw(self, now: float) -> Grant | None:
        """Pay for a retry. None if the budget refuses it."""
        with self._lock:
            return self._budget.withdraw(now)

    def refund(self, grant: Grant, now: float) -> None:
        """Have back what a retry cost that was granted and then not made; once for each."""
        with self._lock:
            self._budget.refund(grant, now)

    def remaining_ratio(self) -> float:
        """What is left, from 0 to 1; with keys, of the one that has least."""
        now = self.clock.now()
        with self._lock:
            own = self._budget.remaining_ratio(now)
            others = self._keyed.states()
        return min([own, *(other.remaining_ratio() for other in others)])

    def reset(self) -> None:
        with self._lock:
            self._budget = Budget(**self._settings)
            self._keyed.clear()
