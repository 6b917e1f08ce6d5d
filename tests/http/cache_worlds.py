"""Small worlds of chance: users, variants, writes, failures and cancellations before one cache, and what may be served there.

Each answer of the origin says in a field of its own for whom it was made, as which variant, in which version and when, so
that whatever is served anywhere can be judged by itself. The rules are written down here a second time, from RFC 9111 and
RFC 5861, in terms of what the origin said.
"""

from __future__ import annotations

import contextlib
import itertools
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Set
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import anyio

from resilient import Bulkhead, Cache, CircuitBreaker, Dependency, ResilienceError, Retry, Timeout

EPSILON = 0.05  # seconds that rounding, and the real time that answers are dated with, may make
IDENTITIES = ("authorization", "cookie", "x-api-key")
SHARING = (
    *("", "", "", "", "", "", "public", "public", "public", "must-revalidate", "must-revalidate", "proxy-revalidate", "s-maxage=20"),
    *("private", "no-store", "no-cache"),
)
VARY = (*("", "", "", "Accept-Language", "User-Agent", "Cookie", "Accept-Language, X-Kind") * 2, "*")
FIELDS = {"accept-language": ("de", "en"), "user-agent": ("a/1", "b/2"), "x-kind": ("1", "2"), "x-forwarded-host": ("evil",)}
DEMANDS = ("no-cache", "no-store", "max-age=0", "max-stale=5", "only-if-cached")
CHOOSING = (*FIELDS, "x-tenant", *IDENTITIES)


@cache
def parsed(control: str) -> dict[str, str]:
    """The directives of a `Cache-Control`."""
    return {word: value for part in control.split(",") for word, _, value in [part.strip().partition("=")] if word}


@cache
def addresses(url: Any) -> tuple[Any, Any]:
    """The two resources that there are, read once for all worlds."""
    return url("http://dep/a"), url("http://dep/b")


def fields_of(headers: Any) -> dict[str, str]:
    """Header fields by name, in lower case."""
    return {name.decode().lower(): value.decode() for name, value in headers.raw}


@dataclass
class Answer:
    """What the origin said, and to whom."""

    number: int
    asked_by: int
    uri: str
    fields: dict[str, str]
    version: int
    made_at: float
    status: int
    control: str
    vary: str
    cookie: bool
    etag: str
    body: bytes
    ended_at: float = 0.0
    validated: list[tuple[float, str]] = field(default_factory=list)

    @property
    def words(self) -> Set[str]:
        return parsed(self.control).keys()

    def seconds(self, name: str, control: str | None = None) -> int:
        return int(parsed(self.control if control is None else control).get(name) or 0)


class World:
    """One origin behind one cache, and those who ask.

    Args:
        library: the client library.
        clock: the time.
        seed: of everything that is left to chance.
        seen: what was served, counted, over all worlds.
    """

    def __init__(self, library: Any, clock: Any, seed: int, seen: Counter[str]) -> None:
        self.library, self.clock, self.seen = library, clock, seen
        self.began = clock.now()
        self.chance = chance = random.Random(seed)
        self.trouble = chance.choice((0.0, 0.1, 0.5, 0.8))
        self.numbers, self.answers, self.versions = itertools.count(1), {}, dict.fromkeys(("/a", "/b"), 1)
        self.floor = dict.fromkeys(self.versions, 1)
        self.controls = {uri: self.control() for uri in self.versions}
        self.vary = {uri: chance.choice(VARY) for uri in self.versions}
        self.etags = {uri: chance.random() < 0.6 for uri in self.versions}
        self.streams: list[Any] = []
        self.fallback = chance.choice((0, 30, 30))
        self.per_user, self.explicit = chance.random() < 0.2, chance.random() < 0.25
        self.unusual = self.differences()
        # What most requests are like, so that one that is not differs from the others in hardly more than that.
        lasting = [(name, value) for name, value in self.unusual if value is not None and name not in ("cache-control", "x-forwarded-host")]
        self.usual = dict(chance.sample(lasting, 2))
        self.cache = Cache(
            stale_if_error=self.fallback,
            soft_timeout=chance.choice((None, 0.5)),
            per_user=self.per_user,
            max_body=chance.choice((1 << 20, 150)),
            partition=(lambda request: request.headers.get("x-tenant")) if self.explicit else None,
        )
        policies: list[Any] = [self.cache, Timeout(total=chance.choice((2, 8)))]
        if chance.random() < 0.3:
            policies.append(Retry(attempts=2))
        policies.append(Bulkhead(max_concurrent=chance.choice((2, 100))))
        if chance.random() < 0.3:
            policies.append(CircuitBreaker(fail_max=3, reset_timeout=2))
        self.dependency = Dependency("dep", *policies, clock=clock)
        self.transport = library.ours.AsyncResilientTransport(self.dependency, Inner(self))

    def differences(self) -> list[tuple[str, str | None]]:
        """What requests may differ in: who asks, as which tenant, two of the fields that choose an answer, and a demand."""
        chance = self.chance
        own, other = chance.sample((*IDENTITIES, "cookie", "x-api-key"), 2)
        found: list[tuple[str, str | None]] = [(own, user) for user in ("u1", "u2", "u1", "u2", None)] + [(other, "u1")]
        if self.explicit:
            found += [("x-tenant", tenant) for tenant in ("t1", "t2", "t1", "t2", None)] * 2
        for name in chance.sample((*FIELDS, "user-agent"), 2):
            found += [(name, value) for value in (*FIELDS[name], None)]
        return [*found, ("cache-control", chance.choice(DEMANDS))]

    def control(self) -> str:
        chance = self.chance
        parts = [chance.choice(SHARING), f"max-age={chance.choice((0, 1, 2, 5, 5, 60, 60))}"]
        if chance.random() < 0.6:
            parts.append(f"stale-if-error={chance.choice((4, 50))}")
        if chance.random() < 0.3:
            parts.append(f"stale-while-revalidate={chance.choice((2, 50))}")
        return ", ".join(part for part in parts if part)

    # -- the origin -----------------------------------------------------------------------------------------------

    async def answer(self, request: Any) -> Any:
        chance, library = self.chance, self.library
        uri, fields = request.url.path, fields_of(request.headers)
        await anyio.sleep(chance.choice((0, 0, 0.1, 0.5, 3)))
        luck = chance.random() if self.clock.now() > self.began + 1.5 else 1.0
        if luck < self.trouble / 2:
            raise chance.choice((library.ConnectError, library.ReadError, library.ReadTimeout))("by chance")
        if request.method != "GET":
            self.versions[uri] += 1
            await anyio.sleep(chance.choice((0, 0.3)))
            return library.Response(chance.choice((200, 204, 303)))
        if luck < self.trouble:
            control = chance.choice(("no-store", "max-age=5", "public, max-age=5"))
            return self.made(fields, uri, chance.choice((500, 503, 503, 429)), control)
        if luck < self.trouble + 0.05:
            return self.made(fields, uri, chance.choice((404, 302)), chance.choice(("", "max-age=3")))
        if not self.etags[uri]:
            return self.made(fields, uri, 200, self.controls[uri])
        # Of all that may choose the answer, whatever it varies by.
        etag = f'"{uri}{self.versions[uri]}{"|".join([fields.get(name, "") for name in CHOOSING])}"'
        if etag in fields.get("if-none-match", ""):
            control = self.controls[uri]
            for answer in self.answers.values():
                if answer.etag == etag:
                    answer.validated.append((self.clock.now(), control))
            return library.Response(304, headers={"etag": etag, "cache-control": control})
        return self.made(fields, uri, 200, self.controls[uri], etag)

    def made(self, fields: dict[str, str], uri: str, status: int, control: str, etag: str = "") -> Any:
        chance, library = self.chance, self.library
        number, asked_by = next(self.numbers), int(fields["x-request-id"])
        cookie = chance.random() < 0.1
        body = b"%d," % number * chance.choice((1, 5, 100))
        now, version = self.clock.now(), self.versions[uri]
        # What fails often does so before anybody has thought of what the answer varies by.
        vary = "" if status in (500, 503, 429) and chance.random() < 0.5 else self.vary[uri]
        made = Answer(number, asked_by, uri, fields, version, now, status, control, vary, cookie, etag, body)
        self.answers[number] = made
        headers = {"x-number": str(number), "cache-control": control}
        if made.vary:
            headers["vary"] = made.vary
        if etag:
            headers["etag"] = etag
        if cookie:
            headers["set-cookie"] = f"session={asked_by}"
        if status == 302:
            headers["location"] = "/b"
        shape = chance.random()
        if shape < 0.5:
            return library.Response(status, headers=headers, content=made.body)
        if shape < 0.8:
            headers["content-length"] = str(len(made.body))
        broken = chance.choice((*[None] * 6, "cut", "short" if shape < 0.8 else None))
        stream = stream_of(library.AsyncByteStream)(self, made, broken, chance.choice((0, 0.2)), library.RemoteProtocolError)
        self.streams.append(stream)
        return library.Response(status, headers=headers, stream=stream)

    # -- those who ask --------------------------------------------------------------------------------------------

    def request(self, asked_by: int) -> Any:
        chance = self.chance
        headers = {"x-request-id": str(asked_by), "host": "dep", **self.usual}
        for _ in range(chance.choice((0, 0, 1, 1, 1, 2))):
            name, value = chance.choice(self.unusual)
            if value is None:
                headers.pop(name, None)
            else:
                headers[name] = value
        method = "POST" if asked_by and chance.random() < 1 / 7 else "GET"
        return self.library.Request(method, addresses(self.library.URL)[chance.random() < 0.1], headers=headers)

    async def ask(self, asked_by: int) -> None:
        chance = self.chance
        if asked_by:  # the first one comes at once: the others find something
            await anyio.sleep(chance.choice((0, 0, 0.05, 0.5, 2, 4, 7, 8, 9, 30)))
        request, patience = self.request(asked_by), chance.choice((0.02, 0.3, 1, *[None] * 6))
        if patience is None:
            await self.send(request, asked_by)
            return
        with anyio.move_on_after(patience):
            await self.send(request, asked_by)

    async def send(self, request: Any, asked_by: int) -> None:
        uri, began = request.url.path, self.clock.now()
        floor, version = self.floor[uri], self.versions[uri]
        try:
            response = await self.transport.handle_async_request(request)
        except (ResilienceError, self.library.TransportError, self.library.HTTPStatusError) as error:
            self.seen[type(error).__name__] += 1
            return
        got = self.clock.now()
        try:
            if request.method == "POST":
                if response.status_code < 400 and self.versions[uri] > version:
                    # What is asked for from here on must know of it.
                    self.floor[uri] = max(self.floor[uri], version + 1)
                self.seen["written"] += 1
                return
            body = None
            if self.chance.random() < 0.9:
                with contextlib.suppress(self.library.TransportError, ResilienceError):
                    body = b"".join([part async for part in response.stream])
            self.judge(request, response, body, asked_by, began, got, floor)
        finally:
            await response.aclose()
            await response.stream.aclose()

    # -- the rules ------------------------------------------------------------------------------------------------

    def judge(self, request: Any, response: Any, body: bytes | None, asked_by: int, began: float, now: float, floor: int) -> None:
        asked, said = fields_of(request.headers), fields_of(response.headers)
        if "detail=failure-alone" in said.get("cache-status", ""):
            # That the origin failed is told to all who waited, and nothing of what it said to one of them.
            self.seen["failure alone"] += 1
            assert response.status_code in (500, 503) and not body, said
            assert said.keys() <= {"cache-status", "cache-control", "content-length", "retry-after"}, said
            return
        if "x-number" not in said:
            assert response.status_code == 504 and "only-if-cached" in asked["cache-control"]
            return
        answer = self.answers[int(said["x-number"])]
        told = (answer, asked, said, began, now)
        assert answer.uri == request.url.path, told
        if answer.asked_by == asked_by:
            self.seen["own"] += 1
            assert answer.made_at >= began - EPSILON, told
            return
        self.seen["another's"] += 1
        self._for_whom(answer, asked, told)
        assert answer.version >= floor, told
        if body is not None and body != answer.body:
            # Half an answer may come to those who asked while it was on its way, never to those who come later.
            assert answer.ended_at >= began, told
        if answer.made_at < began:
            self._when(answer, asked, response, now, told)

    def _for_whom(self, answer: Answer, asked: dict[str, str], told: Any) -> None:
        """Whether what was made for one caller may be given to another."""
        words = answer.words
        assert "no-store" not in words or answer.status in (500, 503, 429), told
        assert "no-store" not in asked.get("cache-control", ""), told
        assert not answer.cookie, told
        assert answer.vary != "*", told
        for name in answer.vary.lower().split(", ") if answer.vary else ():
            assert asked.get(name) == answer.fields.get(name), told
        assert asked.get("x-forwarded-host") == answer.fields.get("x-forwarded-host") or "x-forwarded-host" not in answer.fields, told
        everybody = not words.isdisjoint(("public", "s-maxage"))
        if everybody:
            return
        tenants = asked.get("x-tenant"), answer.fields.get("x-tenant")
        if self.explicit and tenants != (None, None):
            assert tenants[0] == tenants[1], told
        else:
            theirs = {name: answer.fields[name] for name in IDENTITIES if name in answer.fields}
            mine = {name: asked[name] for name in IDENTITIES if name in asked}
            assert theirs in (mine, {}), told
            assert "private" not in words or (self.per_user and theirs == mine != {}), told
        if "authorization" in answer.fields and not self.per_user:
            assert "must-revalidate" in words, told

    def _when(self, answer: Answer, asked: dict[str, str], response: Any, now: float, told: Any) -> None:
        """Whether it may still be served."""
        at, control = max([(answer.made_at, answer.control), *(one for one in answer.validated if one[0] <= now)])
        age = now - at
        # A validation that is under way at this very moment counts when it comes.
        fresh = answer.seconds("s-maxage", control) or answer.seconds("max-age", control)
        words = parsed(control).keys()
        assert "no-cache" not in words or age <= EPSILON or at > told[3] - EPSILON, told
        wants = asked.get("cache-control", "")
        degraded = "degraded" in response.extensions
        if at >= told[3] - EPSILON:
            return  # confirmed for this very request
        assert wants not in ("no-cache", "max-age=0"), told
        beyond = age - fresh
        if beyond <= EPSILON:
            self.seen["fresh"] += 1
            return
        assert words.isdisjoint(("no-cache", "must-revalidate", "proxy-revalidate", "s-maxage")), told
        windows = [answer.seconds("stale-while-revalidate", control)]
        if degraded:
            self.seen["degraded"] += 1
            windows = [answer.seconds("stale-if-error", control), self.fallback if answer.status < 400 else 0]
        elif wants == "max-stale=5":
            windows.append(5)
        else:
            self.seen["refreshed"] += 1
        assert beyond <= max(windows) + EPSILON, told
        assert int(told[2]["age"]) >= int(age - EPSILON), told

    async def run(self, requests: int) -> None:
        async with anyio.create_task_group() as group:
            for number in range(requests):
                group.start_soon(self.ask, number)
        await anyio.sleep(100)
        flights = self.cache.flights
        assert flights is not None and len(flights) == 0 and flights.bytes == 0 and not flights.refreshing
        assert self.dependency.bulkhead is not None and self.dependency.bulkhead.in_use == 0
        assert all(stream.closed for stream in self.streams if stream.begun), "a stream is still open"


class Inner:
    """The origin as a transport."""

    def __init__(self, world: World) -> None:
        self.handle_async_request: Callable[..., Any] = world.answer


@cache
def stream_of(base: Any) -> Any:
    """The class of the bodies that come in parts, of a library's own kind."""

    class Stream(base):  # type: ignore[misc]
        begun = True
        closed = False

        def __init__(self, world: World, made: Answer, broken: str | None, pause: float, error: Any) -> None:
            self.world, self.made, self.broken, self.pause, self.error = world, made, broken, pause, error

        async def __aiter__(self) -> AsyncIterator[bytes]:
            body = self.made.body
            for part in _parts(body if self.broken is None else body[:-1]):
                yield part
                await anyio.sleep(self.pause)
                self.made.ended_at = self.world.clock.now()
            if self.broken == "cut":
                raise self.error("cut")

        async def aclose(self) -> None:
            self.closed = True

    return Stream


def _parts(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), 200):
        yield body[at : at + 200]
