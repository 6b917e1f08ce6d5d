"""A store that may be slow, broken or gone, and is then left alone for a while."""

from __future__ import annotations

import logging
import random
import threading
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ..clock import Clock
from ..core.breaker import CLOSED, OPEN, Breaker
from ..core.entry import Mark, Record
from ..core.outcome import FAILURE, IGNORED, SUCCESS, Outcome
from ..core.permit import Permit
from ..core.rules import Rules
from ..protocols import Store
from .forks import renewed_in_children

__all__ = ["Busy", "Guarded"]

logger = logging.getLogger("resilient")

# Three failures in a row, and one trial after half a second, then after one, two, four and five.
RULES = Rules(consecutive=3, stall_calls=None, break_time=0.5, max_break=5.0, trials=1, trial_failure_rate=1.0, lease=5.0)
OWED = 10_000
# Seconds for which somebody who reads waits for one who writes marks, as each does who stores: it would be a miss else.
PATIENCE = 0.05
_BATCH = 500
FAILED: Any = object()
"""What a call of a store comes to that failed."""


class Busy(Exception):
    """The store is well, but this call found no connection or lock in time."""


class Guarded:
    """A store behind a circuit of its own: what it raises is a miss, counted, and told in the log when its state changes.

    Marks and removals that could not be written are owed: until they are, nothing is read, for it might be what they were
    to end. At most `OWED` are; beyond that they are forgotten, and the store has to be emptied before it is read again. A
    store that cannot be emptied is then not read any more.

    Args:
        store: what may fail.
        name: what the log calls it.
        clock: the source of time.

    Attributes:
        failures: calls that failed.
        busy: calls that found no connection or lock in time.
        up: whether it is believed to work.
    """

    def __init__(self, store: Store, name: str, clock: Clock) -> None:
        self._store = store
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._breaker = Breaker(RULES)
        # A permit, as long as nothing has failed since the last success: another success would change nothing.
        self._sound: int | None = self._breaker.generation
        self._owed: OrderedDict[str, tuple[Mark | None, float]] = OrderedDict()
        self._to_be_emptied = False
        self.failures = 0
        self.busy = 0
        self.up = True
        self._why = ""
        renewed_in_children(self)

    @property
    def owing(self) -> bool:
        """Whether there are marks and removals that could not be written yet."""
        return bool(self._owed) or self._to_be_emptied

    def load(self, keys: Sequence[str]) -> Sequence[Record | None] | None:
        """What the store has; None if it cannot be asked."""
        if self.owing and not self.settle(PATIENCE):
            return None
        found = self._try(self._store.load, keys)
        return None if found is FAILED else found

    def save(self, records: Mapping[str, tuple[Record, float]]) -> bool:
        """Whether records could be saved. Marks are for `owe`."""
        return self._try(self._store.save, records) is not FAILED

    def remove(self, keys: Sequence[str]) -> bool:
        """Whether they could be removed; whoever needs that they are is for `owe`."""
        return self._try(self._store.remove, keys) is not FAILED

    def owe(self, marks: Mapping[str, tuple[Mark | None, float]]) -> bool:
        """Write marks, or remove what is there (None), now or as soon as it can be; whether it was now."""
        now = self._clock.now()
        with self._lock:
            for key, (mark, keep) in marks.items():
                self._owed[key] = mark, now + keep
                self._owed.move_to_end(key)
            if len(self._owed) > OWED and not self._to_be_emptied:
                self._to_be_emptied = True
                logger.warning("%s: more than %d invalidations could not be written; it will be emptied instead", self._name, OWED)
            if self._to_be_emptied:
                self._owed.clear()
        return self.settle()

    def empty(self) -> bool:
        """Have the store emptied, now or before it is read again; whether it was now."""
        with self._lock:
            self._to_be_emptied = True
        return self.settle()

    def settle(self, patience: float = 0.0) -> bool:
        """Write what is owed. False if that cannot be done, or somebody else is doing it and is not done in so many seconds."""
        while self.owing:
            if not self._settling.acquire(timeout=patience):
                return False
            try:
                if not self._settle():
                    return False
            finally:
                self._settling.release()
        return True

    def _settle(self) -> bool:
        if self._to_be_emptied:
            clear = getattr(self._store, "clear", None)
            if clear is None or self._try(clear) is FAILED:
                return False
            self._to_be_emptied = False
        now = self._clock.now()
        with self._lock:
            batch = [(key, self._owed[key]) for key, _ in zip(self._owed, range(_BATCH), strict=False)]
        marks = {key: (mark, until - now) for key, (mark, until) in batch if mark is not None and until > now}
        gone = [key for key, (mark, _) in batch if mark is None]
        if (marks and not self.save(marks)) or (gone and not self.remove(gone)):
            return False
        with self._lock:
            for key, owed in batch:
                if self._owed.get(key) is owed:
                    del self._owed[key]
        return True

    def _try(self, act: Callable[..., Any], *args: Any) -> Any:
        """What `act` returns; FAILED where it is left alone or fails."""
        permit: Permit | None = self._sound
        if permit is None:
            with self._lock:
                permit = self._breaker.admit(self._clock.now())
            if permit is None:
                return FAILED
        outcome: Outcome = IGNORED
        result = FAILED
        try:
            result = act(*args)
            outcome = SUCCESS
        except Busy:
            self.busy += 1
        except Exception as error:  # noqa: BLE001 - a cache that fails is a miss, whatever it was; the log tells it
            outcome = FAILURE
            self.failures += 1
            self._why = repr(error)
        finally:
            if outcome is not SUCCESS or self._sound is None:
                self._record(permit, outcome)
        return result

    def _record(self, permit: Permit, outcome: Outcome) -> None:
        with self._lock:
            breaker = self._breaker
            breaker.record(permit, outcome, self._clock.now(), None, random.random())
            was, state = self.up, breaker.state
            self.up = up = state is CLOSED or (was and state is not OPEN)
            self._sound = breaker.generation if state is CLOSED and not breaker.consecutive_failures else None
        if up and not was:
            logger.warning("%s: it can be used again", self._name)
        elif was and not up:
            logger.warning("%s: it cannot be used, and is left alone for a while: %s", self._name, self._why)

    def renew(self) -> None:
        """Begin anew in a forked child; what is owed stays owed."""
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._breaker = Breaker(RULES)
        self._sound = self._breaker.generation
