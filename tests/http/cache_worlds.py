"""Small worlds of chance: users, variants, writes, failures and cancellations before one cache, and what may be served there.

Each answer of the origin says in a field of its own for whom it was made, as which variant, in which version and when, so
that whatever is served anywhere can be judged by itself. The rules are written down here a second time, from RFC 9111 and
RFC 5861, in terms of what the origin said.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import random
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import anyio

from resilient import Bulkhead, Cache, CircuitBreaker, Dependency, ResilienceError, Retry, Timeout

EPSILON = 0.05  # seconds that rounding, and the real time that answers are dated with, may make
IDENTITIES = ("authorization", "cookie", "x-api-key")
SHARING = ("", "", "", "public", "public", "private", "no-store", "no-cache", "must-revalidate", "proxy-revalidate", "s-maxage=20")
VARY = ("", "", "", "Accept-Language", "User-Agent", "Cookie", "Accept-Language, X-Kind", "*")
FIELDS = {"accept-language": ("de", "en"), "user-agent": ("a/1", "b/2"), "x-kind": ("1", "2"), "x-forwarded-host": ("evil",)}


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
    body: bytes = b""
    ended_at: float = 0.0
    validated: list[tuple[float, str]] = field(default_factory=list)

    @property
    def words(self) -> set[str]:
        return {part.strip().partition("=")[0] for part in self.control.split(",")} - {""}

    def seconds(self, name: str, control: str | None = None) -> int | None:
        for part in (self.control if control is None else control).split(","):
            word, _, value = part.strip().partition("=")
            if word == name:
                return int(value)
        return None


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
        self.trouble, self.variety = chance.choice((0.0, 0.1, 0.5)), chance.choice((0.0, 0.1, 0.4))
        self.numbers, self.answers, self.versions = itertools.count(1), {}, dict.fromkeys(("/a", "/b"), 1)
        self.floor = dict.fromkeys(self.versions, 1)
        self.controls = {uri: self.control() for uri in self.versions}
        self.vary = {uri: chance.choice(VARY) for uri in self.versions}
        self.etags = {uri: chance.random() < 0.6 for uri in self.versions}
        self.streams: list[Any] = []
        self.identity = chance.choice(IDENTITIES)
        self.fallback = chance.choice((0, 30))
        self.per_user, self.explicit = chance.random() < 0.2, chance.random() < 0.2
        self.cache = Cache(
            stale_if_error=self.fallback,
            soft_timeout=chance.choice((None, 0.5)),
            per_user=self.per_user,
            max_body=chance.choice((1 << 20, 400)),
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

    def control(self) -> str:
        chance = self.chance
        parts = [chance.choice(SHARING), f"max-age={chance.choice((0, 1, 5, 60))}"]
        if chance.random() < 0.4:
            parts.append(f"stale-if-error={chance.choice((4, 50))}")
        if chance.random() < 0.3:
            parts.append(f"stale-while-revalidate={chance.choice((2, 50))}")
        return ", ".join(part for part in parts if part)

    # -- the origin -----------------------------------------------------------------------------------------------

    async def answer(self, request: Any) -> Any:
        chance, library = self.chance, self.library
        uri, asked_by = request.url.path, int(request.headers["x-request-id"])
        await anyio.sleep(chance.choice((0, 0, 0.1, 0.5, 3)))
        luck = chance.random() if self.clock.now() > self.began + 2 else 1.0
        if luck < self.trouble / 2:
            raise chance.choice((library.ConnectError, library.ReadError, library.ReadTimeout))("by chance")
        if request.method != "GET":
            self.versions[uri] += 1
            await anyio.sleep(chance.choice((0, 0.3)))
            return library.Response(chance.choice((200, 204, 303)))
        if luck < self.trouble:
            return self.made(request, uri, asked_by, chance.choice((500, 503, 503, 429)), "no-store")
        if luck < self.trouble + 0.05:
            return self.made(request, uri, asked_by, chance.choice((404, 302)), chance.choice(("", "max-age=3")))
        etag = f'"{uri}{self.versions[uri]}{self.chosen(request, uri)}"'
        if self.etags[uri] and etag in request.headers.get("if-none-match", ""):
            control = self.controls[uri]
            for answer in self.answers.values():
                if answer.uri == uri and answer.status == 200 and self.etag_of(answer) == etag:
                    answer.validated.append((self.clock.now(), control))
            return library.Response(304, headers={"etag": etag, "cache-control": control})
        return self.made(request, uri, asked_by, 200, self.controls[uri], etag if self.etags[uri] else "")

    def chosen(self, request: Any, uri: str) -> str:
        """What of the request chooses the answer."""
        names = ("accept-language", "user-agent", "x-kind", "x-forwarded-host", "x-tenant", *IDENTITIES)
        return "".join(f"{request.headers.get(name, '')}|" for name in names).replace('"', "")

    def etag_of(self, answer: Answer) -> str:
        names = ("accept-language", "user-agent", "x-kind", "x-forwarded-host", "x-tenant", *IDENTITIES)
        return f'"{answer.uri}{answer.version}' + "".join(f"{answer.fields.get(name, '')}|" for name in names) + '"'

    def made(self, request: Any, uri: str, asked_by: int, status: int, control: str, etag: str = "") -> Any:
        chance, number = self.chance, next(self.numbers)
        cookie = chance.random() < 0.1
        fields = {name.lower(): value for name, value in request.headers.items()}
        made = Answer(number, asked_by, uri, fields, self.versions[uri], self.clock.now(), status, control, self.vary[uri], cookie)
        made.body = json.dumps([number] * chance.choice((1, 5, 100))).encode()
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
            return self.library.Response(status, headers=headers, content=made.body)
        if shape < 0.8:
            headers["content-length"] = str(len(made.body))
        broken = chance.choice((None, None, None, "cut", "short" if shape < 0.8 else None))
        stream = _stream(self, made, broken, chance.choice((0, 0.2)))
        self.streams.append(stream)
        return self.library.Response(status, headers=headers, stream=stream)

    # -- those who ask --------------------------------------------------------------------------------------------

    def request(self, asked_by: int) -> Any:
        chance = self.chance
        headers = {"x-request-id": str(asked_by), "host": "dep"}
        user = chance.choice((None, None, "u1", "u2"))
        if user is not None:
            headers[self.identity if chance.random() < 0.9 else chance.choice(IDENTITIES)] = user
        if self.explicit and chance.random() < 0.7:
            headers["x-tenant"] = chance.choice(("t1", "t2"))
        for name, values in FIELDS.items():
            if chance.random() < (0.05 if name == "x-forwarded-host" else self.variety):
                headers[name] = chance.choice(values)
        if chance.random() < self.variety / 2:
            headers["cache-control"] = chance.choice(("no-cache", "no-store", "max-age=0", "max-stale=5", "only-if-cached"))
        method = chance.choices(("GET", "POST"), (20, 2))[0]
        return self.library.Request(method, f"http://dep{chance.choice(('/a', '/a', '/a', '/b'))}", headers=headers)

    async def ask(self, asked_by: int) -> None:
        chance = self.chance
        await anyio.sleep(chance.choice((0, 0, 0.05, 0.5, 1, 3, 8, 9, 30)))
        request = self.request(asked_by)
        uri, began, floor, version = request.url.path, self.clock.now(), self.floor[request.url.path], self.versions[request.url.path]
        with anyio.move_on_after(chance.choice((0.02, 0.3, 1, 100, 100, 100))):
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
                if chance.random() < 0.9:
                    with contextlib.suppress(self.library.TransportError, ResilienceError):
                        body = b"".join([part async for part in response.stream])
                self.judge(request, response, body, asked_by, began, got, floor)
            finally:
                await response.aclose()
                await response.stream.aclose()

    # -- the rules ------------------------------------------------------------------------------------------------

    def judge(self, request: Any, response: Any, body: bytes | None, asked_by: int, began: float, now: float, floor: int) -> None:
        number = response.headers.get("x-number")
        if number is None:
            assert response.status_code == 504 and "only-if-cached" in request.headers["cache-control"]
            return
        answer = self.answers[int(number)]
        told = (answer, request.headers, response.headers, began, now)
        asked = {name.lower(): value for name, value in request.headers.items()}
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
        fresh = answer.seconds("s-maxage", control) or answer.seconds("max-age", control) or 0
        words = {part.strip().partition("=")[0] for part in control.split(",")}
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
        windows = [answer.seconds("stale-while-revalidate", control) or 0]
        if degraded:
            self.seen["degraded"] += 1
            windows = [answer.seconds("stale-if-error", control) or 0, self.fallback if answer.status < 400 else 0]
        elif wants == "max-stale=5":
            windows.append(5)
        else:
            self.seen["refreshed"] += 1
        assert beyond <= max(windows) + EPSILON, told
        assert int(response.headers["age"]) >= int(age - EPSILON), told

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


def _stream(world: World, made: Answer, broken: str | None, pause: float) -> Any:
    library, body = world.library, made.body

    class Stream(library.AsyncByteStream):  # type: ignore[misc,name-defined]
        begun = True
        closed = False

        async def __aiter__(self) -> AsyncIterator[bytes]:
            whole = len(body) if broken is None else len(body) - 1
            for part in _parts(body[:whole]):
                yield part
                await anyio.sleep(pause)
                made.ended_at = world.clock.now()
            if broken == "cut":
                raise library.RemoteProtocolError("cut")

        async def aclose(self) -> None:
            self.closed = True

    return Stream()


def _parts(body: bytes) -> Iterator[bytes]:
    for at in range(0, len(body), 200):
        yield body[at : at + 200]
