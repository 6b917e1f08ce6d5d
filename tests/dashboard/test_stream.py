"""The event stream: what a reader is told, in which order, and when it ends."""

from __future__ import annotations

import json
from typing import Any

import anyio
import pytest

from resilient import CircuitBreaker, Resilience
from resilient.dashboard import stream
from resilient.dashboard.board import MOST_STREAMS
from resilient.dashboard.journal import KEPT
from resilient.events import BrownoutChanged
from resilient.testing import FakeClock

from .conftest import Reader, made, reading

pytestmark = pytest.mark.anyio


def happen(resilience: Resilience, times: int = 1) -> None:
    for _ in range(times):
        resilience.outbox.emit(BrownoutChanged(at=resilience.clock.now(), share=0.5, measured=2.0))


def board_of(resilience: Resilience) -> Any:
    return resilience._board


async def test_it_begins_with_the_state_and_goes_on_each_second(app: Any, resilience: Resilience, clock: FakeClock) -> None:
    resilience.dependency("shop")
    async with reading(app) as reader:
        headers = dict(reader.start["headers"])
        assert headers[b"content-type"].startswith(b"text/event-stream")
        assert headers[b"cache-control"] == b"no-store"
        assert headers[b"x-accel-buffering"] == b"no"
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        assert reader.text.startswith("retry: 2000\n\n")
        began = clock.now()
        await reader.until(lambda reader: len(reader.of("state")) == 6)
        assert clock.now() - began <= 5.0
        (first, *others) = reader.of("state")
        assert first.data["dependencies"][0]["calls"] is None
        assert all(part.data["dependencies"][0]["calls"] == 0 for part in others)
        assert not {"events", "history", "cursor"} & first.data.keys()
        assert first.data["controls"] is None
        assert first.id == f"{board_of(resilience).run}-0"


async def test_an_event_is_told_at_once_and_the_state_with_it(app: Any, resilience: Resilience, clock: FakeClock) -> None:
    shop = resilience.dependency("shop", CircuitBreaker())
    async with reading(app) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        await anyio.sleep(1.3)
        before = len(reader.of("state"))
        breaker: Any = shop.breaker
        began = clock.now()
        breaker.open()
        await reader.until(lambda reader: bool(reader.of("log")) and len(reader.of("state")) > before)
        assert clock.now() - began <= 0.25
        (told,) = reader.of("log")
        assert told.data["about"] == "dependency:shop"
        assert told.data["severity"] == "bad"
        assert told.id == f"{board_of(resilience).run}-1"
        assert reader.of("state")[-1].data["dependencies"][0]["state"] == "isolated"


async def test_swarms_of_events_make_few_states(app: Any, resilience: Resilience, clock: FakeClock) -> None:
    async with reading(app) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        for _ in range(100):
            happen(resilience)
            await anyio.sleep(0.01)
        await anyio.sleep(1.1)
        assert len(reader.of("log")) == 100
        assert [part.data["id"] for part in reader.of("log")] == list(range(1, 101))
        assert len(reader.of("state")) <= 10


async def test_who_comes_again_is_told_what_he_has_missed(app: Any, resilience: Resilience) -> None:
    happen(resilience, 3)
    run = board_of(resilience).run
    for path, headers in (("/resilience/stream", {"Last-Event-ID": f"{run}-1"}), (f"/resilience/stream?after={run}-1", {})):
        async with reading(app, path, headers) as reader:
            await reader.until(lambda reader: len(reader.of("state")) == 1)
            assert [(part.id, part.data["id"]) for part in reader.of("log")] == [(f"{run}-2", 2), (f"{run}-3", 3)]
            assert not reader.of("reset")
            assert reader.of("state")[0].id == f"{run}-3"


async def test_who_comes_first_is_told_of_what_comes(app: Any, resilience: Resilience) -> None:
    happen(resilience, 3)
    async with reading(app) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        assert [part.event for part in reader.parts] == ["state"]
        happen(resilience)
        await reader.until(lambda reader: bool(reader.of("log")))
        assert reader.of("log")[0].data["id"] == 4


GARBAGE = [
    "",
    "7",
    "-",
    "a-b",
    "x-1",
    "{run}-",
    "{run}--1",
    "{run}-1e3",
    "{run}-9999",
    "{run}-" + "9" * 5000,
    "\xff-1",
    "{run}-\u00b2",
    "x" * 1_000_000,
]


@pytest.mark.parametrize("name", GARBAGE, ids=range(len(GARBAGE)))
async def test_what_is_no_place_in_this_log_is_answered_with_a_reset(name: str, app: Any, resilience: Resilience) -> None:
    happen(resilience, 2)
    run = board_of(resilience).run
    async with reading(app, headers={"Last-Event-ID": name.replace("{run}", run)}) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        assert [part.event for part in reader.parts] == (["state"] if not name else ["reset", "state"])
        assert reader.parts[0].id == f"{run}-2"


async def test_what_is_too_long_ago_is_answered_with_a_reset(app: Any, resilience: Resilience) -> None:
    happen(resilience, KEPT + 5)
    run = board_of(resilience).run
    async with reading(app, headers={"Last-Event-ID": f"{run}-4"}) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        assert [part.event for part in reader.parts] == ["reset", "state"]
    async with reading(app, headers={"Last-Event-ID": f"{run}-5"}) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        assert len(reader.of("log")) == KEPT
        assert not reader.of("reset")


async def test_a_reader_who_is_slow_is_told_the_newest_state_and_that_he_has_missed_something(app: Any, resilience: Resilience) -> None:
    async with reading(app) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        reader.stopped = anyio.Event()
        await anyio.sleep(1.1)
        happen(resilience, KEPT + 50)
        await anyio.sleep(20)
        sends = reader.sends
        reader.stopped.set()
        await reader.until(lambda reader: bool(reader.of("reset")))
        assert reader.sends <= sends + 3  # nothing was queued for him
        assert len(reader.of("log")) <= KEPT
        last = reader.of("state")[-1]
        assert last.id == f"{board_of(resilience).run}-{KEPT + 50}"


async def test_a_reader_who_takes_nothing_is_dropped(app: Any, resilience: Resilience, clock: FakeClock) -> None:
    async with reading(app) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 1)
        reader.stopped = anyio.Event()
        began = clock.now()
        while board_of(resilience).streams:
            await anyio.sleep(1)
            assert clock.now() - began < 60
        assert not reader.over
        assert board_of(resilience).journal.waiting == 0


async def test_there_are_so_many_streams_and_a_place_is_given_back_once(ask: Any, app: Any, resilience: Resilience) -> None:
    board = board_of(resilience)
    async with anyio.create_task_group() as group:
        readers = [Reader() for _ in range(MOST_STREAMS)]
        scope = {"type": "http", "method": "GET", "path": "/resilience/stream", "headers": [], "query_string": b"", "root_path": ""}
        for reader in readers:
            group.start_soon(app, dict(scope), reader.receive, reader.send)
        for reader in readers:
            await reader.until(lambda reader: bool(reader.parts))
        assert board.streams == MOST_STREAMS
        refused = await ask(app, "/resilience/stream")
        assert refused.status == 503
        assert refused.header("retry-after") == ["5"]
        assert refused.problem["detail"] == "As many streams are open as there may be."
        assert board.streams == MOST_STREAMS
        readers[0].leave()
        await anyio.sleep(0.01)
        assert board.streams == MOST_STREAMS - 1
        assert board.journal.waiting == MOST_STREAMS - 1
        board.leave(object())  # not a stream
        async with reading(app) as another:
            await another.until(lambda reader: bool(reader.parts))
            assert board.streams == MOST_STREAMS
        for reader in readers:
            reader.leave()
    assert board.streams == board.journal.waiting == 0


async def test_who_is_cancelled_gives_his_place_back(app: Any, resilience: Resilience) -> None:
    reader = Reader()
    scope = {"type": "http", "method": "GET", "path": "/resilience/stream", "headers": [], "query_string": b"", "root_path": ""}
    with anyio.move_on_after(3):
        await app(scope, reader.receive, reader.send)
    assert reader.parts
    assert board_of(resilience).streams == board_of(resilience).journal.waiting == 0


async def test_a_server_that_raises_for_who_is_gone_ends_it(app: Any, resilience: Resilience) -> None:
    class Gone(Reader):
        async def send(self, message: Any) -> None:
            if self.sends == 3:
                raise BrokenPipeError
            await super().send(message)

    reader = Gone()
    scope = {"type": "http", "method": "GET", "path": "/resilience/stream", "headers": [], "query_string": b"", "root_path": ""}
    await app(scope, reader.receive, reader.send)
    assert board_of(resilience).streams == 0


async def test_it_ends_when_the_service_drains(app: Any, resilience: Resilience, clock: FakeClock) -> None:
    async with reading(app) as reader:
        await reader.until(lambda reader: bool(reader.parts))
        began = clock.now()
        resilience.draining = True
        await reader.until(lambda reader: reader.over)
        assert clock.now() - began <= 1.2
        assert reader.of("state")[-1].data["service"]["status"] == "draining"
    async with reading(app) as late:
        await late.until(lambda reader: reader.over)
        assert len(late.of("state")) == 1
    assert board_of(resilience).streams == 0


async def test_it_ends_after_an_hour_so_that_who_reads_has_to_show_that_he_may(
    app: Any, clock: FakeClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert stream.LONGEST == 3600
    monkeypatch.setattr(stream, "LONGEST", 100.0)
    async with reading(app) as reader:
        began = clock.now()
        await reader.until(lambda reader: reader.over)
        assert 99 <= clock.now() - began <= 102
        assert reader.text.count(": awake\n\n") == 6
        assert len(reader.of("state")) <= 102


async def test_it_has_no_time_limit_and_takes_no_place_of_the_apps(ask: Any, resilience: Resilience, clock: FakeClock) -> None:
    app = made(resilience, clock, timeout=2.0, body=True)
    (door,) = resilience.admissions
    async with reading(app, headers={"accept": "text/event-stream"}) as reader:
        await reader.until(lambda reader: len(reader.of("state")) > 10)
        assert not reader.over
        assert (door.in_flight, door.streams) == (0, 0)
        assert not [name for name, _ in reader.start["headers"] if name.lower() == b"degraded"]


async def test_all_readers_share_one_look(app: Any, resilience: Resilience) -> None:
    board = board_of(resilience)
    looks = 0
    describe = board._described.document

    def counted(*args: Any) -> Any:
        nonlocal looks
        looks += 1
        return describe(*args)

    board._described.document = counted
    async with reading(app) as first, reading(app) as second, reading(app) as third:
        for reader in (first, second, third):
            await reader.until(lambda reader: len(reader.of("state")) == 11)
        assert looks <= 12


async def test_a_first_event_during_a_look_is_not_lost(app: Any, resilience: Resilience) -> None:
    board = board_of(resilience)
    picture = board.look()
    happen(resilience)
    assert board.look() is picture  # too soon for another
    async with reading(app) as reader:
        await reader.until(lambda reader: len(reader.of("state")) == 2)
        assert board._picture.seen == 1


async def test_controls_are_the_readers_own(app: Any) -> None:
    async with reading(app, headers={"x-user": "ann"}) as ann, reading(app, headers={"x-user": "bob"}) as bob, reading(app) as nobody:
        for reader in (ann, bob, nobody):
            await reader.until(lambda reader: bool(reader.parts))
        told = [reader.of("state")[0].data["controls"] for reader in (ann, bob, nobody)]
    assert told[0]["who"] == "ann"
    assert told[1]["who"] == "bob"
    assert told[0]["token"] != told[1]["token"]
    assert told[2] is None


async def test_what_is_told_stays_on_its_line(app: Any, resilience: Resilience) -> None:
    reviews = resilience.feature("reviews", fallback=[])
    async with reading(app) as reader:
        await reader.until(lambda reader: bool(reader.parts))
        reviews.set_level("off", by="x", why="</script>data: y")
        await reader.until(lambda reader: len(reader.of("log")) == 2)
        assert "</script>" not in reader.text
        assert "</script>" in json.dumps(reader.of("log")[0].data)


async def test_who_takes_not_even_the_head_is_dropped(app: Any, resilience: Resilience, clock: FakeClock) -> None:
    reader = Reader()
    reader.stopped = anyio.Event()
    scope = {"type": "http", "method": "GET", "path": "/resilience/stream", "headers": [], "query_string": b"", "root_path": ""}
    began = clock.now()
    await app(scope, reader.receive, reader.send)
    assert clock.now() - began == pytest.approx(30)
    assert board_of(resilience).streams == 0
