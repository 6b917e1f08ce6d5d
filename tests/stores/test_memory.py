from __future__ import annotations

import os
import random
import tracemalloc

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resilient.core.entry import Entry, Mark, Variants
from resilient.stores import MemoryStore
from resilient.stores.memory import weight
from resilient.testing import FakeClock

from .conftest import entry, in_child

KEEP = 3600.0


def bodies(store: MemoryStore, *keys: str) -> list[bytes | None]:
    return [record.body if isinstance(record, Entry) else None for record in store.load(keys)]


def test_records_are_kept_as_they_are() -> None:
    store, lamp = MemoryStore(), entry(value=(1, {2}))
    store.save({"a": (lamp, KEEP)})
    assert store.load(["a"])[0] is lamp
    assert store.peek(["a"])[0] is lamp
    assert (store.count, store.size) == (1, weight("a", lamp))


@pytest.mark.parametrize("setting", ["max_bytes", "max_entries", "max_marks"])
@pytest.mark.parametrize(("value", "error"), [(0, ValueError), (1.5, TypeError)])
def test_settings(setting: str, value: float, error: type[Exception]) -> None:
    with pytest.raises(error, match=setting):
        MemoryStore(**{setting: value})


def test_what_is_out_of_date_is_gone(clock: FakeClock) -> None:
    store = MemoryStore(clock=clock)
    store.save({"a": (entry(), 10.0), "m": (Mark("m"), 20.0)})
    clock.advance(9.9)
    assert bodies(store, "a") == [b"green"]
    clock.advance(0.1)
    assert bodies(store, "a") == [None]
    assert store.load(["m"]) == [Mark("m")]
    clock.advance(10)
    assert store.load(["m"]) == [None]


def test_what_is_out_of_date_goes_first(clock: FakeClock) -> None:
    store = MemoryStore(3 * weight("a", entry()), clock=clock)
    store.save({"a": (entry(), 10.0), "b": (entry(), KEEP), "c": (entry(), KEEP)})
    store.load(["a"])
    clock.advance(12)
    store.save({"d": (entry(), KEEP)})
    assert bodies(store, "a", "b", "c", "d") == [None, b"green", b"green", b"green"]
    assert store.evictions == 0
    store.save({"e": (entry(), KEEP)})
    assert store.evictions == 1
    assert store.count == 3


def test_what_is_too_large_is_refused_and_replaces_nothing() -> None:
    store = MemoryStore(10_000)
    store.save({"a": (entry(), KEEP), "b": (entry(), KEEP)})
    store.save({"a": (entry(bytes(10_000)), KEEP)})
    assert store.refused == 1
    assert bodies(store, "a", "b") == [None, b"green"], "what it would have replaced is out of date"


def test_the_bytes_of_random_sizes_stay_below_the_bound_and_near_it() -> None:
    chance = random.Random(3)
    store = MemoryStore(2**20)
    for number in range(2000):
        store.save({f"key {number}": (entry(bytes(chance.randrange(20_000))), KEEP)})
        assert store.size <= 2**20
    assert store.size > 2**20 * 0.95


def test_the_bytes_that_are_counted_are_those_that_are_taken() -> None:
    chance = random.Random(4)
    tracemalloc.start()
    try:
        store = MemoryStore(8 * 2**20)
        before = tracemalloc.get_traced_memory()[0]
        number = 0
        while store.evictions < 100:
            number += 1
            fields = tuple((b"header-%d" % n, b"%d" % chance.randrange(10**9)) for n in range(6))
            size = 1024 + sum(len(name) + len(value) for name, value in fields)
            body = chance.randbytes(chance.randrange(10_000))
            store.save({f"https://host/{number}": (entry(body, fields=fields, size=size + len(body)), KEEP)})
        taken = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert 0.75 * store.size < taken < 1.1 * store.size


def test_marks_have_an_eighth_and_their_number_is_bounded() -> None:
    store = MemoryStore(2**20, max_marks=100)
    for number in range(1000):
        store.save({f"mark {number}": (Mark("m"), KEEP)})
        store.save({f"key {number}": (entry(bytes(4000)), KEEP)})
        assert store.size <= 2**20
    assert sum(mark is not None for mark in store.load([f"mark {n}" for n in range(1000)])) == 100
    small = MemoryStore(80_000)
    for number in range(1000):
        small.save({f"key {number}": (entry(), KEEP), f"mark {number}": (Mark("m"), KEEP)})
        assert small.size <= 80_000
    assert 10_000 > sum(weight(f"mark {n}", m) for n, m in enumerate(small.load([f"mark {n}" for n in range(1000)])) if m) > 9000


def test_what_was_saved_before_a_mark_that_had_to_go_is_not_believed() -> None:
    store = MemoryStore(max_marks=2)
    store.save({"before": (entry(), KEEP)})
    store.save({"one": (Mark("1"), KEEP)})
    store.save({"between": (entry(), KEEP)})
    store.save({"two": (Mark("2"), KEEP), "three": (Mark("3"), KEEP)})
    store.save({"after": (entry(), KEEP)})
    assert store.load(["one", "two", "three"]) == [None, Mark("2"), Mark("3")]
    assert bodies(store, "before", "between", "after") == [None, b"green", b"green"]


def test_a_mark_whose_time_was_over_takes_nothing_along(clock: FakeClock) -> None:
    store = MemoryStore(max_marks=1, clock=clock)
    store.save({"before": (entry(), KEEP), "one": (Mark("1"), 5.0)})
    clock.advance(6)
    store.save({"two": (Mark("2"), KEEP)})
    assert bodies(store, "before") == [b"green"]


def test_a_record_of_another_kind_takes_the_place() -> None:
    store = MemoryStore()
    for record in (entry(), Mark("m"), Variants((("accept",),), ("a",)), Mark("n"), entry()):
        store.save({"a": (record, KEEP)})
        assert store.load(["a"]) == [record]
        assert (store.count, store.size) == (1, weight("a", record))


def test_clear_leaves_marks() -> None:
    store = MemoryStore()
    store.save({"a": (entry(), KEEP), "m": (Mark("m"), KEEP)})
    store.clear()
    assert store.load(["a", "m"]) == [None, Mark("m")]


def test_closed_it_is_empty() -> None:
    store = MemoryStore()
    store.save({"a": (entry(), KEEP), "m": (Mark("m"), KEEP)})
    store.close()
    assert store.load(["a", "m"]) == [None, None]
    assert (store.count, store.size) == (0, 0)


steps = st.lists(
    st.tuples(
        st.sampled_from(["save", "mark", "load", "remove", "wait"]), st.integers(0, 9), st.integers(0, 3000), st.sampled_from([1.0, 60.0])
    ),
    max_size=60,
)


@settings(deadline=None)
@given(steps)
def test_it_never_has_what_was_not_the_last_to_be_saved(steps: list[tuple[str, int, int, float]]) -> None:
    clock = FakeClock()
    store = MemoryStore(12_000, max_marks=3, clock=clock)
    model: dict[str, tuple[object, float]] = {}
    for act, number, size, keep in steps:
        key = str(number)
        match act:
            case "save" | "mark":
                record = Mark(str(size)) if act == "mark" else entry(bytes(size))
                store.save({key: (record, keep)})
                model[key] = record, clock.now() + keep
            case "remove":
                store.remove([key])
                model.pop(key, None)
            case "wait":
                clock.advance(keep / 2)
            case _:
                (found,) = store.load([key])
                if found is not None:
                    assert found is model[key][0]
                    assert model[key][1] > clock.now()
        assert store.size <= 12_000
        assert store.size == sum(weight(key, store._kept.peek(key)[0]) for key in store._kept) + store._marks_size
        assert store._marks_size == sum(weight(key, mark[0]) for key, mark in store._marks.items())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_a_lock_that_was_held_at_the_fork_holds_no_child_up() -> None:
    store = MemoryStore()
    store.save({"a": (entry(), KEEP)})

    def begun_anew() -> None:
        assert store.load(["a"]) == [None]
        store.save({"b": (entry(), KEEP)})
        assert bodies(store, "b") == [b"green"]

    def as_it_was() -> None:
        assert bodies(store, "a") == [b"green"]

    with store._lock:
        assert in_child(begun_anew) == 0
    assert in_child(as_it_was) == 0
    assert bodies(store, "a") == [b"green"]
