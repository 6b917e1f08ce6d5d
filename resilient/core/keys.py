"""A state for each key, and no more of them than there is room for.

Rules of this file: no clock, no lock. A state has `at_rest(now)`, which says whether a new one would do as well.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Generic, Protocol, TypeVar

__all__ = ["Keyed"]

_LOOKED_AT = 8  # states, the one that was used least recently first, of which one at rest is looked for


class State(Protocol):
    """What is kept for a key."""

    def at_rest(self, now: float) -> bool: ...


S = TypeVar("S", bound=State)


class Keyed(Generic[S]):
    """States by key. Where there is no room for another, one at rest is forgotten, the least recently used first.

    Args:
        make: makes a state.
        room: how many there may be.
        forgetful: whether, with none at rest, the least recently used is forgotten all the same.

    Attributes:
        make: as given; may be set later, for states that are made from then on.
        forgotten: how many were that were not at rest.
    """

    __slots__ = ("_forgetful", "_room", "_states", "forgotten", "make")

    def __init__(self, make: Callable[[], S], room: int, *, forgetful: bool) -> None:
        self.make = make
        self._room = room
        self._forgetful = forgetful
        self._states: OrderedDict[Hashable, S] = OrderedDict()
        self.forgotten = 0

    def __len__(self) -> int:
        return len(self._states)

    def get(self, key: Hashable, now: float) -> S | None:
        """The state of a key, made if need be. None if there is no room for another."""
        states = self._states
        state = states.get(key)
        if state is not None:
            states.move_to_end(key)
            return state
        if len(states) >= self._room and not self._make_room(now):
            return None
        state = states[key] = self.make()
        return state

    def _make_room(self, now: float) -> bool:
        states = self._states
        idle = next((key for key, state in islice(states.items(), _LOOKED_AT) if state.at_rest(now)), None)
        if idle is not None:
            del states[idle]
        elif self._forgetful:
            states.popitem(last=False)
            self.forgotten += 1
        else:
            return False
        return True

    def states(self) -> list[S]:
        """All that are kept."""
        return list(self._states.values())

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()
