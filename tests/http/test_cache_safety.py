"""What is kept, and for whom: each line of the table of safety, through a client."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import anyio
import pytest

from resilient import Cache, Timeout
from resilient.testing import FakeClock, FaultyTransport

from .conftest import Declare

pytestmark = pytest.mark.anyio

FRESH = "max-age=60"
ME, YOU = {"authorization": "Bearer me"}, {"authorization": "Bearer you"}


class Both:
    """An async and a sync client of the same dependency's settings; `kept` tells whether a second request is answered from the store."""

    def __init__(self, library: Any, declare: Declare, sync: bool, **settings: Any) -> None:
        self.library, self.sync = library, sync
        self.asked = 0
        self.answer: Any = None
        dependency = declare(Cache(**settings), Timeout())
        ours = library.ours
        if sync:
            self.http = library.Client(transport=ours.ResilientTransport(dependency, FaultyTransport([self._say])), base_url="http://dep")
        else:
            self.http = library.AsyncClient(
                transport=ours.AsyncResilientTransport(dependency, FaultyTransport([self._say])), base_url="http://dep"
            )

    def _say(self, request: Any) -> Any:
        self.asked += 1
        return self.answer(request)

    def says(self, status: int = 200, body: bytes = b"body", **fields: str) -> None:
        headers = [(name.replace("_", "-"), value) for name, value in fields.items()]
        self.answer = lambda request: self.library.Response(status, headers=headers, content=body)

    async def get(self, headers: dict[str, str] | None = None, method: str = "GET", **options: Any) -> Any:
        response = self.http.request(method, "/a", headers=headers, **options)
        return response if self.sync else await response

    async def kept(self, first: dict[str, str] | None = None, second: dict[str, str] | None = None) -> bool:
        """Whether the answer to `first` answers `second` too."""
        await self.get(first)
        asked = self.asked
        await self.get(second)
        return self.asked == asked


@pytest.fixture(params=[False, True], ids=["async", "sync"])
def sync(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def both(library: Any, clock: FakeClock, declare: Declare, sync: bool) -> Both:
    return Both(library, declare, sync)


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cache_control": FRESH}, True),
        ({"cache_control": f"{FRESH}, private"}, False),
        ({"cache_control": f"{FRESH}, no-store"}, False),
        ({"cache_control": f"{FRESH}, no-cache"}, False),
        ({"cache_control": FRESH, "set_cookie": "a=b"}, False),
        ({"cache_control": FRESH, "vary": "*"}, False),
        ({"cache_control": FRESH, "vary": "accept-language"}, True),
        ({"cache_control": FRESH, "content_type": "text/event-stream"}, False),
        ({"cache_control": FRESH, "content_range": "bytes 0-3/10"}, False),
        ({}, False),
    ],
    ids=str,
)
async def test_what_the_answer_says(both: Both, fields: dict[str, str], expected: bool) -> None:
    both.says(**fields)
    assert await both.kept() is expected


@pytest.mark.parametrize("status", [206, 303, 412, 416, 428, 429, 431, 511])
async def test_statuses_that_are_never_kept(both: Both, status: int) -> None:
    both.says(status, cache_control=FRESH, content_range="bytes 0-3/10") if status == 206 else both.says(status, cache_control="no-store")
    assert await both.kept() is False


@pytest.mark.parametrize(
    ("control", "mine", "yours"),
    [
        (FRESH, False, False),
        (f"{FRESH}, must-revalidate", True, False),
        (f"{FRESH}, public", True, True),
        ("s-maxage=60", True, True),
        (f"{FRESH}, private, public", False, False),
    ],
)
async def test_what_was_asked_for_with_credentials(
    library: Any, clock: FakeClock, declare: Declare, sync: bool, control: str, mine: bool, yours: bool
) -> None:
    for other, expected in ((ME, mine), (YOU, yours), (None, yours)):
        both = Both(library, declare, sync)
        both.says(cache_control=control)
        assert await both.kept(ME, other) is expected, other


@pytest.mark.parametrize("name", ["cookie", "x-api-key", "x-session"])
async def test_who_says_who_he_is_otherwise(library: Any, clock: FakeClock, declare: Declare, sync: bool, name: str) -> None:
    both = Both(library, declare, sync, identity=["X-Session"])
    both.says(cache_control=FRESH)
    assert await both.kept({name: "me"}, {name: "me"})
    assert not await both.kept({name: "me"}, {name: "you"})
    assert not await both.kept({name: "me"}, None)


async def test_what_an_anonymous_caller_got(library: Any, clock: FakeClock, declare: Declare, sync: bool) -> None:
    both = Both(library, declare, sync)
    both.says(cache_control=FRESH)
    assert await both.kept(None, {"cookie": "me"})
    both = Both(library, declare, sync, share_anonymous=False)
    both.says(cache_control=FRESH)
    assert not await both.kept(None, {"cookie": "me"})


async def test_partitions_that_the_program_names(library: Any, clock: FakeClock, declare: Declare, sync: bool) -> None:
    both = Both(library, declare, sync, partition=lambda request: request.headers.get("x-tenant"))
    both.says(cache_control=FRESH)
    assert await both.kept({"x-tenant": "a"}, {"x-tenant": "a"})
    assert not await both.kept({"x-tenant": "a"}, {"x-tenant": "b"})
    both.says(cache_control=f"{FRESH}, public")
    assert not await both.kept({"x-tenant": "c"}, {"x-tenant": "c", "cache-control": "no-store"})


async def test_each_user_by_himself(library: Any, clock: FakeClock, declare: Declare, sync: bool) -> None:
    both = Both(library, declare, sync, per_user=True)
    both.says(cache_control=f"{FRESH}, private")
    assert await both.kept(ME, ME)
    assert not await both.kept(ME, YOU)
    assert not await both.kept(ME, None)


@pytest.mark.parametrize("field", ["x-forwarded-host", "x-original-url", "x-rewrite-url", "x-http-method-override", "x-forwarded-anything"])
async def test_what_might_choose_the_answer_unsaid(library: Any, clock: FakeClock, declare: Declare, sync: bool, field: str) -> None:
    both = Both(library, declare, sync)
    both.says(cache_control=FRESH)
    assert not await both.kept({field: "evil"}, None)
    both = Both(library, declare, sync)
    both.says(cache_control=FRESH, vary=field)
    assert await both.kept({field: "evil"}, {field: "evil"}) and not await both.kept({field: "evil"}, {field: "good"})
    both = Both(library, declare, sync, unkeyed=[field])
    both.says(cache_control=FRESH)
    assert await both.kept({field: "evil"}, None)


async def test_a_request_that_forbids_it(both: Both) -> None:
    both.says(cache_control=FRESH)
    assert not await both.kept({"cache-control": "no-store"}, None)


async def test_a_request_with_a_body(both: Both) -> None:
    both.says(cache_control=FRESH)
    for _ in range(2):
        await both.get(content=b"which one")
    assert both.asked == 2
    await both.get()
    assert both.asked == 3


def cut(library: Any, sync: bool, *parts: bytes, error: Exception | None = None) -> Any:
    class Stream(library.SyncByteStream if sync else library.AsyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            yield from parts
            if error is not None:
                raise error

        async def __aiter__(self) -> AsyncIterator[bytes]:
            for part in self.__iter__():
                yield part
                await anyio.sleep(1)

        def close(self) -> None: ...

        async def aclose(self) -> None: ...

    return Stream()


@pytest.mark.parametrize("how", ["short", "long", "cut", "chunked"])
async def test_half_a_body_is_not_kept(both: Both, how: str) -> None:
    library = both.library
    length = {"short": {"content-length": "10"}, "long": {"content-length": "3"}, "cut": {"content-length": "10"}, "chunked": {}}[how]
    error = library.RemoteProtocolError("cut") if how in ("cut", "chunked") else None

    def answer(request: Any) -> Any:
        return library.Response(200, headers={"cache-control": FRESH, **length}, stream=cut(library, both.sync, b"half", error=error))

    both.answer = answer
    try:
        await both.get()
    except library.RemoteProtocolError:
        assert error is not None
    both.says(cache_control=FRESH)
    assert (await both.get()).text == "body" and both.asked == 2


async def test_a_reader_who_stops_early_keeps_nothing_for_others(both: Both) -> None:
    library = both.library
    both.answer = lambda request: library.Response(
        200, headers={"cache-control": FRESH}, stream=cut(library, both.sync, *[b"x" * 100_000] * 9)
    )
    if both.sync:
        with both.http.stream("GET", "/a") as response:
            assert next(response.iter_raw())
    else:
        async with both.http.stream("GET", "/a") as response:
            assert response.status_code == 200
    both.says(cache_control=FRESH)
    assert (await both.get()).text == "body" and both.asked == 2


async def test_own_conditions_and_ranges(both: Both) -> None:
    both.says(304, b"", cache_control=FRESH, etag='"1"')
    assert (await both.get({"if-none-match": '"1"'})).status_code == 304
    both.says(206, b"bo", cache_control=FRESH, content_range="bytes 0-1/4")
    assert (await both.get({"range": "bytes=0-1"})).status_code == 206
    both.says(cache_control=FRESH, etag='"1"')
    response = await both.get()
    assert (response.status_code, response.text) == (200, "body") and both.asked == 3


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE", "MKCOL"])
async def test_a_write_is_passed_on_and_makes_it_forget(both: Both, method: str) -> None:
    both.says(cache_control=FRESH)
    assert await both.kept()
    await both.get(method=method)
    asked = both.asked
    await both.get()
    assert both.asked == asked + 1


@pytest.mark.parametrize("status", [400, 404, 409, 500, 503])
async def test_a_write_that_was_refused_changes_nothing(both: Both, status: int) -> None:
    both.says(cache_control=FRESH)
    await both.get()
    both.says(status)
    await both.get(method="POST")
    assert (await both.get()).text == "body" and both.asked == 2
