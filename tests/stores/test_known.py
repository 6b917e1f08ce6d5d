"""Records that were read before: the same bytes are taken apart once, and nobody sees what another one does with them."""

from __future__ import annotations

import threading
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given

from resilient.core.entry import OVERHEAD, Entry, Mark, Variants
from resilient.stores import SQLiteStore, codec
from resilient.stores.codec import decode, encode
from resilient.stores.known import Kept, Known

from .test_codec import records

LAMP = Entry(status=200, fields=((b"Content-Type", b"text/plain"),), body=b"lamp", etag='"1"', lifetime=60.0)


def keep(known: Known, key: str, raw: bytes = b"raw", record: Entry | Variants | Mark = LAMP) -> None:
    known.put(key, Kept(raw, record), 2 * len(raw))


@given(records)
def test_what_comes_back_is_what_was_read(record: Entry | Variants | Mark) -> None:
    known, raw = Known(), encode(record, key="a")
    keep(known, "a", raw, decode(raw, key="a"))
    kept = known.get("a", bytes(bytearray(raw)))
    assert kept is not None
    assert [kept.record() for _ in range(3)] == [record] * 3
    assert known.get("a", raw + b"x") is None and known.get("b", raw) is None


def test_an_entry_is_each_readers_own() -> None:
    kept = Kept(7, replace(LAMP))
    given: list[Entry] = []
    for number in range(3):
        entry = kept.record()
        assert isinstance(entry, Entry) and entry == LAMP and entry.arrived != entry.arrived
        entry.place(1000.0 * number, 50.0)
        given.append(entry)
    assert len({id(entry) for entry in given}) == 3


def test_of_many_first_readers_one_has_what_was_read() -> None:
    read = [replace(LAMP) for _ in range(500)]
    all_kept, together = [Kept(7, entry) for entry in read], threading.Barrier(4)
    given: list[list[object]] = [[] for _ in range(4)]

    def work(mine: list[object]) -> None:
        for kept in all_kept:
            together.wait(30)
            mine.append(kept.record())

    threads = [threading.Thread(target=work, args=(mine,)) for mine in given]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    for number, entry in enumerate(read):
        mine = [entries[number] for entries in given]
        assert len({*map(id, mine)}) == 4 and entry in mine
        assert sum(one is entry for one in mine) == 1


def test_the_oldest_goes_for_want_of_room() -> None:
    size = 2 * len(b"raw") + len("0") + OVERHEAD
    known = Known(limit=3 * size)
    for key in "0123":
        keep(known, key)
    assert [known.get(key, b"raw") is not None for key in "0123"] == [False, True, True, True]
    assert known.size == 3 * size
    keep(known, "1")  # in place of itself
    keep(known, "large", b"x" * 2 * size)  # more than there is room for
    assert [known.get(key, b"raw") is not None for key in "123"] == [True, True, True]
    assert known.size == 3 * size


def test_it_stays_in_bounds_from_many_threads() -> None:
    limit = 10 * OVERHEAD
    known = Known(limit)

    def work(number: int) -> None:
        for turn in range(300):
            key = str((turn * number) % 13)
            keep(known, key)
            kept = known.get(key, b"raw")
            assert kept is None or kept.record() == LAMP

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert known.size == sum(size for _, size in known._kept.values()) <= limit


def test_a_hit_of_a_file_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[bytes] = []
    original = codec.decode
    monkeypatch.setattr(codec, "decode", lambda data, **how: read.append(data) or original(data, **how))
    with SQLiteStore(tmp_path / "cache.db", l1_bytes=0, timeout=5) as store:
        store.save({"a": (LAMP, 60.0), "m": (Mark("1"), 60.0)})
        assert store.flush(5)
        for _ in range(3):
            assert store.load(["a", "m"]) == [LAMP, Mark("1")]
        assert len(read) == 2
        store.save({"a": (replace(LAMP, body=b"lamps"), 60.0)})
        assert store.flush(5)
        assert [entry.body for entry in store.load(["a"]) if isinstance(entry, Entry)] == [b"lamps"]
        assert len(read) == 3
        store.clear()
        assert store.load(["a", "m"]) == [None, Mark("1")]
