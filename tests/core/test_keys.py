from __future__ import annotations

from resilient.core.keys import Keyed


class State:
    def __init__(self) -> None:
        self.rests_from = 0.0

    def at_rest(self, now: float) -> bool:
        return now >= self.rests_from


def filled(room: int, *, forgetful: bool = True) -> Keyed[State]:
    keyed = Keyed(State, room, forgetful=forgetful)
    for key in range(room):
        state = keyed.get(key, 0.0)
        assert state is not None
        state.rests_from = 10.0
    return keyed


def test_a_key_keeps_its_state() -> None:
    keyed = filled(3)
    assert keyed.get(1, 0.0) is keyed.get(1, 0.0) is not keyed.get(2, 0.0)
    assert len(keyed) == 3


def test_one_at_rest_is_forgotten_first() -> None:
    keyed = filled(3)
    rests = keyed.get(1, 0.0)
    assert rests is not None
    rests.rests_from = 0.0
    keyed.get("new", 1.0)
    assert list(keyed._states) == [0, 2, "new"] and keyed.forgotten == 0


def test_without_one_at_rest_the_one_used_least_recently() -> None:
    keyed = filled(3)
    keyed.get(0, 0.0)
    keyed.get("new", 1.0)
    assert list(keyed._states) == [2, 0, "new"] and keyed.forgotten == 1


def test_or_the_new_one_finds_no_room() -> None:
    keyed = filled(3, forgetful=False)
    assert keyed.get("new", 9.0) is None
    assert list(keyed._states) == [0, 1, 2]
    assert keyed.get("new", 10.0) is not None
    assert list(keyed._states) == [1, 2, "new"]


def test_looking_for_one_at_rest_takes_no_longer_with_many() -> None:
    keyed = filled(1000)
    asked = []
    for key, state in keyed._states.items():
        state.at_rest = lambda now, key=key: asked.append(key)  # type: ignore[method-assign,misc,return-value,assignment]
    keyed.get("new", 5.0)
    assert asked == list(range(8))


def test_clear() -> None:
    keyed = filled(3)
    keyed.clear()
    assert len(keyed) == 0


def test_all_that_are_kept() -> None:
    keyed = filled(3)
    assert keyed.states() == [keyed.get(key, 0.0) for key in range(3)]


def test_each_that_is_forgotten_counts() -> None:
    keyed = filled(3)
    for key in "ab":
        state = keyed.get(key, 1.0)
        assert state is not None
        state.rests_from = 10.0
    assert keyed.forgotten == 2
