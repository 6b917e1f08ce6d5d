"""A cache in front of an HTTP dependency: hits, validation, one fetch for many, stale answers in place of errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilient import Bulkhead, Cache, CircuitBreaker, CircuitOpen, Fallback, Retry, Timeout
from resilient.events import CacheUsed, FallbackServed
from resilient.testing import FakeClock, FaultyTransport, RecordingListener

from .conftest import Declare

pytestmark = pytest.mark.anyio


class Origin:
    """An origin whose answers a test may change at any time, and that counts who asks."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.asked: list[Any] = []
        self.seconds = 0.0
        self.answer: Callable[[Any], Any] = lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, content=b"body")
        self.cancelled = 0

    def says(self, status: int = 200, body: bytes = b"body", **fields: str) -> None:
        headers = {name.replace("_", "-"): value for name, value in fields.items()}
        self.answer = lambda request: self.library.Response(status, headers=headers, content=body)

    def fails(self, error: Exception) -> None:
        def answer(request: Any) -> Any:
            raise error

        self.answer = answer

    async def __call__(self, request: Any) -> Any:
        self.asked.append(request)
        try:
            await anyio.sleep(self.seconds)
        except BaseException:
            self.cancelled += 1
            raise
        return self.answer(request)


@pytest.fixture
def origin(library: Any) -> Origin:
    return Origin(library)


def client(library: Any, dependency: Any, origin: Origin) -> Any:
    transport = library.ours.AsyncResilientTransport(dependency, FaultyTransport([origin]))
    return library.AsyncClient(transport=transport, timeout=60, base_url="http://dep")


def results(listener: RecordingListener) -> list[str]:
    return [event.result for event in listener.of(CacheUsed)]


async def test_a_fresh_answer_is_served_again(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener
) -> None:
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        first = await http.get("/a")
        clock_now = clock.now()
        await anyio.sleep(7)
        second = await http.get("/a")
        assert (first.text, second.text, len(origin.asked)) == ("body", "body", 1)
        assert "age" not in first.headers and second.headers["age"] == "7"
        assert second.headers["cache-status"] in ("dep; hit; ttl=52", "dep; hit; ttl=53")  # the real time counts a little
        assert first.headers["cache-status"] == "dep; fwd=uri-miss; stored"
        assert "degraded" not in second.extensions
        await anyio.sleep(60)
        assert clock.now() - clock_now >= 60
        third = await http.get("/a")
    assert len(origin.asked) == 2 and "age" not in third.headers
    assert results(listener) == ["miss", "hit", "miss"]


async def test_a_stale_answer_is_asked_about(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener
) -> None:
    origin.says(200, b"one", cache_control="max-age=1", etag='"1"')
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(2)
        origin.says(304, b"", cache_control="max-age=100", etag='"1"', x_new="yes")
        second = await http.get("/a")
        assert origin.asked[1].headers["if-none-match"] == '"1"'
        assert (second.status_code, second.text, second.headers["x-new"]) == (200, "one", "yes")
        await anyio.sleep(50)
        third = await http.get("/a")
    assert third.text == "one" and len(origin.asked) == 2
    assert results(listener) == ["miss", "validated", "hit"]


@pytest.mark.slow
async def test_many_who_ask_at_once_make_one_call(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 1.0
    dependency = declare(Cache(), Timeout(), Bulkhead())
    answers: list[str] = []

    async def ask() -> None:
        answers.append((await http.get("/a")).text)

    async with client(library, dependency, origin) as http:
        async with anyio.create_task_group() as group:
            for _ in range(1000):
                group.start_soon(ask)
    assert answers == ["body"] * 1000 and len(origin.asked) == 1
    assert dependency.bulkhead is not None and dependency.bulkhead.in_use == 0


async def test_an_answer_that_is_slower_than_it_is_fresh_is_for_those_who_waited(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a slow origin would be asked by everybody at once."""
    monkeypatch.setattr("time.time", lambda: 1.8e9 + clock.now())
    origin.seconds = 5.0
    origin.says(200, b"late", cache_control="max-age=2")
    answers: list[str] = []

    async def ask() -> None:
        answers.append((await http.get("/a")).text)

    async with client(library, declare(Cache(), Timeout()), origin) as http:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
        assert answers == ["late"] * 50 and len(origin.asked) == 1
        origin.says(200, b"new", cache_control="max-age=2")
        assert (await http.get("/a")).text == "new" and len(origin.asked) == 2


async def test_the_first_caller_may_leave(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 1.0
    answers: list[str] = []

    async def ask() -> None:
        answers.append((await http.get("/a")).text)

    async with client(library, declare(Cache(), Timeout()), origin) as http:
        async with anyio.create_task_group() as group:
            with anyio.CancelScope() as first:
                async with anyio.create_task_group() as inner:
                    inner.start_soon(ask)
                    await anyio.sleep(0.1)
                    for _ in range(100):
                        group.start_soon(ask)
                    await anyio.sleep(0.1)
                    first.cancel()
    assert answers == ["body"] * 100 and len(origin.asked) == 1 and not origin.cancelled


async def test_with_the_last_one_who_leaves_the_fetch_ends(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 10.0
    dependency = declare(Cache(), Timeout(), Bulkhead())
    async with client(library, dependency, origin) as http:
        with anyio.move_on_after(1):
            await http.get("/a")
        await anyio.sleep(0.1)
        assert origin.cancelled == 1 and dependency.bulkhead is not None and dependency.bulkhead.in_use == 0
        origin.seconds = 0.0
        assert (await http.get("/a")).text == "body"


async def test_a_failure_is_shared(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 1.0
    origin.fails(library.ConnectError("refused"))
    errors: list[Exception] = []

    async def ask() -> None:
        try:
            await http.get("/a")
        except library.ConnectError as error:
            errors.append(error)

    async with client(library, declare(Cache(), Timeout()), origin) as http:
        async with anyio.create_task_group() as group:
            for _ in range(50):
                group.start_soon(ask)
    assert len(errors) == 50 and len(origin.asked) == 1
    assert len({id(error) for error in errors}) == 50


async def test_what_may_not_be_shared_is_asked_for_by_each(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 1.0
    origin.says(200, b"mine", cache_control="no-store")
    began = clock.now()
    answers: list[tuple[str, float]] = []

    async def ask() -> None:
        response = await http.get("/a")
        answers.append((response.text, clock.now() - began))

    async with client(library, declare(Cache(), Timeout()), origin) as http:
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
        assert len(origin.asked) == 20 and [text for text, _ in answers] == ["mine"] * 20
        assert max(at for _, at in answers) == pytest.approx(2.0, abs=0.1)  # all at once after the first, no convoy
        began = clock.now()
        answers.clear()
        async with anyio.create_task_group() as group:
            for _ in range(20):
                group.start_soon(ask)
    assert max(at for _, at in answers) == pytest.approx(1.0, abs=0.1)  # and nobody waits for anybody any more


@pytest.mark.parametrize("how", ["error", "status", "open circuit", "timeout"])
async def test_stale_in_place_of_an_error(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener, how: str
) -> None:
    breaker = CircuitBreaker()
    origin.says(200, b"good", cache_control="max-age=10, stale-if-error=100")
    async with client(library, declare(Cache(), Timeout(total=1), breaker), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        if how == "error":
            origin.fails(library.ConnectError("refused"))
        elif how == "status":
            origin.says(503, b"", retry_after="3")
        elif how == "timeout":
            origin.seconds = 100.0
        else:
            breaker.open()
        response = await http.get("/a")
        assert (response.status_code, response.text) == (200, "good")
        assert int(response.headers["age"]) >= 20
        status = response.headers["cache-status"]
        assert "detail=stale-if-error" in status and "ttl=-1" in status
        expected = {"error": "fwd=stale; fwd-status=502", "status": "fwd=stale; fwd-status=503", "timeout": "fwd=stale; fwd-status=504"}
        assert expected.get(how, "hit") in status
        degraded = response.extensions["degraded"]
        assert degraded["dependency"] == "dep" and degraded["stale_for"] == pytest.approx(10, abs=2)
        assert len(listener.of(FallbackServed)) == 1
        await anyio.sleep(200)  # beyond the window
        origin.seconds = 0.0
        if how == "open circuit":
            with pytest.raises(CircuitOpen):
                await http.get("/a")
        else:
            origin.says(503, b"sorry")
            assert (await http.get("/a")).status_code == 503


async def test_a_failed_origin_is_left_alone_for_a_moment(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.says(200, b"good", cache_control="max-age=10, stale-if-error=1000")
    async with client(library, declare(Cache(), Timeout(total=1)), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.seconds = 100.0
        began = clock.now()
        for _ in range(100):
            assert (await http.get("/a")).text == "good"
        assert len(origin.asked) == 2 and clock.now() - began < 1.5
        await anyio.sleep(6)
        origin.seconds = 0.0
        origin.says(200, b"new", cache_control="max-age=10")
        assert (await http.get("/a")).text == "new"


async def test_stale_on_slow(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.says(200, b"old", cache_control="max-age=10, stale-if-error=1000")
    async with client(library, declare(Cache(soft_timeout=0.2), Timeout(total=10)), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.seconds = 3.0
        origin.says(200, b"new", cache_control="max-age=10")
        began = clock.now()
        response = await http.get("/a")
        assert response.text == "old" and clock.now() - began == pytest.approx(0.2, abs=0.05)
        assert response.extensions["degraded"]["cause"] == "slow"
        await anyio.sleep(4)
        assert (await http.get("/a")).text == "new" and len(origin.asked) == 2


async def test_stale_while_revalidate(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, listener: RecordingListener
) -> None:
    origin.says(200, b"old", cache_control="max-age=10, stale-while-revalidate=100")
    async with client(library, declare(Cache(), Timeout(total=10)), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.seconds = 1.0
        origin.says(200, b"new", cache_control="max-age=10")
        began = clock.now()
        for _ in range(10):
            response = await http.get("/a")
            assert response.text == "old" and "degraded" not in response.extensions
        assert clock.now() - began < 0.1
        await anyio.sleep(2)
        assert (await http.get("/a")).text == "new" and len(origin.asked) == 2
    assert results(listener) == ["miss", *["stale"] * 10, "refreshed", "hit"]
    assert not listener.of(FallbackServed)


async def test_two_users_never_share(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.answer = lambda request: library.Response(
        200, headers={"cache-control": "max-age=60"}, content=request.headers.get("cookie", "nobody").encode()
    )
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        for _ in range(2):
            for user in ("user=a", "user=b"):
                assert (await http.get("/a", headers={"cookie": user})).text == user
        assert len(origin.asked) == 2
        assert (await http.get("/a")).text == "nobody"


async def test_a_write_makes_it_forget(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await http.get("/a", headers={"cookie": "user=a"})
        origin.says(200, b"new", cache_control="max-age=60")
        assert (await http.get("/a")).text == "body"
        await http.post("/a", content=b"x")
        assert (await http.get("/a")).text == "new"
        assert (await http.get("/a", headers={"cookie": "user=a"})).text == "new"


async def test_a_fetch_that_a_write_overtakes_is_not_kept(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.seconds = 1.0
    got: list[str] = []

    async def ask() -> None:
        got.append((await http.get("/a")).text)

    async with client(library, declare(Cache(), Timeout()), origin) as http:
        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await anyio.sleep(0.5)
            origin.seconds = 0.0
            before, origin.answer = origin.answer, lambda request: library.Response(204)
            await http.post("/a")
            origin.answer = before
        origin.says(200, b"new", cache_control="max-age=60")
        assert got == ["body"] and (await http.get("/a")).text == "new"


async def test_a_body_is_streamed_on_a_miss(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    class Slow(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> Any:
            for part in (b"a", b"b", b"c"):
                yield part
                await anyio.sleep(1)

        async def aclose(self) -> None:
            pass

    origin.answer = lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, stream=Slow())
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        began = clock.now()
        async with http.stream("GET", "/a") as response:
            arrived = [(part, round(clock.now() - began)) async for part in response.aiter_raw()]
        assert arrived == [(b"a", 0), (b"b", 1), (b"c", 2)]
        assert (await http.get("/a")).content == b"abc" and len(origin.asked) == 1


async def test_a_body_that_is_too_long_passes(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    produced = 0

    class Long(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> Any:
            nonlocal produced
            for _ in range(100):
                produced += 1000
                yield b"x" * 1000
                await anyio.sleep(0)

        async def aclose(self) -> None:
            pass

    origin.answer = lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, stream=Long())
    async with client(library, declare(Cache(max_body=10_000), Timeout()), origin) as http:
        async with http.stream("GET", "/a") as response:
            read = 0
            async for part in response.aiter_raw():
                read += len(part)
                await anyio.sleep(0.1)
                assert produced - read <= 12_000  # it runs no further ahead
        assert read == 100_000
        assert len((await http.get("/a")).content) == 100_000 and len(origin.asked) == 2


async def test_a_body_that_breaks_off_is_not_kept(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    class Broken(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        async def __aiter__(self) -> Any:
            yield b"half"
            raise library.RemoteProtocolError("cut")

        async def aclose(self) -> None:
            pass

    good = origin.answer
    origin.answer = lambda request: library.Response(200, headers={"cache-control": "max-age=60"}, stream=Broken())
    breaker = CircuitBreaker()
    async with client(library, declare(Cache(), Timeout(), breaker), origin) as http:
        with pytest.raises(library.RemoteProtocolError):
            await http.get("/a")
        origin.answer = good
        assert (await http.get("/a")).text == "body" and len(origin.asked) == 2


async def test_fallback_and_retry_stand_where_they_should(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.says(503, b"")
    dependency = declare(Fallback({"default": True}), Cache(), Timeout(), Retry(attempts=3))
    async with client(library, dependency, origin) as http:
        response = await http.get("/a")
    assert response.json() == {"default": True} and len(origin.asked) == 3


async def test_no_cache_where_none_is_wanted(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        for _ in range(2):
            await http.get("/a", extensions={"resilient": {"cache": False}})
        assert len(origin.asked) == 2


async def test_head_and_ranges_from_what_get_brought(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.says(200, b"0123456789", cache_control="max-age=60", etag='"1"')
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        head = await http.head("/a")
        part = await http.get("/a", headers={"range": "bytes=2-4"})
        same = await http.get("/a", headers={"if-none-match": '"1"'})
    assert len(origin.asked) == 1
    assert (head.status_code, head.content, head.headers["content-length"]) == (200, b"", "10")
    assert (part.status_code, part.content, part.headers["content-range"]) == (206, b"234", "bytes 2-4/10")
    assert (same.status_code, same.content) == (304, b"")


async def test_a_503_never_drives_out_a_good_copy(library: Any, clock: FakeClock, declare: Declare, origin: Origin) -> None:
    origin.says(200, b"good", cache_control="max-age=10, stale-if-error=1000", etag='"1"')
    async with client(library, declare(Cache(), Timeout()), origin) as http:
        await http.get("/a")
        await anyio.sleep(20)
        origin.says(503, b"bad", cache_control="max-age=1000")
        for _ in range(5):
            assert (await http.get("/a")).text == "good"
            await anyio.sleep(10)


@pytest.mark.parametrize("vary", ["accept-language", None], ids=["varies", "does not vary"])
async def test_a_503_to_one_drives_out_nothing_that_others_were_given(
    library: Any, clock: FakeClock, declare: Declare, origin: Origin, vary: str | None
) -> None:
    """The failure has no `Vary`, so that it would answer everybody: those too for whom there is a good copy."""
    fields = {"cache_control": "max-age=10, stale-if-error=1000", "vary": vary or ""}
    async with client(library, declare(Cache(share_anonymous=False), Timeout()), origin) as http:
        mine = [{"accept-language": "en"}, {"accept-language": "de"}] if vary else [{}]
        other = {"accept-language": "fr"} if vary else {"x-api-key": "mine"}
        for headers in mine:
            origin.says(200, "".join(headers.values()).encode(), **fields)
            await http.get("/a", headers=headers)
        await anyio.sleep(20)
        origin.says(503, b"bad", cache_control="public, max-age=1000")
        for _ in range(3):
            assert (await http.get("/a", headers=other)).status_code == 503
            for headers in mine:
                answer = await http.get("/a", headers=headers)
                assert (answer.status_code, answer.text) == (200, "".join(headers.values()))
            await anyio.sleep(10)
