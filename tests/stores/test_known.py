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
from resilient.stores.known import Known

from .test_codec import records

LAMP = Entry(status=200, fields=((b"Content-Type", b"text/plain"),), body=b"lamp", etag='"1"', lifetime=60.0)


@given(records)
def test_what_comes_back_is_what_was_read(record: Entry | Variants | Mark) -> None:
    known, raw = Known(), encode(record, key="a")
    read = decode(raw, key="a")
    known.put("a", raw, read)
    assert known.get("a", bytes(bytearray(raw))) == read == record
    assert known.get("a", raw + b"x") is None and known.get("b", raw) is None


def test_an_entry_is_each_readers_own() -> None:
    known = Known()
    known.put("a", b"raw", replace(LAMP).place(1000.0, 50.0))
    first = known.get("a", b"raw")
    assert isinstance(first, Entry) and first == LAMP and first.arrived != first.arrived
    first.place(2000.0, 60.0)
    second = known.get("a", b"raw")
    assert isinstance(second, Entry) and second is not first and second.arrived != second.arrived


def test_the_oldest_goes_for_want_of_room() -> None:
    size = 2 * len(b"raw") + len("0") + OVERHEAD
    known = Known(limit=3 * size)
    for key in "0123":
        known.put(key, b"raw", LAMP)
    assert [known.get(key, b"raw") is not None for key in "0123"] == [False, True, True, True]
    assert known.size == 3 * size
    known.put("1", b"raw", LAMP)  # in place of itself
    known.put("large", b"x" * 2 * size, LAMP)  # more than there is room for
    assert [known.get(key, b"raw") is not None for key in "123"] == [True, True, True]
    assert known.size == 3 * size


def test_it_stays_in_bounds_from_many_threads() -> None:
    limit = 10 * OVERHEAD
    known = Known(limit)

    def work(number: int) -> None:
        for turn in range(300):
            key = str((turn * number) % 13)
            known.put(key, b"raw", LAMP)
            assert known.get(key, b"raw") in (LAMP, None)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(1, 5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert known.size == sum(size for _, _, size in known._kept.values()) <= limit


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
