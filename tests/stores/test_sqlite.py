from __future__ import annotations

import contextlib
import logging
import os
import random
import sqlite3
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from resilient.core.entry import Entry, Mark
from resilient.stores import SQLiteStore
from resilient.stores.connections import Connections
from resilient.stores.database import Database

from .conftest import entry, in_child
from .killing import killed, whole

KEEP = 3600.0
MIB = 2**20


def stored(path: Path, **settings: object) -> SQLiteStore:
    """A store that another process might have: it knows nothing but the file."""
    return SQLiteStore(path, **({"l1_bytes": 0, "timeout": 5.0} | settings))


def bodies(store: SQLiteStore, *keys: str) -> list[bytes | None]:
    return [record.body if isinstance(record, Entry) else None for record in store.load(keys)]


def saved(store: SQLiteStore, key: str = "a", body: bytes = b"green", keep: float = KEEP) -> None:
    store.save({key: (entry(body), keep)})
    assert store.flush(20)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "cache.db"


def test_it_is_there_after_a_restart(path: Path) -> None:
    with stored(path) as store:
        saved(store)
        store.save({"m": (Mark("m"), KEEP)})
    with stored(path) as store:
        assert bodies(store, "a") == [b"green"]
        assert store.load(["m"]) == [Mark("m")]
        assert (store.failures, store.corrupt, store.up) == (0, 0, True)


def test_another_process_sees_it(path: Path) -> None:
    with stored(path) as one, stored(path) as other:
        saved(one)
        assert bodies(other, "a") == [b"green"]
        other.remove(["a"])
        assert bodies(one, "a") == [None]


def test_more_keys_than_a_row_has_columns(path: Path) -> None:
    with stored(path) as store:
        store.save({f"key {number}": (Mark(str(number)), KEEP) for number in range(0, 2500, 100)})
        found = store.load([f"key {number}" for number in range(2500)])
        assert found == [None if number % 100 else Mark(str(number)) for number in range(2500)]


def test_a_number_is_no_other_records_in_another_file(path: Path, tmp_path: Path) -> None:
    numbers = []
    for name in ("one.db", "other.db"):
        with stored(tmp_path / name) as store:
            saved(store)
        with contextlib.closing(sqlite3.connect(tmp_path / name)) as connection:
            numbers += [connection.execute("SELECT id FROM records").fetchone()]
    assert numbers[0] != numbers[1]


def test_what_is_read_again_is_what_is_there_now(path: Path) -> None:
    with stored(path) as one, stored(path) as other:
        for body in (b"green", b"blue", b"red"):
            saved(other, "a", body)
            saved(other, "b", body)
            for _ in range(3):
                assert bodies(one, "a", "b", "a", "c") == [body, body, body, None]
        other.remove(["b"])
        assert bodies(one, "a", "b") == [b"red", None]
        other.clear()
        assert bodies(one, "a") == [None]


def test_what_is_known_ends_in_its_time_and_its_use_is_noted(path: Path) -> None:
    now = [1000.0]
    with stored(path, wall=lambda: now[0]) as store:
        saved(store, "a", keep=200.0)
        for seconds in (0.0, 1.0, 61.0, 62.0, 150.0, 199.0):
            now[0] = 1000.0 + seconds
            assert bodies(store, "a") == [b"green"]
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("SELECT used FROM records").fetchone() == (1150.0,)
        now[0] = 1200.0
        assert bodies(store, "a") == [None]


def test_a_use_that_cannot_be_noted_at_once_is_noted_later(path: Path) -> None:
    now = [1000.0]
    with stored(path, wall=lambda: now[0], timeout=0.01) as store, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        saved(store, "a")
        now[0] = 1100.0
        other.execute("BEGIN IMMEDIATE")
        assert bodies(store, "a") == [b"green"]
        other.execute("ROLLBACK")
        now[0] = 1116.0
        assert bodies(store, "a") == [b"green"]
        assert other.execute("SELECT used FROM records").fetchone() == (1100.0,)


def test_what_goes_between_two_questions_is_a_miss(path: Path) -> None:
    with stored(path) as store, contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
        saved(store, "a")
        saved(store, "b")
        store.load(["b"])
        database = store.store
        look = database._known.look

        def gone(keys: Any, numbers: Any) -> Any:
            found = look(keys, numbers)
            other.execute("DELETE FROM records WHERE key = 'a'")
            return found

        database._known.look = gone
        assert bodies(store, "a", "b") == [None, b"green"]
        assert (store.corrupt, store.failures) == (0, 0)


def test_the_file_is_for_its_owner_alone(path: Path) -> None:
    with stored(path) as store:
        saved(store)
        modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
        assert modes == dict.fromkeys(["cache.db", "cache.db-wal", "cache.db-shm"], 0o600)
    assert [file.name for file in path.parent.iterdir()] == ["cache.db"]


@pytest.mark.parametrize(
    ("settings", "error"),
    [({"max_bytes": 1000}, ValueError), ({"timeout": 0}, ValueError), ({"connections": 0}, ValueError), ({"trust": -1}, ValueError)],
)
def test_settings(path: Path, settings: dict[str, object], error: type[Exception]) -> None:
    with pytest.raises(error, match=next(iter(settings))):
        SQLiteStore(path, **settings)


def test_where_it_cannot_be(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "cache.db"):
        with pytest.raises(ValueError, match="path"):
            SQLiteStore(path)


def test_another_programs_database_is_refused(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE theirs (a)")
        connection.commit()
    with pytest.raises(ValueError, match="path must not be another program's database"):
        SQLiteStore(path)


def test_a_database_that_another_program_makes_later_is_left_alone(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with stored(path) as store:
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE theirs (a)")
            connection.commit()
        for _ in range(5):
            assert store.load(["a"]) == [None]
        store.save({"a": (entry(), KEEP)})
        store.flush(5)
        assert not store.up
    assert "another program's database" in caplog.text
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("theirs",)]


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_the_pages_in_use_stay_below_the_bound_and_near_it(path: Path) -> None:
    chance = random.Random(5)
    with stored(path, max_bytes=4 * MIB) as store:
        for number in range(1500):
            store.save({f"key {number}": (entry(chance.randbytes(chance.randrange(20_000))), KEEP)})
            if number % 20 == 0:
                assert store.flush(20)
                assert store.size <= 4 * MIB
        assert store.flush(20)
        assert 0.9 * 4 * MIB < store.size <= 4 * MIB
        assert store.evictions > 500
        # Its journal is written back in steps of a thousand pages.
        assert sum(file.stat().st_size for file in path.parent.iterdir()) < 4 * MIB * 5 // 4 + 6 * MIB
    assert path.stat().st_size <= 4 * MIB * 5 // 4 + 64 * 4096


def test_many_small_records_stay_below_the_bound_too(path: Path) -> None:
    with stored(path, max_bytes=MIB) as store:
        for batch in range(60):
            store.save({f"key {batch} {number}": (entry(b""), KEEP) for number in range(100)})
            assert store.flush(20)
            assert store.size <= MIB
        assert store.evictions > 1000


def test_what_is_expired_goes_first_then_what_was_used_least_recently(path: Path) -> None:
    now = time.time()
    database = Database(str(path), max_bytes=MIB, timeout=5.0, connections=2, wall=lambda: now)
    names = [f"key {number}" for number in range(9)]
    for number, name in enumerate(names):
        now += 100
        database.save({name: (entry(bytes(105_000)), 350.0 if number == 3 else 1e6)})
    now += 100
    assert database.load(["key 0"])[0] is not None, "used just now, which is noted with the next load"
    now += 100
    database.save({"one": (entry(bytes(105_000)), 1e6)})
    assert [name for name in names if database.load([name])[0] is None] == ["key 3"]
    assert database.evictions == 0
    database.save({"two": (entry(bytes(105_000)), 1e6)})
    assert [name for name in names if database.load([name])[0] is None] == ["key 1", "key 3"]
    assert database.load(["one", "two"]).count(None) == 0
    assert database.evictions == 1
    database.close()


def test_what_is_too_large_is_refused_and_what_it_would_replace_is_gone(path: Path) -> None:
    with stored(path, max_bytes=MIB) as store:
        saved(store)
        saved(store, "a", bytes(MIB // 8))
        assert store.refused == 1
        assert bodies(store, "a") == [None]


def test_marks_beyond_their_bound_take_along_what_is_older(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("resilient.stores.database.MAX_MARKS", 2)
    now = time.time()
    database = Database(str(path), max_bytes=MIB, timeout=5.0, connections=2, wall=lambda: now)
    names = ["a", "m1", "b", "m2", "c", "m3", "d"]
    for name in names:
        now += 10
        database.save({name: (Mark(name) if name.startswith("m") else entry(), KEEP)})
    found = dict(zip(names, database.load(names), strict=True))
    assert [name for name, record in found.items() if record is not None] == ["b", "m2", "c", "m3", "d"]
    database.close()


@pytest.mark.slow
def test_marks_stay_while_there_is_anything_else_to_go(path: Path) -> None:
    with stored(path, max_bytes=MIB) as store:
        store.save({f"mark {number}": (Mark("m"), KEEP) for number in range(100)})
        for number in range(60):
            saved(store, f"key {number}", bytes(60_000))
        assert store.load([f"mark {number}" for number in range(100)]) == [Mark("m")] * 100
        for number in range(100):
            store.save({f"{number} {n} {'long' * 100}": (Mark("m" * 100), KEEP) for n in range(100)})
            assert store.size <= MIB, "where there are but marks, the oldest go"


# -- harm --------------------------------------------------------------------------------------------------------------


def test_a_corrupt_record_is_a_miss_and_counted(path: Path) -> None:
    with stored(path) as store:
        saved(store)
        saved(store, "b")
        store.save({"m": (Mark("m"), KEEP)})
        with contextlib.closing(sqlite3.connect(path)) as connection:
            connection.execute("UPDATE records SET data = substr(data, 1, 50) WHERE key = 'a'")
            connection.execute("UPDATE records SET data = 'text' WHERE key = 'm'")
            connection.execute("UPDATE records SET data = NULL || data WHERE key = 'x'")
            connection.commit()
        assert bodies(store, "a", "b") == [None, b"green"]
        (mark,) = store.load(["m"])
        assert isinstance(mark, Mark) and mark != Mark("m"), "nobody may believe what was stored under another token"
        assert store.corrupt == 2
        assert store.failures == 0


@pytest.mark.parametrize("harm", ["header", "middle", "text", "cut"])
def test_a_corrupt_file_is_left_and_the_next_one_begun(path: Path, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, logger="resilient")
    with stored(path) as store:
        store.save({f"key {number}": (entry(bytes(3000)), KEEP) for number in range(100)})
        assert store.flush(20)
    good = path.read_bytes()
    bad = {
        "header": b"\xff" * 4096 + good[4096:],
        "middle": good[:2000] + b"\xff" * (len(good) - 2000),
        "text": b"no database at all\n" * 1000,
        "cut": good[: len(good) // 3],
    }[harm]
    path.write_bytes(bad)
    with stored(path) as store, stored(path) as other:
        for _ in range(3):
            store.load([f"key {number}" for number in range(100)])
            saved(store)
            if (path.parent / "cache.db.1").exists():
                break
        saved(store)
        assert bodies(store, "a") == bodies(other, "a") == [b"green"]
        assert store.corrupt == 1
        assert store.failures == 1
        assert store.up
    assert len([record for record in caplog.records if "is left as it is, and" in record.message]) == 1
    assert path.exists()
    with stored(path) as store:
        assert bodies(store, "a") == [b"green"]


def test_the_next_file_that_another_process_began_is_taken_up(path: Path) -> None:
    with stored(path) as store:
        saved(store)
        Connections(str(path), MIB, 1.0, 1)._leave(str(path), "is corrupt")
        assert store.load(["a"]) == [None]
        saved(store, "a", b"new")
        with stored(path) as other:
            assert bodies(other, "a") == [b"new"]
        assert (store.failures, store.corrupt) == (0, 0)


def test_what_cannot_be_said_is_refused(path: Path) -> None:
    with stored(path) as store:
        saved(store)
        store.save({"a": (entry(fields=((b"a\n", b"b"),)), KEEP), "b": (entry(lifetime=float("inf")), KEEP), "c": (entry(), KEEP)})
        assert store.flush(20)
        assert bodies(store, "a", "b", "c") == [None, None, b"green"]
        assert (store.refused, store.failures) == (2, 0)


def test_no_more_than_two_files_are_kept(path: Path) -> None:
    for number in range(4):
        file = path if number == 0 else path.with_name(f"cache.db.{number}")
        file.write_bytes(b"no database at all" * 100)
        with stored(path) as store:
            assert store.load(["a"]) == [None]
            saved(store)
            assert bodies(store, "a") == [b"green"]
    assert sorted(file.name for file in path.parent.iterdir()) == ["cache.db.3", "cache.db.4"]


def test_a_file_of_an_earlier_version_is_left_and_one_of_a_later_untouched(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with stored(path) as store:
        saved(store)
    for version, up in [(0, True), (2, False)]:
        file = path if up else path.with_name("cache.db.1")
        with contextlib.closing(sqlite3.connect(file)) as connection:
            connection.execute(f"PRAGMA user_version = {version}")
        caplog.clear()
        with stored(path) as store:
            for _ in range(5):
                store.load(["a"])
            store.save({"a": (entry(b"new"), KEEP)})
            store.flush(2)
            assert store.up is up
            assert bodies(store, "a") == [b"new" if up else None]
        assert f"is of version {version}" in caplog.text
    assert sorted(file.name for file in path.parent.iterdir()) == ["cache.db", "cache.db.1"]


def test_a_lock_that_is_held_for_long_is_a_miss_in_time(path: Path) -> None:
    with SQLiteStore(path, timeout=0.05, l1_bytes=0) as store:
        saved(store)
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            began = time.monotonic()
            store.save({"m": (Mark("m"), KEEP)})
            assert time.monotonic() - began < 2
            assert store.busy >= 1
            assert store.load(["a"]) == [None], "the mark is owed"
            other.execute("COMMIT")
        assert store.flush(20)
        assert bodies(store, "a") == [b"green"]
        assert store.load(["m"]) == [Mark("m")]
        assert store.up


def test_a_disk_that_is_full_is_no_error(path: Path) -> None:
    with stored(path, max_bytes=MIB) as store:
        saved(store)
        with store.store.connections.reading() as connection:
            (pages,) = connection.execute("PRAGMA page_count").fetchone()
            connection.execute(f"PRAGMA max_page_count = {pages}")
        for number in range(5):
            store.save({f"large {number}": (entry(bytes(60_000)), KEEP)})
            store.flush(20)
        assert store.drops > 0
        assert store.failures > 0
        with stored(path) as other:
            assert bodies(other, "a") == [b"green"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_any_point_it_stays_readable(path: Path) -> None:
    chance = random.Random(11)
    seen = 0
    for seed in range(40):
        # Its bound has it make room all the time.
        killed(lambda: stored(path, max_bytes=4 * MIB, timeout=1.0), seed, chance.random() ** 2 * 0.2)
        with contextlib.closing(sqlite3.connect(path)) as connection:
            assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
        with stored(path, max_bytes=4 * MIB) as store:
            keys = [f"entry {number}" for number in range(12)]
            found = [record for record in store.load(keys) if record is not None]
            assert all(map(whole, found))
            assert all(mark is None or isinstance(mark, Mark) for mark in store.load([f"mark {number}" for number in range(12)]))
            saved(store, f"after {seed}")
            assert bodies(store, f"after {seed}") == [b"green"]
            assert store.size <= 4 * MIB
            assert (store.corrupt, store.failures) == (0, 0)
            seen += len(found)
    assert seen > 100, "they were killed at work"
    assert [file.name for file in path.parent.iterdir()] == ["cache.db"]


STRESS = """
import random, sys, threading, time
from resilient.core.entry import Entry, Mark
from resilient.stores import SQLiteStore

store = SQLiteStore(sys.argv[1], max_bytes=2 * 2**20, timeout=2.0, connections=4, trust=0.05)
wrong = []

def work(seed):
    chance = random.Random(seed)
    try:
        for _ in range(80):
            key = "key %d" % chance.randrange(30)
            wall = time.time()
            body = key.encode() + bytes(chance.randrange(30_000))
            store.save({key: (Entry(status=200, body=body, requested_at=wall, received_at=wall, arrived=0.0), 3600.0)})
            if chance.random() < 0.1:
                store.save({"mark %d" % chance.randrange(30): (Mark(str(seed)), 3600.0)})
            asked = ["key %d" % chance.randrange(30) for _ in range(4)]
            for name, record in zip(asked, store.load(asked)):
                assert record is None or record.body.startswith(name.encode()), name
            assert store.size <= store.limit, store.size
    except BaseException as error:
        wrong.append(repr(error))

threads = [threading.Thread(target=work, args=(int(sys.argv[2]) * 100 + number,)) for number in range(8)]
for thread in threads: thread.start()
for thread in threads: thread.join()
assert store.flush(30)
store.close()
assert not wrong, wrong
assert store.corrupt == store.failures == 0, (store.corrupt, store.failures)
"""


@pytest.mark.timeout(300)
def test_eight_threads_in_each_of_two_processes(path: Path) -> None:
    command = [sys.executable, "-W", "error", "-c", STRESS, str(path)]
    processes = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(2)]
    for process in processes:
        _, told = process.communicate(timeout=200)
        assert process.returncode == 0, told
    with stored(path, max_bytes=2 * MIB) as store:
        saved(store, "after")
        assert store.size <= 2 * MIB
    assert path.stat().st_size <= 2 * MIB * 5 // 4 + 64 * 4096


def test_a_child_opens_the_file_itself(path: Path) -> None:
    with SQLiteStore(path, timeout=5.0, trust=0) as store:
        saved(store)

        def child() -> None:
            assert bodies(store, "a") == [b"green"]
            saved(store, "b", b"from the child")
            store.save({"m": (Mark("m"), KEEP)})

        assert in_child(child) == 0
        assert bodies(store, "a", "b") == [b"green", b"from the child"]
        assert store.load(["m"]) == [Mark("m")]
        saved(store, "c")
    with contextlib.closing(sqlite3.connect(path)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]


def test_no_more_connections_than_there_may_be(path: Path) -> None:
    with stored(path, connections=2) as store:
        saved(store)
        database = store.store
        with database.connections.reading(), database.connections.reading():
            began = threading.Event()
            found: list[object] = []

            def third() -> None:
                began.set()
                found.extend(store.load(["a"]))

            thread = threading.Thread(target=third)
            thread.start()
            assert began.wait(20)
        thread.join(20)
        assert isinstance(found[0], Entry)
        impatient = stored(path, connections=1, timeout=0.01)
        with impatient.store.connections.reading():
            assert impatient.load(["a"]) == [None]
        assert (impatient.busy, impatient.failures) == (1, 0)
        impatient.close()


def test_a_file_that_cannot_be_written(path: Path) -> None:
    with stored(path) as store:
        saved(store)
    os.chmod(path, 0o400)
    if os.access(path, os.W_OK):  # root may
        return
    with stored(path) as store:
        store.save({"b": (entry(), KEEP)})
        store.flush(5)
        assert store.drops == 1
