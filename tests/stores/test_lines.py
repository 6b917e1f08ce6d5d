"""Connections to a server without redis-py's client: what it does for a command is done all the same."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis import exceptions
from redis.backoff import NoBackoff
from redis.retry import Retry

from resilient.stores.lines import Client, Line, Lines

from .conftest import Server

NAMES = ["a", "b"]


@pytest.fixture
def made() -> list[Any]:
    return []


@pytest.fixture
def lines(server: Server, made: list[Any]) -> Iterator[Lines]:
    lines = Lines(lambda: pool(server, made))
    yield lines
    lines.close()


def pool(server: Server, made: list[Any], **settings: Any) -> Any:
    """One that tells what connections it has made."""
    pool = redis.ConnectionPool.from_url(server.url, socket_timeout=5.0, retry=Retry(NoBackoff(), 0), **settings)
    make = pool.make_connection

    def make_connection() -> Any:
        made.append(make())
        return made[-1]

    pool.make_connection = make_connection
    return pool


@pytest.fixture(params=["lines", "client"])
def line(request: pytest.FixtureRequest, server: Server) -> Iterator[Line]:
    if request.param == "lines":
        yield request.getfixturevalue("lines")
        return
    with redis.Redis(port=server.port) as client:
        yield Client(client)


def test_what_is_sent_is_there(line: Line) -> None:
    data = bytes(range(256)) * 1024
    told = line.send([("SET", "a", data, "PX", 100_000), ("SET", "a", b"late", "NX"), ("GET", "a"), ("DEL", "a", "b"), ("SET", "b", 7)])
    assert told[1:4] == [None, data, 1]
    request = line.request(NAMES)
    assert [line.mget(request) for _ in range(2)] == [[None, b"7"]] * 2


def test_what_is_refused_is_told_once_all_is_answered(line: Line) -> None:
    line.send([("RPUSH", "list", "x")])
    for _ in range(3):
        with pytest.raises(exceptions.ResponseError, match="WRONGTYPE"):
            line.send([("SET", "a", "1"), ("GET", "list"), ("INCRBY", "list", "x"), ("SET", "b", "2")])
        assert line.mget(line.request(NAMES)) == [b"1", b"2"]
    line.send([("DEL", "a", "b")])


def test_one_after_the_other_they_need_but_one_connection(lines: Lines, made: list[Any]) -> None:
    for _ in range(20):
        lines.send([("SET", "a", "1")])
        lines.mget(lines.request(NAMES))
    lines.close()
    assert lines.mget(lines.request(["a"])) == [b"1"], "it is opened again"
    assert len(made) == 1


def test_one_that_was_closed_while_nobody_used_it_is_opened_again(lines: Lines, made: list[Any], server: Server) -> None:
    lines.send([("SET", "a", "1")])
    for _ in range(3):
        assert server.client.client_kill_filter(_type="normal", skipme=True) >= 1
        assert lines.mget(lines.request(NAMES)) == [b"1", None]
    assert len(made) == 1


def test_one_that_was_never_opened_is_tried_but_once(made: list[Any], mortal: Server) -> None:
    lines = Lines(lambda: pool(mortal, made, socket_connect_timeout=5.0))
    lines.send([("SET", "a", "1")])
    mortal.stop()
    for _ in range(3):
        with pytest.raises(exceptions.ConnectionError):
            lines.mget(lines.request(NAMES))
    mortal.start()
    assert lines.mget(lines.request(NAMES)) == [None, None]
    assert len(made) == 1
    lines.close()


def test_a_late_answer_is_nobodys(made: list[Any], mortal: Server) -> None:
    lines = Lines(lambda: pool(mortal, made))
    lines.send([("SET", "a", "1"), ("SET", "b", "2")])
    made[0].disconnect()
    made[0].socket_timeout = 0.05
    mortal.hang()
    with pytest.raises(exceptions.TimeoutError):
        lines.mget(lines.request(["a"]))
    mortal.resume()
    made[0].socket_timeout = 5.0
    assert lines.mget(lines.request(["b"])) == [b"2"]
    lines.close()


def test_who_is_interrupted_leaves_no_answer_behind(lines: Lines, made: list[Any]) -> None:
    lines.send([("SET", "a", "1"), ("SET", "b", "2")])
    read = made[0].read_response

    def interrupted(**how: Any) -> Any:
        raise KeyboardInterrupt

    made[0].read_response = interrupted
    with pytest.raises(KeyboardInterrupt):
        lines.mget(lines.request(["a"]))
    made[0].read_response = read
    assert lines.mget(lines.request(["b"])) == [b"2"]


def test_each_thread_has_its_own_and_they_are_used_again(lines: Lines, made: list[Any], server: Server) -> None:
    lines.send([("SET", str(number), str(number)) for number in range(8)])
    together, read = threading.Barrier(8), [set[bytes]() for _ in range(8)]

    def work(number: int) -> None:
        request = lines.request([str(number)])
        together.wait(30)
        for _ in range(200):
            read[number].update(lines.mget(request))

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert read == [{b"%d" % number} for number in range(8)]
    assert 1 <= len(made) <= 8
    lines.close()
    until = time.monotonic() + 20
    while len(server.client.client_list()) > 1 and time.monotonic() < until:
        time.sleep(0.01)
    assert len(server.client.client_list()) == 1, "all are closed but the test's own"


def test_through_tls_a_password_and_a_socket_of_a_file(server: Server) -> None:
    """What a URL says is for redis-py's connections to do: that they are of the right kind is enough."""
    from resilient.stores.redis import _line

    for url, kind in (
        ("rediss://:word@127.0.0.1:1/2", redis.SSLConnection),
        ("valkeys://127.0.0.1:1", redis.SSLConnection),
        ("unix:///run/none.sock", redis.UnixDomainSocketConnection),
        ("redis://user:word@127.0.0.1:1/2?health_check_interval=7", redis.Connection),
    ):
        line = _line(url, 0.25, 3)
        assert isinstance(line, Lines)
        connection = line._another()
        assert type(connection) is kind
        assert connection.socket_timeout == connection.socket_connect_timeout == 0.25
        with pytest.raises(exceptions.ConnectionError):
            line.mget(line.request(NAMES))
