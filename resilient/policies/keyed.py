"""Circuits by key: each route, origin or tenant has its own, so that one that fails takes no other along."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Hashable
from typing import TYPE_CHECKING, Any

from ..core.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from .circuit import Circuit
from .key import NO_KEY, Key, forgiving_finder

if TYPE_CHECKING:
    from ..call import Call

__all__ = ["Circuits", "KeyedCircuit"]

SHARED = ""  # the key of calls that have none: of plain functions, and those whose key could not be computed
LONGEST = 200  # characters of a key that are told to listeners
WORST = {CLOSED: 0, HALF_OPEN: 1, OPEN: 2}


class KeyedCircuit(Circuit):
    """One key's circuit; its settings, listeners and pipelines are those of the breaker that it belongs to."""

    def __init__(self, breaker: Any, key: Hashable) -> None:
        self._key = str(key)[:LONGEST]
        super().__init__(None, None, None, f"{breaker.name}[{self._key}]" if breaker.name else self._key, breaker._throw_new_error_on_trip)
        self._breaker = breaker
        # The very lists, so that what is added later is added here too.
        self._excluded_exceptions, self._listeners = breaker._excluded_exceptions, breaker._listeners
        self._chosen, self._random, self._break_for = breaker._chosen, breaker._random, breaker._break_for
        self._enforce = breaker._enforce
        self._begin(Breaker(breaker.rules))

    @property
    def key(self) -> str:
        """What it is the circuit of."""
        return self._key

    def __repr__(self) -> str:
        return f"<circuit {self._key!r} {self.current_state}>"

    def _joined(self) -> Any:
        return self._breaker._joined()


class Circuits:
    """The circuits of one breaker, of the keys that were used last.

    Args:
        breaker: whose they are.
        key: a name in `KEYS`, or a function of the call's arguments (the request, for HTTP).
        most: how many are kept. One more drops the one that was used longest ago among those that are closed with no
            call in flight; then among the closed ones; then among all. What is dropped begins anew, closed, when it is
            asked for again.
    """

    __slots__ = ("_breaker", "_by_key", "_find", "_lock", "key", "most")

    def __init__(self, breaker: Any, key: Key, most: int) -> None:
        self._breaker = breaker
        self._find = forgiving_finder(key, "circuit breaker", "circuit")
        self.key = key
        self.most = most
        self._by_key: OrderedDict[Hashable, KeyedCircuit] = OrderedDict()
        self._lock = threading.Lock()

    def of(self, call: Call) -> KeyedCircuit:
        """The circuit that decides about `call`."""
        return self[self._ask(call)]

    def __getitem__(self, key: Hashable) -> KeyedCircuit:
        """The circuit of a key: made if there is none, used last from now on."""
        with self._lock:
            circuit = self._by_key.get(key)
            if circuit is not None:
                self._by_key.move_to_end(key)
                return circuit
            if len(self._by_key) >= self.most:
                del self._by_key[self._least_missed()]
            circuit = self._by_key[key] = KeyedCircuit(self._breaker, key)
        return circuit

    def all(self) -> dict[Hashable, KeyedCircuit]:
        """Those that are kept now, the one that was used longest ago first."""
        with self._lock:
            return dict(self._by_key)

    def worst(self) -> KeyedCircuit | None:
        """One that is open if there is any, else one that is half-open, else one that is closed."""
        return max(self.all().values(), key=lambda circuit: WORST[circuit.current_state], default=None)

    def _ask(self, call: Call) -> Hashable:
        key = self._find(call)
        return SHARED if key is None or key is NO_KEY else key

    def _least_missed(self) -> Hashable:
        closed: list[Hashable] = []
        for key, circuit in self._by_key.items():
            if circuit.current_state is CLOSED:
                if not circuit.busy:
                    return key
                closed.append(key)
        return closed[0] if closed else next(iter(self._by_key))
