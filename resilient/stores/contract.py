"""What every store has to do, as tests for pytest; users meet it as `resilient.testing.StoreContract`."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..core.entry import Entry, Mark, Record, Variants
from ..protocols import Store

__all__ = ["StoreContract"]

KEEP = 3600.0


def _entry(body: bytes = b"green", **fields: Any) -> Entry:
    wall = time.time()
    given: dict[str, Any] = {
        "status": 200,
        "fields": ((b"Content-Type", b"text/plain"), (b"X-Latin", b"caf\xe9"), (b"X-Empty", b"")),
        "requested_at": wall - 1.5,
        "received_at": wall - 1.0,
        "arrived": time.monotonic() - 1.0,
        "initial_age": 3.25,
        "lifetime": 60.0,
        "took": 0.5,
        "stale_while_revalidate": 5.0,
        "stale_if_error": 600.0,
        "strict": True,
        "etag": 'W/"1"',
        "last_modified": "Sun, 06 Nov 1994 08:49:37 GMT",
        "date": wall - 4.0,
        "vary": ("accept", "x-tenant"),
        "selected": ("*/*", None),
        "groups": ("lamps",),
        "generation": "a,b",
        "size": 1024 + len(body),
    }
    return Entry(body=body, **(given | fields))


class StoreContract:
    """The contract of a store: a class whose subclass has a fixture `store`, which yields a new, empty one for each test.

    class TestMyStore(StoreContract):
        @pytest.fixture
        def store(self, tmp_path):
            with MyStore(tmp_path / "cache") as store:
                yield store
    """

    def test_it_is_a_store(self, store: Store) -> None:
        assert isinstance(store, Store), "expected blocking, load, save, remove and close"
        assert store.blocking in (True, False), "blocking tells whether its methods may wait for input and output"

    def test_nothing_is_there_at_first(self, store: Store) -> None:
        assert list(store.load(["a", "b"])) == [None, None]
        assert list(store.load([])) == []
        store.remove(["a"])
        store.remove([])
        store.save({})

    def test_records_come_back_as_they_were(self, store: Store) -> None:
        records: dict[str, Record] = {
            "entry": _entry(),
            "bare": _entry(b"", fields=(), vary=(), selected=(), groups=(), etag=None, last_modified=None),
            "bytes": _entry(bytes(range(256)) * 1024),
            "flags": _entry(needs_validation=True, strict=False, open=True, status=404),
            "variants": Variants((("accept",), ()), ("entry", "bare")),
            "mark": Mark("token"),
        }
        store.save({key: (record, KEEP) for key, record in records.items()})
        keys = ["mark", "bytes", "nothing", "entry", "variants", "flags", "bare", "mark"]
        assert list(store.load(keys)) == [records.get(key) for key in keys], "each record under its key, in the order asked for"

    def test_an_entry_goes_on_ageing(self, store: Store) -> None:
        entry = _entry()
        store.save({"a": (entry, KEEP)})
        (found,) = store.load(["a"])
        assert isinstance(found, Entry)
        assert not math.isnan(found.arrived), "its time in this process is set: Entry.place"
        now = time.monotonic()
        assert abs(found.age(now) - entry.age(now)) < 0.5, "it is as old as it was when it was saved"

    def test_the_latest_is_there(self, store: Store) -> None:
        for number in range(10):
            store.save({"a": (_entry(b"%d" % number), KEEP)})
            assert _bodies(store, "a") == [b"%d" % number], "who saves sees it at once"
        store.save({"a": (Mark("now"), KEEP)})
        assert list(store.load(["a"])) == [Mark("now")], "a record of another kind takes the place too"
        store.save({"a": (_entry(), KEEP)})
        assert _bodies(store, "a") == [b"green"]

    def test_what_is_removed_is_gone(self, store: Store) -> None:
        store.save({"a": (_entry(), KEEP), "b": (Mark("b"), KEEP), "c": (_entry(), KEEP)})
        store.remove(["a", "b", "unknown"])
        assert list(store.load(["a", "b"])) == [None, None]
        assert _bodies(store, "c") == [b"green"]

    def test_what_is_to_be_kept_no_longer_is_gone(self, store: Store) -> None:
        store.save({"a": (_entry(), 0.001), "b": (_entry(), KEEP)})
        until = time.monotonic() + 10
        while store.load(["a"]) != [None] and time.monotonic() < until:
            time.sleep(0.002)
        assert list(store.load(["a"])) == [None]
        assert _bodies(store, "b") == [b"green"]

    def test_keys_are_told_apart(self, store: Store) -> None:
        keys = [
            "a",
            "A",
            "a ",
            "a\0",
            "a\n",
            "",
            "é",
            "e\u0301",
            "%C3%A9",
            "a" * 5000,
            "a" * 5001,
            "*",
            "a%",
            "\udcff",
            "e||https://h/?a=1&b",
            "😀",
        ]
        store.save({key: (_entry(b"%d" % number), KEEP) for number, key in enumerate(keys)})
        assert _bodies(store, *keys) == [b"%d" % number for number in range(len(keys))]

    def test_many_keys_at_once(self, store: Store) -> None:
        keys = [f"key {number}" for number in range(200)]
        store.save({key: (_entry(key.encode()), KEEP) for key in keys})
        assert _bodies(store, *keys[::-1]) == [key.encode() for key in keys[::-1]]

    def test_values_of_functions(self, store: Store) -> None:
        values = [1, 1.5, True, "é", [], {}, [1, [2, {"a": None}]], {"a": {"b": [1.25, False]}}, 2**70]
        for value in values:
            store.save({"value": (Entry.of_value(value, ttl=60, now=time.monotonic(), wall=time.time()), KEEP)})
            (found,) = store.load(["value"])
            assert isinstance(found, Entry) and found.value == value and type(found.value) is type(value)

    def test_a_value_comes_back_the_same_or_is_refused(self, store: Store) -> None:
        for value in [(1, 2), {1: 2}, {"a": {1, 2}}, [b"bytes"], object(), float("nan"), 1j]:
            entry = Entry.of_value(value, ttl=60, now=time.monotonic(), wall=time.time())
            try:
                store.save({"value": (entry, KEEP)})
            except TypeError as error:
                said = str(error)
                assert any(word in said for word in ("tuple", "int", "set", "bytes", "object", "nan", "complex")), "it names the type"
                continue
            (found,) = store.load(["value"])
            assert isinstance(found, Entry) and found.value is value, "a copy would be another value"

    def test_a_mark_outlives_what_was_saved_before_it(self, store: Store) -> None:
        old = {f"old {number}": (_entry(), KEEP) for number in range(20)}
        store.save(old)
        store.save({"mark": (Mark("now"), KEEP)})
        body = random.randbytes(32 * 1024)
        for number in range(400):
            store.save({f"new {number}": (_entry(body), KEEP)})
        if list(store.load(["mark"])) != [Mark("now")]:
            assert list(store.load([*old])) == [None] * len(old), "what was saved before a mark that is lost would be believed again"

    def test_a_first_mark_takes_the_place_of_none(self, store: Store) -> None:
        store.save({"known": (Mark("invalidated"), KEEP), "expired": (Mark("long ago"), 0.001)})
        flush = getattr(store, "flush", lambda timeout: None)
        until = time.monotonic() + 10
        while store.load(["expired"]) != [Mark("first")] and time.monotonic() < until:
            store.save({key: (Mark("first", first=True), KEEP) for key in ("known", "new", "expired")})
            flush(10.0)
        assert list(store.load(["known", "new", "expired"])) == [Mark("invalidated"), Mark("first"), Mark("first")]
        store.save({"new": (Mark("invalidated"), KEEP)})
        assert list(store.load(["new"])) == [Mark("invalidated")]

    def test_its_bound_holds(self, store: Store) -> None:
        limit = getattr(store, "limit", None)
        if limit is None:
            return
        chance = random.Random(7)
        for number in range(400):
            store.save({f"key {number}": (_entry(chance.randbytes(chance.randrange(64 * 1024))), KEEP)})
            assert store.size <= limit  # type: ignore[attr-defined]

    def test_peek_takes_nothing_from_load(self, store: Store) -> None:
        peek = getattr(store, "peek", None)
        if peek is None:
            return
        store.save({"a": (_entry(), KEEP)})
        loaded = list(store.load(["a", "b"]))
        peeked = peek(["a", "b"])
        assert peeked is None or list(peeked) == loaded

    def test_threads(self, store: Store) -> None:
        keys = [f"key {number}" for number in range(16)]

        def work(seed: int) -> None:
            chance = random.Random(seed)
            for _ in range(60):
                key = chance.choice(keys)
                match chance.randrange(6):
                    case 0 | 1:
                        store.save({key: (_entry(key.encode() * chance.randrange(1, 2000)), KEEP)})
                    case 2:
                        store.remove([key])
                    case _:
                        asked = chance.sample(keys, 4)
                        for name, record in zip(asked, store.load(asked), strict=True):
                            assert record is None or isinstance(record, Entry)
                            assert record is None or record.body[: len(name)] == name.encode(), "what was saved under another key"

        with ThreadPoolExecutor(8) as threads:
            list(threads.map(work, range(8)))

    def test_closed_it_misses(self, store: Store) -> None:
        store.save({"a": (_entry(), KEEP)})
        store.close()
        store.close()
        store.save({"b": (_entry(), KEEP)})
        store.save({"c": (Mark("c"), KEEP)})
        store.remove(["b"])
        assert list(store.load(["b"])) == [None]


def _bodies(store: Store, *keys: str) -> Sequence[bytes | None]:
    return [record.body if isinstance(record, Entry) else None for record in store.load(keys)]
