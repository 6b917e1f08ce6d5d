"""The bound, who goes first, and a naive model of the same rules."""

from __future__ import annotations

import math
import random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from resilient.core.segmented import Segmented

from ..thorough import often


def test_what_is_asked_for_again_outlives_a_scan() -> None:
    kept: Segmented[str, int] = Segmented(100)
    kept.put("hot", 1, 10)
    assert kept.get("hot") == 1
    for number in range(1000):
        kept.put(f"cold {number}", number, 10)
    assert kept.get("hot") == 1
    assert kept.evictions == 1000 - 9 and len(kept) == 10 and kept.size == 100


def test_the_worthless_goes_before_what_is_in_use() -> None:
    kept: Segmented[str, int] = Segmented(30)
    for name, moment in (("old", math.inf), ("worthless", 5.0), ("new", 50.0)):
        kept.put(name, 0, 10, worthless_at=moment, now=0.0)
    kept.get("worthless")  # protected, and worthless none the less
    kept.put("another", 0, 10, worthless_at=60.0, now=6.0)
    assert list(kept) == ["old", "new", "another"]
    assert (kept.expired, kept.evictions) == (1, 0)
    kept.put("one more", 0, 10, now=7.0)
    assert "old" not in kept and kept.evictions == 1


def test_the_number_is_bounded_too() -> None:
    kept: Segmented[int, int] = Segmented(10**9, 3)
    for number in range(10):
        assert kept.put(number, number, 1)
    assert list(kept) == [7, 8, 9]
    assert Segmented(1).max_entries == 100_000, "if nobody says how many"


def test_what_fits_nowhere_is_not_kept_and_nothing_else_goes_for_it() -> None:
    kept: Segmented[str, int] = Segmented(100)
    kept.put("a", 1, 50)
    kept.put("b", 2, 50)
    assert not kept.put("a", 3, 101)
    assert "a" not in kept and kept.get("b") == 2  # the old "a" is no longer what was said last


def test_something_large_does_not_push_out_what_is_protected() -> None:
    kept: Segmented[str, int] = Segmented(100)
    kept.put("small", 1, 10)
    kept.get("small")
    kept.put("large", 2, 85)
    assert kept.get("large") == 2
    kept.put("new", 3, 50)
    assert kept.peek("small") == 1 and kept.peek("large") is None and kept.size == 60


def filled(*sizes: tuple[str, int]) -> Segmented[str, str]:
    """Of 100 bytes, 80 of which may be protected."""
    kept: Segmented[str, str] = Segmented(100)
    for key, size in sizes:
        assert kept.put(key, f"value of {key}", size)
    return kept


def test_what_falls_out_of_the_protected_part_is_on_probation_once_more() -> None:
    kept = filled(("a", 30), ("b", 30), ("c", 30))
    for key in "abc":
        assert kept.get(key) == f"value of {key}"
    kept.put("d", "", 10)
    assert list(kept) == ["a", "d", "b", "c"]  # "a" on probation again, and longer than "d"
    kept.get("d")
    kept.get("a")
    kept.put("e", "", 0)
    assert list(kept) == ["b", "e", "c", "d", "a"], "the one that was asked for least lately fell out"
    kept.put("f", "", 1)
    assert kept.peek("b") is None and kept.evictions == 1


def test_eighty_percent_may_be_protected() -> None:
    kept = filled(("a", 30), ("b", 50))
    kept.get("a")
    kept.get("b")
    kept.put("c", "", 20)
    assert list(kept) == ["c", "a", "b"] and kept.size == 100
    large = filled(("large", 80))
    large.get("large")
    large.put("small", "", 20)
    assert list(large) == ["small", "large"]


def test_what_is_removed_is_protected_no_more() -> None:
    kept = filled(("a", 30), ("b", 50))
    kept.get("a")
    kept.get("b")
    kept.remove("a")
    kept.put("c", "", 30)
    kept.get("c")
    kept.put("d", "", 10)
    assert list(kept) == ["d", "b", "c"]
    kept.remove("c")
    kept.put("e", "", 40)
    kept.get("e")
    kept.put("f", "", 0)
    assert list(kept) == ["d", "b", "f", "e"], "50 and 40 are more than 80"


def test_a_newer_answer_is_as_protected_as_the_one_before() -> None:
    kept = filled(("a", 10), ("b", 10))
    kept.get("a")
    kept.put("a", "newer", 20)
    kept.put("c", "", 10)
    assert list(kept) == ["b", "c", "a"] and kept.peek("a") == "newer"


def test_looking_protects_nothing() -> None:
    kept = filled(("a", 10), ("b", 10))
    assert "a" in kept and kept.peek("a") == "value of a"
    assert list(kept) == ["a", "b"]
    assert kept.remove("a") == "value of a" and kept.remove("a") is None
    assert "a" not in kept and kept.size == 10


def test_nothing_goes_while_there_is_room() -> None:
    kept: Segmented[str, int] = Segmented(100)
    kept.put("worthless", 0, 40, worthless_at=5.0)
    assert kept.put("another", 0, 60, now=10.0)
    assert list(kept) == ["worthless", "another"]
    assert kept.put("all", 0, 100, now=10.0)
    assert list(kept) == ["all"] and (kept.expired, kept.evictions) == (1, 1)


def test_where_there_are_too_many_the_worthless_goes_first_too() -> None:
    kept: Segmented[str, int] = Segmented(100, 2)
    kept.put("a", 0, 1)
    kept.put("worthless", 0, 1, worthless_at=5.0)
    kept.put("b", 0, 1, now=5.0)
    assert list(kept) == ["a", "b"] and (kept.expired, kept.evictions) == (1, 0)


def test_what_was_put_anew_lives_as_long_as_was_said_last() -> None:
    kept: Segmented[str, int] = Segmented(100)
    for key, moment in (("a", 5.0), ("b", 5.0), ("a", 50.0), ("c", 7.0), ("d", 7.0)):
        kept.put(key, 0, 1, worthless_at=moment)
    assert (kept.pop_expired(4.9), kept.pop_expired(5.0)) == (0, 1)
    assert kept.pop_expired(10.0) == 2 and kept.expired == 3
    assert list(kept) == ["a"]


def test_within_5_percent_of_the_bound_under_random_sizes() -> None:
    draw = random.Random(7)
    bound, largest = 1_000_000, 50_000
    kept: Segmented[int, int] = Segmented(bound)
    filled: list[float] = []
    for number in range(20_000):
        evictions = kept.evictions
        size = min(largest, int(draw.expovariate(1 / 8000)) + 1)
        kept.put(draw.randrange(5000), number, size, worthless_at=number + 1e6, now=float(number))
        if draw.random() < 0.5:
            kept.get(draw.randrange(5000))
        assert kept.size <= bound
        if kept.evictions > evictions:  # no more goes than has to
            assert kept.size > bound - largest
        if kept.evictions:
            filled.append(kept.size / bound)
    assert kept.evictions > 10_000
    assert sum(filled) / len(filled) > 0.98


@pytest.mark.slow
def test_moments_long_gone_take_no_memory() -> None:
    kept: Segmented[int, int] = Segmented(100)
    for number in range(100_000):
        kept.put(number, number, 10, worthless_at=number + 1e6, now=0.0)
        assert len(kept._heap) <= 2 * len(kept) + 65
    assert len(kept._moments) == len(kept._heap) < 200


def test_as_long_as_nothing_is_gone_nothing_is_tidied_up() -> None:
    kept: Segmented[int, int] = Segmented(10_000)
    moments = kept._moments
    for number in range(1000):
        kept.put(number, number, 1, worthless_at=float(number))
    assert kept._moments is moments and len(moments) == 1000


@pytest.mark.parametrize(("moment", "dropped"), [(-math.inf, 1), (-(2.0**60), 1), (0.0, 1), (2.0**60, 0), (math.inf, 0), (math.nan, 0)])
def test_any_moment_will_do(moment: float, dropped: int) -> None:
    kept: Segmented[str, int] = Segmented(10)
    assert kept.put("a", 1, 1, worthless_at=moment)
    assert kept.pop_expired(0.0) == dropped
    assert len(kept) == 1 - dropped and kept.pop_expired(1e15) == 0


class Model(RuleBasedStateMachine):
    """Against lists: the first of a list goes first."""

    @initialize(entries=st.integers(1, 12))
    def begin(self, entries: int) -> None:
        self.kept: Segmented[int, int] = Segmented(100, entries)
        self.entries = entries
        self.probation: list[tuple[int, int, int, int]] = []
        self.protected: list[tuple[int, int, int, int]] = []
        self.now = 0
        self.count = 0

    def _take(self, key: int) -> tuple[tuple[int, int, int, int] | None, bool]:
        for segment in (self.probation, self.protected):
            for one in segment:
                if one[0] == key:
                    segment.remove(one)
                    return one, segment is self.protected
        return None, False

    def _size(self, *segments: list[tuple[int, int, int, int]]) -> int:
        return sum(one[2] for segment in segments for one in segment)

    def _protect(self, one: tuple[int, int, int, int]) -> None:
        if one[2] > 80:
            self.probation.append(one)
            return
        self.protected.append(one)
        while self._size(self.protected) > 80:
            self.probation.append(self.protected.pop(0))

    def _full(self, size: int) -> bool:
        both = self.probation, self.protected
        return self._size(*both) + size > 100 or sum(map(len, both)) >= self.entries

    @rule(key=st.integers(0, 15), size=st.integers(0, 110), life=st.integers(0, 9))
    def puts(self, key: int, size: int, life: int) -> None:
        self.count += 1
        worthless_at = self.now + life
        kept = self.kept.put(key, self.count, size, worthless_at=float(worthless_at), now=float(self.now))
        _, was_protected = self._take(key)
        assert kept is (size <= 100)
        if not kept:
            return
        if self._full(size):
            for segment in (self.probation, self.protected):
                segment[:] = [one for one in segment if one[3] > self.now]
        while self._full(size):
            (self.probation or self.protected).pop(0)
        one = (key, self.count, size, worthless_at)
        if was_protected:
            self._protect(one)
        else:
            self.probation.append(one)

    @rule(key=st.integers(0, 15))
    def gets(self, key: int) -> None:
        one, _ = self._take(key)
        assert self.kept.get(key) == (one and one[1])
        if one is not None:
            was_protected = key in self.kept._protected
            if was_protected or one[2] <= 80:
                self._protect(one)
            else:
                self.probation.append(one)

    @rule(key=st.integers(0, 15))
    def removes(self, key: int) -> None:
        one, _ = self._take(key)
        assert self.kept.remove(key) == (one and one[1])

    @rule(seconds=st.integers(0, 5))
    def time_passes(self, seconds: int) -> None:
        self.now += seconds

    @rule()
    def worthless_things_are_dropped(self) -> None:
        before = len(self.kept)
        dropped = self.kept.pop_expired(float(self.now))
        for segment in (self.probation, self.protected):
            segment[:] = [one for one in segment if one[3] > self.now]
        assert before - dropped == len(self.kept)

    @invariant()
    def both_hold_the_same(self) -> None:
        if not hasattr(self, "kept"):
            return
        assert list(self.kept) == [one[0] for one in (*self.probation, *self.protected)]
        assert self.kept.size == self._size(self.probation, self.protected) <= 100
        assert self.kept._protected_size == self._size(self.protected)
        for one in (*self.probation, *self.protected):
            assert self.kept.peek(one[0]) == one[1]


TestModel = pytest.mark.slow(Model.TestCase)
TestModel.settings = settings(max_examples=often(150), stateful_step_count=50, deadline=None)


@pytest.mark.parametrize(
    ("values", "name"), [({"max_bytes": 0}, "max_bytes"), ({"max_entries": 0}, "max_entries"), ({"protected": 0}, "protected")]
)
def test_a_bad_setting_is_named(values: dict[str, Any], name: str) -> None:
    with pytest.raises(ValueError, match=f"^{name} must be"):
        Segmented(**{"max_bytes": 1, **values})
