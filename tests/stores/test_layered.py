"""Two levels over a store that does what the test says."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import pytest

from resilient.core.entry import Entry, Mark, Record
from resilient.stores import LayeredStore, MemoryStore
from resilient.stores.guarded import Busy
from resilient.testing import FakeClock

from .conftest import entry, in_child

KEEP = 3600.0
Make = Callable[..., LayeredStore]


class Far(MemoryStore):
    """A second level that counts what it is asked, and fails or waits when it is told to."""

    blocking = True

    def __init__(self, clock: FakeClock | None = None) -> None:
        super().__init__(**({} if clock is None else {"clock": clock}))
        self.error: Exception | None = None
        self.asked: list[list[str]] = []
        self.written: list[list[str]] = []
        self.during: Callable[[str], None] = lambda act: None

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        self.asked.append([*keys])
        self.fail()
        found = super().load(keys)
        self.during("load")
        return found

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        self.during("save")
        self.fail()
        self.written.append([*records])
        super().save(records)

    def remove(self, keys: Sequence[str]) -> None:
        self.fail()
        super().remove(keys)

    def fail(self) -> None:
        if self.error is not None:
            raise self.error


@pytest.fixture
def far(clock: FakeClock) -> Far:
    return Far(clock)


@pytest.fixture
def make(far: Far, clock: FakeClock) -> Iterator[Make]:
    """Makes stores over `far` that leave no thread behind."""
    with ExitStack() as stack:
        yield lambda store=far, **settings: stack.enter_context(LayeredStore(store, clock=clock, **settings))


@pytest.fixture
def store(make: Make) -> LayeredStore:
    return make()


def bodies(store: LayeredStore, *keys: str) -> list[bytes | None]:
    return [record.body if isinstance(record, Entry) else None for record in store.load(keys)]


def test_what_was_asked_is_trusted_for_a_while_absence_too(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    far.save({"a": (entry(), KEEP)})
    assert store.peek(["a", "b"]) is None
    assert bodies(store, "a", "b") == [b"green", None]
    clock.advance(0.9)
    assert bodies(store, "a", "b") == [b"green", None]
    peeked = store.peek(["b", "a"])
    assert peeked is not None and peeked[0] is None and isinstance(peeked[1], Entry)
    assert far.asked == [["a", "b"]]
    far.save({"a": (entry(b"blue"), KEEP)})
    clock.advance(0.2)
    assert store.peek(["a"]) is None
    assert bodies(store, "a") == [b"blue"], "what another process wrote is seen once the trust is over"


def test_only_what_is_not_trusted_is_asked_for(store: LayeredStore, far: Far) -> None:
    far.save({"a": (entry(), KEEP), "b": (entry(b"blue"), KEEP)})
    store.load(["a"])
    assert bodies(store, "b", "a", "b", "c") == [b"blue", b"green", b"blue", None]
    assert far.asked == [["a"], ["b", "b", "c"]]


def test_without_trust_it_is_asked_each_time(make: Make, far: Far, clock: FakeClock) -> None:
    store = make(trust=0)
    far.save({"a": (entry(), KEEP)})
    store.load(["a"])
    far.remove(["a"])
    assert store.load(["a"]) == [None]
    assert store.peek(["a"]) is None


def test_own_writes_are_seen_at_once_and_written_behind(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    writing, go = threading.Event(), threading.Event()

    def slow(act: str) -> None:
        if act == "save":
            writing.set()
            assert go.wait(20)

    far.during = slow
    store.save({"a": (entry(), KEEP)})
    assert writing.wait(20), "the thread is at it"
    store.save({"b": (entry(b"blue"), KEEP)})
    assert bodies(store, "a", "b") == [b"green", b"blue"]
    clock.advance(5)
    assert bodies(store, "a", "b") == [b"green", b"blue"], "beyond the trust too, while they are under way"
    assert not store.flush(0.01)
    go.set()
    assert store.flush(20)
    assert isinstance(far.load(["a"])[0], Entry) and isinstance(far.load(["b"])[0], Entry)


def test_the_latest_of_what_waits_is_written(store: LayeredStore, far: Far) -> None:
    go = threading.Event()
    far.during = lambda act: act == "save" and go.wait(20)
    store.save({"first": (entry(), KEEP)})
    for number in range(50):
        store.save({"a": (entry(b"%d" % number), KEEP)})
    go.set()
    assert store.flush(20)
    assert far.load(["a"])[0].body == b"49"
    assert sum(keys.count("a") for keys in far.written) <= 2


def test_the_queue_is_bounded_and_drops_are_counted(make: Make, far: Far, clock: FakeClock) -> None:
    store = make(queue=10, queue_bytes=100_000)
    go, writing = threading.Event(), threading.Event()
    far.during = lambda act: act == "save" and (writing.set(), go.wait(20))
    store.save({"first": (entry(), KEEP)})
    assert writing.wait(20)
    for number in range(15):
        store.save({f"key {number}": (entry(), KEEP)})
    assert store.drops == 5
    store.remove([f"key {number}" for number in range(10)])
    store.save({"large": (entry(bytes(100_000)), KEEP)})
    assert store.drops == 6
    assert bodies(store, "large") == [bytes(100_000)], "it is known here all the same"
    go.set()
    assert store.flush(20)
    assert far.load(["large", "first", "key 14"])[0] is None


def test_what_is_removed_while_it_is_written_is_gone(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    writing, go = threading.Event(), threading.Event()

    def slow(act: str) -> None:
        if act == "save" and not go.is_set():
            writing.set()
            assert go.wait(20)

    far.during = slow
    store.save({"a": (entry(), KEEP), "b": (entry(), KEEP)})
    assert writing.wait(20)
    store.remove(["a"])
    assert store.load(["a"]) == [None]
    go.set()
    assert store.flush(20)
    clock.advance(5)
    assert bodies(store, "a", "b") == [None, b"green"]
    assert far.load(["a"]) == [None]


@pytest.mark.parametrize("settings", [{"l1_bytes": 0}, {"trust": 0}])
def test_what_replaces_what_is_being_written_is_seen_at_once(make: Make, far: Far, settings: dict[str, Any]) -> None:
    store = make(**settings)
    writing, go, landed, on = (threading.Event() for _ in range(4))
    save = far.save

    def slow(records: Mapping[str, tuple[Record, float]]) -> None:
        first = not writing.is_set()
        if first:
            writing.set()
            assert go.wait(20)
        save(records)
        if first:
            landed.set()
            assert on.wait(20)

    far.save = slow
    store.save({"a": (entry(), KEEP), "b": (entry(), KEEP)})
    assert writing.wait(20)
    store.save({"a": (Mark("a"), KEEP)})
    store.remove(["b"])
    go.set()
    assert landed.wait(20), "the older ones are in the store now, in place of what replaced them"
    assert store.load(["a", "b"]) == [Mark("a"), None]
    on.set()
    assert store.flush(20)
    assert store.load(["a", "b"]) == far.load(["a", "b"]) == [Mark("a"), None]


def test_marks_and_removals_are_written_at_once(store: LayeredStore, far: Far) -> None:
    store.save({"m": (Mark("m"), KEEP)})
    assert far.written == [["m"]]
    far.save({"a": (entry(), KEEP)})
    store.remove(["a"])
    assert far.load(["m", "a"]) == [Mark("m"), None]


def test_what_was_written_while_it_was_loaded_is_newer(store: LayeredStore, far: Far) -> None:
    far.save({"a": (entry(b"old"), KEEP), "m": (Mark("old"), KEEP), "b": (entry(b"old"), KEEP)})

    def meanwhile(act: str) -> None:
        if act == "load":
            far.during = lambda act: None
            store.save({"a": (entry(b"new"), KEEP), "m": (Mark("new"), KEEP)})
            store.remove(["b"])

    far.during = meanwhile
    first, mark, gone = store.load(["a", "m", "b"])
    assert (first.body, mark, gone) == (b"new", Mark("new"), None)
    assert [store.peek(["a"])[0].body, *store.peek(["m", "b"])] == [b"new", Mark("new"), None]


def test_while_it_cannot_be_reached_the_first_level_goes_on(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    far.save({"a": (entry(), KEEP), "m": (Mark("m"), KEEP)})
    store.load(["a", "m"])
    far.error = ConnectionError("refused")
    clock.advance(100)
    assert store.load(["a", "m"]) == [far.peek(["a"])[0], Mark("m")]
    store.save({"b": (entry(b"blue"), KEEP)})
    assert bodies(store, "b") == [b"blue"]
    clock.advance(100)
    assert bodies(store, "b", "c") == [None, None], "older than what is assumed of c"
    store.save({"b": (entry(b"blue"), KEEP)})
    assert bodies(store, "b", "c") == [b"blue", None]


def test_what_is_older_than_an_assumption_is_not_given_with_it(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    """The mark of an entry may be what is not known; then the entry could have been invalidated."""
    far.save({"a": (entry(), KEEP), "b": (entry(b"blue"), KEEP), "m": (Mark("m"), KEEP)})
    store.load(["a", "b"])
    far.error = ConnectionError("refused")
    clock.advance(2)
    assert bodies(store, "a", "b") == [b"green", b"blue"]
    assert bodies(store, "a", "m") == [None, None]
    assert bodies(store, "b", "m") == [None, None], "the same assumption still"
    store.save({"a": (entry(b"new"), KEEP)})
    assert bodies(store, "a", "m") == [b"new", None]
    far.error = None
    clock.advance(10)
    assert store.load(["m"]) == [Mark("m")], "an assumption is trusted by nobody"


def test_it_starts_without_the_store(make: Make, far: Far, clock: FakeClock) -> None:
    far.error = ConnectionError("refused")
    store = make()
    assert store.load(["a", "m"]) == [None, None]
    store.save({"a": (entry(), KEEP)})
    assert bodies(store, "a", "m") == [b"green", None]


def test_one_that_is_gone_is_left_alone_and_told_once(make: Make, far: Far, clock: FakeClock, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="resilient")
    store = make(name="the one")
    far.error = ConnectionError("refused")
    for _ in range(100):
        assert store.load(["a"]) == [None]
    assert (len(far.asked), store.failures, store.up) == (3, 3, False)
    clock.advance(0.7)
    for _ in range(100):
        assert store.load(["a"]) == [None]
    assert len(far.asked) == 4, "one trial"
    for _ in range(100):
        clock.advance(10)
        assert store.load(["a"]) == [None]
    assert len(far.asked) == 104
    assert [record.getMessage() for record in caplog.records] == [
        "the one: it cannot be used, and is left alone for a while: ConnectionError('refused')"
    ]
    far.error = None
    clock.advance(10)
    store.load(["a"])
    assert store.up
    assert caplog.messages[1:] == ["the one: it can be used again"]


def test_a_place_that_is_taken_is_no_failure(store: LayeredStore, far: Far) -> None:
    far.error = Busy()
    for _ in range(10):
        assert store.load(["a"]) == [None]
    assert (store.busy, store.failures, store.up, len(far.asked)) == (10, 0, True, 10)


def test_a_mark_that_cannot_be_written_is_owed_and_nothing_is_read_until_it_is(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    far.save({"a": (entry(), KEEP), "b": (entry(), KEEP)})
    far.error = ConnectionError("refused")
    store.save({"m": (Mark("m"), KEEP)})
    assert store.load(["m"]) == [Mark("m")]
    far.error = None
    asked = len(far.asked)
    far.during = lambda act: setattr(far, "error", OSError("full")) if act == "save" else None
    clock.advance(10)
    assert store.load(["a", "m"]) == [None, Mark("m")]
    assert len(far.asked) == asked, "what the mark was to end might have been read"
    far.during = lambda act: None
    far.error = None
    clock.advance(10)
    assert bodies(store, "a") == [b"green"]
    assert far.load(["m"]) == [Mark("m")]


def test_a_removal_is_owed_too_and_settled_without_anybody_asking(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    far.save({"a": (entry(), KEEP)})
    far.error = ConnectionError("refused")
    store.remove(["a"])
    assert store.load(["a"]) == [None]
    far.error = None
    clock.advance(10)
    assert store.flush(20), "the thread tries again every half a second"
    assert far.load(["a"]) == [None]


def test_beyond_the_bound_of_what_is_owed_the_store_is_emptied(
    make: Make, far: Far, clock: FakeClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("resilient.stores.guarded.OWED", 20)
    store = make(l1_bytes=0)
    far.save({"a": (entry(), KEEP)})
    far.error = ConnectionError("refused")
    for number in range(21):
        store.save({f"m {number}": (Mark("m"), KEEP)})
    assert "more than 20 invalidations" in caplog.text
    store.save({"m last": (Mark("m"), KEEP)})
    assert store.load(["a"]) == [None]
    far.error = None
    clock.advance(10)
    assert store.load(["a"]) == [None]
    store.save({"a": (entry(b"new"), KEEP)})
    assert store.flush(20)
    assert bodies(store, "a") == [b"new"]


def test_a_store_that_cannot_be_emptied_is_not_read_any_more(
    make: Make, far: Far, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilient.stores.guarded.OWED", 1)
    monkeypatch.setattr(far, "clear", None)
    store = make()
    far.save({"a": (entry(), KEEP)})
    far.error = ConnectionError("refused")
    store.save({"m": (Mark("m"), KEEP), "n": (Mark("n"), KEEP)})
    far.error = None
    clock.advance(10)
    assert store.load(["a"]) == [None]


def test_what_was_asked_for_before_it_was_emptied_is_not_stored_any_more(store: LayeredStore, far: Far) -> None:
    asked = entry()
    store.save({"a": (asked, KEEP), "m": (Mark("m"), KEEP)})
    store.clear()
    store.save({"a": (asked, KEEP), "b": (asked, KEEP)})
    assert store.load(["a", "b", "m"]) == [None, None, Mark("m")]
    store.save({"a": (entry(requested_at=time.time() + 1), KEEP)})
    assert bodies(store, "a") == [b"green"]
    assert store.flush(20)
    assert far.count == 2


def test_it_is_emptied_as_soon_as_it_can_be(store: LayeredStore, far: Far, clock: FakeClock) -> None:
    far.save({"a": (entry(), KEEP)})
    assert bodies(store, "a") == [b"green"]
    far.clear, clear = far.fail, far.clear
    far.error = ConnectionError("refused")
    store.clear()
    assert store.load(["a"]) == [None]
    far.error, far.clear = None, clear
    clock.advance(10)
    assert store.flush(20), "though nobody asks"
    assert far.load(["a"]) == [None]


def test_a_value_that_the_store_cannot_keep_is_told_at_once(store: LayeredStore, far: Far) -> None:
    def check(record: Record) -> None:
        raise TypeError("value: of type set")

    far.check = check
    with pytest.raises(TypeError, match="of type set"):
        store.save({"a": (entry(), KEEP)})
    assert store.load(["a"]) == [None]


def test_an_entry_of_another_process_is_placed_in_this_ones_time(make: Make, far: Far, clock: FakeClock) -> None:
    store = make(wall=lambda: 5000.0)
    far.save({"a": (entry(received_at=4990.0, initial_age=3.0, arrived=math.nan), KEEP)})
    (found,) = store.load(["a"])
    assert found.age(clock.now()) == 13.0


def test_closed_it_has_written_what_waited(store: LayeredStore, far: Far) -> None:
    store.save({"a": (entry(), KEEP)})
    store.close()
    assert far.written == [["a"]]
    assert store.load(["a"]) == [None]
    store.save({"b": (entry(), KEEP)})
    assert far.written == [["a"]]


def test_the_thread_ends_when_there_is_nothing_to_do(make: Make, far: Far, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilient.stores.behind.IDLE", 0.01)
    store = make()
    for number in range(3):
        store.save({"a": (entry(b"%d" % number), KEEP)})
        assert store.flush(20)
        thread = store._behind._thread
        if thread is not None:
            thread.join(20)
            assert not thread.is_alive()
        assert far.load(["a"])[0].body == b"%d" % number


def test_figures_are_the_stores_or_else_the_first_levels(make: Make, store: LayeredStore, far: Far, clock: FakeClock) -> None:
    class Silent:
        blocking = True

        def __init__(self) -> None:
            self.load, self.save, self.remove, self.close = far.load, far.save, far.remove, far.close

    store.save({"a": (entry(), KEEP)})
    assert store.flush(20)
    assert (store.size, store.limit, store.count, store.evictions) == (far.size, far.limit, 1, 0)
    other = make(Silent(), l1_bytes=5000)
    other.save({"b": (entry(), KEEP)})
    assert (other.limit, other.count, other.corrupt, other.refused) == (5000, 1, 0, 0)
    assert 1000 < other.size == other.l1_size <= 5000


@pytest.mark.parametrize(
    ("settings", "error"),
    [
        ({"l1_bytes": -1}, ValueError),
        ({"trust": -1}, ValueError),
        ({"trust": "1"}, TypeError),
        ({"queue": 0}, ValueError),
        ({"queue_bytes": 0}, ValueError),
    ],
)
def test_settings(settings: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        LayeredStore(MemoryStore(), **settings)
    with pytest.raises(TypeError, match="store"):
        LayeredStore(object())


def test_a_child_has_locks_and_a_thread_of_its_own(make: Make, far: Far) -> None:
    store = make(name="of a child")
    store.save({"a": (entry(), KEEP)})
    assert store.flush(20)

    def child() -> None:
        assert far.load(["a"])[0].body == b"green"
        store.save({"b": (entry(), KEEP), "m": (Mark("m"), KEEP)})
        assert store.flush(20)
        assert bodies(store, "b") == [b"green"]
        assert isinstance(far.load(["b"])[0], Entry)

    with store._near._lock, store._far._lock, store._far._settling, store._behind._change:
        assert in_child(child) == 0
    assert bodies(store, "a") == [b"green"]


def test_what_comes_within_a_moment_is_written_at_once_and_who_waits_does_not_wait_for_more(
    make: Make, far: Far, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("resilient.stores.behind.GATHER", 20.0)
    store = make(queue=200)
    for number in range(5):
        store.save({str(number): (entry(), KEEP)})
    assert store.flush(10)
    assert [len(batch) for batch in far.written] == [5]
    for number in range(64):  # as many as are written together
        store.save({str(number): (entry(), KEEP)})
    until = time.monotonic() + 10
    while sum(map(len, far.written)) < 69 and time.monotonic() < until:
        time.sleep(0.001)
    assert sum(map(len, far.written)) == 69
    store.save({"last": (entry(), KEEP)})
    store.close()
    assert far.written[-1] == ["last"]
    assert store.drops == 0


def test_what_waits_for_more_is_written_in_its_time(make: Make, far: Far) -> None:
    store = make()
    for number in range(3):
        store.save({str(number): (entry(), KEEP)})
        until = time.monotonic() + 10
        while len(far.written) <= number and time.monotonic() < until:
            time.sleep(0.001)
    assert far.written == [["0"], ["1"], ["2"]]


def test_a_store_that_failed_once_counts_from_the_last_success(make: Make, far: Far) -> None:
    store = make(l1_bytes=0)
    for _ in range(3):
        for _ in range(2):  # one more in a row would be too many
            far.error = OSError("gone")
            assert store.load(["a"]) == [None]
        far.error = None
        assert store.load(["a"]) == [None]
    assert (store.failures, store.up, len(far.asked)) == (6, True, 9)
    far.error = OSError("gone")
    for _ in range(5):
        store.load(["a"])
    assert (store.failures, store.up) == (9, False)
