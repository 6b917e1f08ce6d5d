from __future__ import annotations

import logging
import random
import re
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import redis
import valkey

from resilient.core.entry import Entry, Mark, Variants
from resilient.stores import RedisStore

from .conftest import Server, entry, in_child
from .killing import KEYS, killed, whole

KEEP = 3600.0


def stored(server: Server, **settings: Any) -> RedisStore:
    """A store that another process might have: it knows nothing but the server."""
    return RedisStore(server.url, **({"l1_bytes": 0, "timeout": 5.0} | settings))


def bodies(store: RedisStore, *keys: str) -> list[bytes | None]:
    return [record.body if isinstance(record, Entry) else None for record in store.load(keys)]


def saved(store: RedisStore, key: str = "a", body: bytes = b"green", keep: float = KEEP) -> None:
    store.save({key: (entry(body), keep)})
    assert store.flush(20)


def records(server: Server) -> list[bytes]:
    return [name for name in server.client.scan_iter() if not name.endswith(b":epoch")]


def commands(server: Server) -> dict[str, int]:
    return {name[8:]: told["calls"] for name, told in server.client.info("commandstats").items()}


def test_another_process_sees_it(server: Server) -> None:
    with stored(server) as one, stored(server) as other:
        saved(one)
        one.save({"m": (Mark("m"), KEEP), "v": (Variants((("accept",),), ("a",)), KEEP)})
        assert one.flush(20)
        assert bodies(other, "a") == [b"green"]
        assert other.load(["m", "v"]) == [Mark("m"), Variants((("accept",),), ("a",))]
        other.remove(["a"])
        assert bodies(one, "a") == [None]


def test_a_load_is_one_round_trip(server: Server) -> None:
    with stored(server) as store:
        saved(store)
        store.load(["a"])
        server.client.config_resetstat()
        store.load(["a", "g|https://h", "g|https://h/a", "v"])
        assert {name: calls for name, calls in commands(server).items() if name != "config|resetstat"} == {"mget": 1}


def test_the_server_forgets_by_itself(server: Server) -> None:
    with stored(server) as store:
        saved(store, keep=100.0)
        (name,) = records(server)
        assert 99_000 < server.client.pttl(name) <= 100_000
        saved(store, "b", keep=1e30)


def test_names_and_what_is_read_of_them_tell_nothing(server: Server) -> None:
    with stored(server, secret="correct horse battery") as store, stored(server) as plain:
        saved(store, "e|user token|https://host/path?secret=word")
        saved(plain, "e|user token|https://host/path?secret=word")
        names = records(server)
        assert len(names) == 2, "a secret makes other names"
        for name in names:
            assert name.startswith(b"resilient:cache:1:")
            assert not any(word in name for word in (b"token", b"host", b"secret"))


def test_another_secret_or_prefix_is_another_cache(server: Server) -> None:
    with stored(server, secret=b"s" * 16) as one, stored(server, secret=b"t" * 16) as two, stored(server, prefix="other:") as three:
        saved(one)
        assert bodies(two, "a") == bodies(three, "a") == [None]
        assert two.corrupt == three.corrupt == 0


def test_records_that_somebody_else_wrote_are_refused(server: Server) -> None:
    with stored(server, secret=b"s" * 16) as store:
        saved(store)
        (name,) = records(server)
        good = server.client.get(name)
        with stored(server, prefix="elsewhere:") as forger:
            saved(forger, "a", b"poison")
            (forged,) = [value for other in records(server) if other != name and (value := server.client.get(other))]
        server.client.set(name, good[:16] + forged[16:])
        assert bodies(store, "a") == [None]
        server.client.set(name, good)
        assert bodies(store, "a") == [b"green"]
        saved(store, "b", b"blue")
        (other,) = [other for other in records(server) if other.startswith(b"resilient") and other != name]
        server.client.set(name, server.client.get(other))
        assert bodies(store, "a") == [None], "moved there from another key"
        assert store.corrupt == 2


@pytest.mark.parametrize(
    "garbage", [b"", b"x", b"\xff" * 15, b"\0" * 16, b"rsc", random.Random(1).randbytes(5000), b"\0" * 16 + b"rscE" + b"\1" * 40]
)
def test_garbage_is_a_miss_and_counted(server: Server, garbage: bytes) -> None:
    with stored(server) as store:
        saved(store)
        (name,) = records(server)
        server.client.set(name, garbage)
        assert bodies(store, "a") == [None]
        assert (store.corrupt, store.failures, store.up) == (1, 0, True)
        saved(store)
        assert bodies(store, "a") == [b"green"]


def test_a_corrupt_mark_is_believed_by_nobody(server: Server) -> None:
    with stored(server) as store:
        store.save({"m": (Mark("m"), KEEP)})
        (name,) = records(server)
        server.client.setrange(name, 30, b"!")
        (mark,) = store.load(["m"])
        assert isinstance(mark, Mark) and mark != Mark("m")


def test_other_types_under_our_names_are_a_miss(server: Server) -> None:
    with stored(server) as store:
        saved(store)
        (name,) = records(server)
        for make in (
            lambda: server.client.rpush(name, "a"),
            lambda: server.client.hset(name, "a", "b"),
            lambda: server.client.sadd(name, "a"),
        ):
            server.client.delete(name)
            make()
            assert bodies(store, "a") == [None]
            saved(store)
            assert bodies(store, "a") == [b"green"]
        server.client.delete("resilient:cache:1:epoch")
        server.client.rpush("resilient:cache:1:epoch", "a")
        assert bodies(store, "a") == [None]
        assert store.up


def test_what_is_too_large_is_refused_and_what_it_would_replace_is_gone(server: Server) -> None:
    with stored(server, max_record=5000) as store:
        saved(store)
        saved(store, "a", bytes(5000))
        assert store.refused == 1
        assert records(server) == []


def test_what_cannot_be_said_is_refused(server: Server) -> None:
    with stored(server) as store:
        saved(store)
        store.save({"a": (entry(fields=((b"a\n", b"b"),)), KEEP), "b": (entry(lifetime=float("inf")), KEEP), "c": (entry(), KEEP)})
        assert store.flush(20)
        assert bodies(store, "a", "b", "c") == [None, None, b"green"]
        assert (store.refused, store.failures) == (2, 0)


def test_clear_is_seen_by_all_and_deletes_nothing_of_others(server: Server) -> None:
    server.client.set("theirs", "a")
    with stored(server) as one, stored(server) as two:
        saved(one)
        saved(two, "b")
        two.save({"m": (Mark("m"), KEEP)})
        one.clear()
        assert bodies(two, "a", "b") == bodies(one, "a", "b") == [None, None]
        assert one.load(["m"]) == [Mark("m")]
        saved(two, "b", b"new")
        assert bodies(one, "b") == [b"new"]
    assert server.client.get("theirs") == b"a"


def test_a_server_that_was_emptied_is_begun_anew(server: Server) -> None:
    with stored(server) as store:
        saved(store)
        server.client.flushall()
        assert bodies(store, "a") == [None]
        saved(store)
        assert bodies(store, "a") == [b"green"]


# -- clients -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("module", [redis, valkey])
def test_a_client_of_ones_own_is_not_closed(server: Server, module: Any) -> None:
    kind = module.Redis if module is redis else module.Valkey
    client = kind(port=server.port)
    with RedisStore(client, l1_bytes=0) as store:
        saved(store)
        assert bodies(store, "a") == [b"green"]
    assert client.ping()
    client.close()


@pytest.mark.parametrize("scheme", ["redis", "valkey"])
def test_urls(server: Server, scheme: str) -> None:
    with RedisStore(server.url.replace("redis:", scheme + ":"), l1_bytes=0, timeout=5.0) as store:
        saved(store)
        assert bodies(store, "a") == [b"green"]


@pytest.mark.parametrize(
    ("url", "settings", "error", "said"),
    [
        ("http://127.0.0.1", {}, ValueError, "url must begin with"),
        ("redis://127.0.0.1:port", {}, ValueError, "url: Port could not"),
        (7, {}, TypeError, "url must be"),
        (redis.asyncio.Redis(), {}, TypeError, "url must be a synchronous client"),
        (redis.Redis(decode_responses=True), {}, ValueError, "without decode_responses"),
        ("redis://", {"secret": "short"}, ValueError, "secret must have at least 16"),
        ("redis://", {"secret": 7}, TypeError, "secret must be"),
        ("redis://", {"prefix": ""}, ValueError, "prefix"),
        ("redis://", {"timeout": 0}, ValueError, "timeout"),
        ("redis://", {"max_record": 10}, ValueError, "max_record"),
        ("redis://", {"connections": 0}, ValueError, "connections"),
    ],
)
def test_settings(url: Any, settings: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        RedisStore(url, **settings)


def test_the_rights_that_the_documentation_gives_are_enough_and_no_more_than_that(server: Server) -> None:
    page = (Path(__file__).parents[2] / "docs" / "stores.md").read_text(encoding="utf-8")
    rule = re.search(r"`ACL (SETUSER cache [^`]*)`", page)
    assert rule is not None
    server.client.execute_command("ACL", *rule[1].split())
    try:
        with RedisStore(server.url.replace("//", "//cache:password@").replace("/0", "/3"), l1_bytes=0, timeout=5.0) as store:
            saved(store)
            store.save({"m": (Mark("m"), KEEP)})
            assert store.load(["a", "m"]) == [store.load(["a"])[0], Mark("m")]
            store.remove(["a"])
            store.clear()
            assert (store.failures, store.up) == (0, True)
        with redis.Redis(port=server.port, username="cache", password="password") as client:
            for command in ("FLUSHALL", "KEYS *", "GET theirs", "CONFIG GET dir"):
                with pytest.raises(redis.exceptions.NoPermissionError):
                    client.execute_command(*command.split())
    finally:
        server.client.execute_command("ACL", "DELUSER", "cache")


def test_a_wrong_password_is_a_miss_that_is_told(server: Server, caplog: pytest.LogCaptureFixture) -> None:
    with RedisStore(server.url.replace("//", "//nobody:secret-word@"), timeout=5.0) as store:
        for _ in range(5):
            assert bodies(store, "a") == [None]
        assert not store.up
    assert "AuthenticationError" in caplog.text
    assert "secret-word" not in caplog.text


def test_a_child_has_connections_of_its_own(server: Server) -> None:
    with stored(server, trust=0) as store:
        saved(store)

        def child() -> None:
            for _ in range(20):
                assert bodies(store, "a") == [b"green"]
            saved(store, "b", b"from the child")

        assert in_child(child) == 0
        assert bodies(store, "a", "b") == [b"green", b"from the child"]
        assert (store.failures, store.corrupt) == (0, 0)


# -- harm --------------------------------------------------------------------------------------------------------------


def test_it_starts_without_a_server(mortal: Server) -> None:
    mortal.stop()
    with RedisStore(mortal.url) as store:
        assert bodies(store, "a") == [None]
        store.save({"a": (entry(), KEEP)})
        assert bodies(store, "a") == [b"green"]


def test_a_server_that_is_gone_costs_next_to_nothing_and_is_found_again(mortal: Server, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, logger="resilient")
    with stored(mortal, timeout=0.5) as store:
        saved(store)
        mortal.stop()
        for _ in range(50):
            assert bodies(store, "a") == [None]
        assert 3 <= store.failures < 10
        assert not store.up
        began = time.monotonic()
        for _ in range(1000):
            store.load(["a"])
        assert time.monotonic() - began < 1
        mortal.start()
        until = time.monotonic() + 30
        while not store.up and time.monotonic() < until:
            store.load(["a"])
            time.sleep(0.01)
        saved(store)
        assert bodies(store, "a") == [b"green"]
    assert len(caplog.records) == 2


def test_a_server_that_hangs_is_a_miss_in_time_and_its_late_answer_nobodys(mortal: Server) -> None:
    with stored(mortal, timeout=0.1) as store:
        saved(store, "a", b"green")
        saved(store, "b", b"blue")
        assert bodies(store, "a") == [b"green"]
        mortal.hang()
        began = time.monotonic()
        assert bodies(store, "a") == [None]
        assert time.monotonic() - began < 1
        for _ in range(100):
            assert bodies(store, "a") == [None]
        assert time.monotonic() - began < 3
        mortal.resume()
        until = time.monotonic() + 30
        while bodies(store, "b") == [None] and time.monotonic() < until:
            time.sleep(0.01)
        assert bodies(store, "b", "a") == [b"blue", b"green"]
        assert store.up


def test_the_first_level_goes_on_without_the_server(mortal: Server) -> None:
    with RedisStore(mortal.url, timeout=0.5, trust=0.01) as store:
        saved(store)
        store.load(["a", "m"])
        mortal.stop()
        time.sleep(0.02)
        assert bodies(store, "a", "m") == [b"green", None]
        store.save({"b": (entry(b"blue"), KEEP)})
        assert bodies(store, "b", "m") == [b"blue", None]


def test_a_mark_that_was_saved_in_an_outage_is_written_before_anything_is_read(mortal: Server) -> None:
    with stored(mortal, timeout=0.5) as store, stored(mortal) as other:
        saved(store)
        mortal.hang()
        store.save({"m": (Mark("m"), KEEP)})
        store.remove(["a"])
        assert store.load(["a", "m"]) == [None, None]
        mortal.resume()
        assert store.flush(30), "though nobody asks"
        assert other.load(["a", "m"]) == [None, Mark("m")]
        assert store.load(["a", "m"]) == [None, Mark("m")]


def test_a_server_that_refuses_writes_refuses_marks_too(mortal: Server) -> None:
    with stored(mortal) as store:
        saved(store)
        mortal.client.config_set("maxmemory", "1")
        store.save({"b": (entry(), KEEP)})
        assert not store.flush(0.0) or store.drops == 1
        assert bodies(store, "a") == [b"green"]
        store.save({"m": (Mark("m"), KEEP)})
        assert bodies(store, "a") == [None], "it may be what the mark is to end"
        mortal.client.config_set("maxmemory", "0")
        assert store.flush(30)
        assert bodies(store, "a") == [b"green"]
        assert store.load(["m"]) == [Mark("m")]


def test_connections_are_bounded_and_none_in_time_is_no_failure(server: Server) -> None:
    with stored(server, connections=1, timeout=0.05) as store:
        saved(store)
        assert store.store._ask(lambda key: bodies(store, key), "a") == [None]
        assert (store.busy, store.failures, store.up) == (1, 0, True)
        assert bodies(store, "a") == [b"green"]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_killed_at_any_point_a_writer_leaves_whole_records(server: Server) -> None:
    chance = random.Random(12)
    seen = 0
    for seed in range(40):
        killed(lambda: stored(server), seed, chance.random() ** 2 * 0.2)
        with stored(server) as store:
            found = [record for record in store.load([f"entry {number}" for number in range(KEYS)]) if record is not None]
            assert all(map(whole, found))
            assert all(mark is None or isinstance(mark, Mark) for mark in store.load([f"mark {number}" for number in range(KEYS)]))
            assert (store.corrupt, store.failures) == (0, 0)
            seen += len(found)
    assert seen > 100, "they were killed at work"
    assert all(server.client.pttl(name) > 0 for name in records(server)), "each has its time to live"


STRESS = """
import random, sys, threading, time
from resilient.core.entry import Entry, Mark
from resilient.stores import RedisStore

store = RedisStore(sys.argv[1], timeout=5.0, connections=4, trust=0.01, l1_bytes=2**20)
wrong = []

def work(seed):
    chance = random.Random(seed)
    try:
        for _ in range(100):
            key = "key %d" % chance.randrange(30)
            wall = time.time()
            body = key.encode() + bytes(chance.randrange(30_000))
            store.save({key: (Entry(status=200, body=body, requested_at=wall, received_at=wall, arrived=0.0), 3600.0)})
            if chance.random() < 0.1:
                store.save({"mark %d" % chance.randrange(30): (Mark(str(seed)), 3600.0)})
            asked = ["key %d" % chance.randrange(30) for _ in range(4)]
            for name, record in zip(asked, store.load(asked)):
                assert record is None or record.body.startswith(name.encode()), name
            assert store.l1_size <= 2**20
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
def test_eight_threads_in_each_of_two_processes(server: Server) -> None:
    command = [sys.executable, "-W", "error", "-c", STRESS, server.url]
    processes = [subprocess.Popen([*command, str(number)], stderr=subprocess.PIPE, text=True) for number in range(2)]
    for process in processes:
        _, told = process.communicate(timeout=200)
        assert process.returncode == 0, told
