"""What a cache has in its store: under which keys, for whom, and until somebody says that it is wrong.

A URI has an entry for everybody, and one for each partition of callers that must not see each other's; where its answers
vary, there stands a note of what they vary by, and each variant has a key of its own.

Each entry carries the marks of its URI, of the paths above it and of its groups, as they were before the origin was asked;
it counts while they are the same. To invalidate is to replace a mark, whoever stores what wherever meanwhile. A store of
this process has marks of what was invalidated alone, and loses none without what was saved before it; one that others share
may lose any, so that there each has to be present.
"""

from __future__ import annotations

import hashlib
import logging
import math
import secrets
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from ..core.entry import Entry, Mark, Variants
from ..core.origin import PORTS
from ..core.vary import selected

if TYPE_CHECKING:
    from ..core.asked import Asked
    from ..protocols import Runtime, Store

__all__ = ["Found", "Stock", "checked_prefix", "normal"]

logger = logging.getLogger("resilient")

DEPTH = 6  # segments of a path that have a mark of their own
HINTS = 1024  # URIs of which it is remembered what their answers vary by
SKEW = 2.0  # seconds that the clocks of processes with one store may differ by
MADE_SECONDS = 60.0  # for which a mark that was made up is made up again as it was
SOFT = "~"  # in the token of a mark, before that of the mark it took the place of
OLDEST = "0-"  # what the token of a mark begins with that was made up, not replaced
MARK_SECONDS = 8 * 86400.0  # longer than any entry is kept
ENTRY_SECONDS = 7 * 86400.0


class Found:
    """What there is for a request, and what will have to be known to keep a new answer.

    Attributes:
        entry: the stored answer that is for this caller, fresh or not.
        varied: whether there are answers, but to requests with other fields.
        generation: of the marks that hold now.
    """

    __slots__ = ("entry", "generation", "new_marks", "softened", "specs", "varied")

    def __init__(self) -> None:
        self.entry: Entry | None = None
        self.varied = False
        self.generation = ""
        self.new_marks: dict[str, Mark] = {}
        self.softened: dict[str, str] = {}
        self.specs: dict[str, Variants] = {}


class Stock:
    """The entries of one cache.

    Args:
        store: where they are.
        share_anonymous: whether a caller who says who he is may be served what an anonymous one got.
        secret: what the digests of credentials are keyed with.
    """

    __slots__ = ("_hints", "_made", "_secret", "_share_anonymous", "_told", "failures", "store")

    def __init__(self, store: Store, *, share_anonymous: bool, secret: bytes | None = None) -> None:
        self.store = store
        self._share_anonymous = share_anonymous
        self._secret = secret or getattr(store, "secret", None) or secrets.token_bytes(32)
        self._hints: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._made: dict[str, tuple[Mark, float]] = {}
        self._told = False
        self.failures = 0

    # -- whose it is ----------------------------------------------------------------------------------------------

    def own(self, asked: Asked) -> Asked:
        """A request with the partition of its caller: the one that was said, else one made of who he says that he is."""
        if asked.partition is not None:
            asked.partition = "p" + asked.partition
        elif asked.identified:
            digest = hashlib.blake2b(key=self._secret, digest_size=16)
            for name in sorted(asked.identity):
                value = asked.get(name)
                digest.update(b"-" if value is None else b"+%d:" % len(value) + value.encode("latin-1"))
            asked.partition = "i" + digest.hexdigest()
        return asked

    def _fits(self, asked: Asked, entry: Entry, base: str) -> bool:
        """Whether an entry under `base` is for this caller."""
        if base or entry.open or asked.partition is None:
            return True
        return self._share_anonymous and asked.partition[0] == "i"

    @property
    def _marked(self) -> bool:
        """Whether anything was invalidated, as far as that can be told."""
        return bool(getattr(self.store, "marked", True))

    # -- looking up -----------------------------------------------------------------------------------------------

    async def find(self, asked: Asked, runtime: Runtime) -> Found:
        """What there is for a request."""
        store, uri, partition, found = self.store, asked.uri, asked.partition, Found()
        bases = ("",) if partition is None else ("", partition)
        things = _marked(uri) if store.blocking or self._marked else ()
        keys = [_key(uri, base) for base in bases]
        hinted: list[tuple[str, str]] = []
        if self._hints:
            for base, key in zip(bases, keys, strict=True):
                hinted += [(base, _variant_key(uri, base, asked, names)) for names in self._hints.get(key, ())]
        records = await self._fetch([*keys, *(key for _, key in hinted), *map(_mark_key, things)], runtime)
        if things:
            self._generation(found, things, records[len(keys) + len(hinted) :])
        candidates = [(base, record) for (base, _), record in zip(hinted, records[len(keys) :], strict=False)]
        missing: list[tuple[str, str]] = []
        for base, key, record in zip(bases, keys, records, strict=False):
            if type(record) is Variants:
                found.specs[base], found.varied = record, True
                known = [one for _, one in hinted]
                missing += [(base, one) for names in record.specs if (one := _variant_key(uri, base, asked, names)) not in known]
                self._hint(key, record.specs)
            elif record is not None:
                candidates.append((base, record))
        if missing:
            candidates += zip((base for base, _ in missing), await self._fetch([key for _, key in missing], runtime), strict=True)
        for base, record in candidates:
            if type(record) is Entry and self._fits(asked, record, base):
                await self._take(found, asked, record, runtime)
        return found

    async def _take(self, found: Found, asked: Asked, entry: Entry, runtime: Runtime) -> None:
        """Consider an entry; of several that fit, the most recent is right (RFC 9111 section 4)."""
        if math.isnan(entry.arrived):  # it is from another process
            entry.place(runtime.now(), time.time())
        if entry.generation != found.generation or entry.groups:
            held = await self._held(entry, found, asked.uri, runtime)
            if held is None:
                return
            entry = held
        if entry.vary and selected(asked, entry.vary) != entry.selected:
            found.varied = True
        elif found.entry is None or entry.date >= found.entry.date:
            found.entry = entry

    def _generation(self, found: Found, things: Sequence[str], marks: Sequence[Any]) -> str:
        """The tokens of the marks. Where a store may lose one, those that are not there are made up, to be written too."""
        tokens = []
        for thing, mark in zip(things, marks, strict=True):
            if type(mark) is Mark:
                token, soft, before = mark.token.partition(SOFT)
                tokens.append(token)
                if soft:
                    found.softened[token] = before
                self._made.pop(thing, None)
            elif self.store.blocking:
                found.new_marks[thing] = made = self._made_up(thing)
                tokens.append(made.token)
            else:
                tokens.append("")
        found.generation = ".".join(tokens) if any(tokens) else ""
        return found.generation

    def _made_up(self, thing: str) -> Mark:
        """A mark for what has none: the same for all who look at the same time, or each would undo what the other stores."""
        now = time.monotonic()
        known = self._made.get(thing)
        if known is None or known[1] < now:
            if len(self._made) >= HINTS:
                self._made.clear()
            known = self._made[thing] = Mark(OLDEST + secrets.token_hex(8)), now + MADE_SECONDS
        return known[0]

    async def _held(self, entry: Entry, found: Found, uri: str, runtime: Runtime) -> Entry | None:
        """An entry as it counts by the marks that there are now; None if it does not."""
        own, _, groups = entry.generation.partition("/")
        since = _softened(own, found)
        if since is not None and entry.groups and (self.store.blocking or self._marked):
            now = Found()
            self._generation(now, [_group(uri, one) for one in entry.groups], await self._marks_of(uri, entry.groups, runtime))
            softened = None if now.new_marks else _softened(groups, now)
            since = None if softened is None else min(since, softened)
        if since is None or since == math.inf:
            return None if since is None else entry
        # It is stale since it was invalidated, and may stand in for an error only, for as long as it might have then.
        age = entry.age(runtime.now()) - max(time.time() - since, 0.0)
        return replace(entry, lifetime=min(entry.lifetime, age), stale_while_revalidate=0.0)

    async def _marks_of(self, uri: str, groups: Sequence[str], runtime: Runtime) -> Sequence[Any]:
        return await self._fetch([_mark_key(_group(uri, group)) for group in groups], runtime)

    # -- keeping --------------------------------------------------------------------------------------------------

    async def keep(self, asked: Asked, found: Found, entry: Entry, seconds: float, runtime: Runtime) -> None:
        """Put an answer where requests like `asked` will find it.

        Args:
            asked: the request that it answers.
            found: what was found before the origin was asked.
            entry: the answer.
            seconds: how long it can be of use.
            runtime: the caller's.
        """
        base = "" if entry.open or asked.partition is None else asked.partition
        records: dict[str, tuple[Any, float]] = {}
        if (self.store.blocking or self._marked) and not await self._mark(records, found, entry, asked.uri, runtime):
            return
        key, seconds = _key(asked.uri, base), min(seconds, ENTRY_SECONDS)
        gone: tuple[str, ...] = ()
        known = found.specs.get(base)
        if entry.vary:
            variant = _variant_key(asked.uri, base, asked, entry.vary)
            note, gone = (known or Variants()).added(entry.vary, variant)
            records[key] = note, ENTRY_SECONDS
            records[variant] = entry, seconds
            self._hint(key, note.specs)
        else:
            records[key] = entry, seconds
            gone = () if known is None else known.keys
            self._hints.pop(key, None)
        await self._do(lambda: self.store.save(records), runtime)
        if gone:
            await self._do(lambda: self.store.remove(gone), runtime)

    async def drop(self, asked: Asked, entry: Entry, runtime: Runtime) -> None:
        """Remove the entry that was found for a request, unless it is there for others too."""
        if asked.partition is not None and entry.open:
            return
        base = asked.partition or ""
        key = _variant_key(asked.uri, base, asked, entry.vary) if entry.vary else _key(asked.uri, base)
        await self._do(lambda: self.store.remove((key,)), runtime)

    async def _mark(self, records: dict[str, Any], found: Found, entry: Entry, uri: str, runtime: Runtime) -> bool:
        """Give an entry its generation. False if it or one of its groups was invalidated while the origin was asked."""
        shared = self.store.blocking
        things, own = [_group(uri, group) for group in entry.groups], () if shared else _marked(uri)
        marks = await self._fetch([*map(_mark_key, (*own, *things))], runtime) if own or things else ()
        if own and self._generation(Found(), own, marks[: len(own)]) != found.generation:
            return False
        entry.generation = found.generation
        new_marks = found.new_marks
        if things:
            if any(type(mark) is Mark and _made_at(mark) >= entry.requested_at - SKEW for mark in marks[len(own) :]):
                return False
            groups = Found()
            entry.generation += "/" + self._generation(groups, things, marks[len(own) :])
            new_marks = {**new_marks, **groups.new_marks}
        for thing, mark in new_marks.items():
            records[_mark_key(thing)] = mark, MARK_SECONDS
        return True

    def _hint(self, key: str, specs: tuple[tuple[str, ...], ...]) -> None:
        """Remember what the answers of a URI vary by, so that the right one is asked for at once the next time."""
        if not self.store.blocking:
            return
        if len(self._hints) >= HINTS:
            self._hints.clear()
        self._hints[key] = specs

    # -- invalidating ---------------------------------------------------------------------------------------------

    async def forget(
        self, uris: Iterable[str], prefixes: Iterable[str], groups: Iterable[tuple[str, str]], runtime: Runtime, *, soft: bool = False
    ) -> None:
        """Make sure that nothing stored under these is ever found again, whosever it is.

        Args:
            uris: single ones.
            prefixes: beginnings that end at a slash.
            groups: each with a URI of its origin.
            runtime: the caller's.
            soft: let it stand in for errors still, where it may.
        """
        things = [*uris, *prefixes, *(_group(uri, group) for uri, group in groups)]
        keys = [_mark_key(thing) for thing in things]
        before = await self._fetch(keys, runtime) if soft else [None] * len(keys)
        marks = {key: (_new_mark(old, soft=soft), MARK_SECONDS) for key, old in zip(keys, before, strict=True)}
        for thing in things:
            self._made.pop(thing, None)
        await self._do(lambda: self.store.save(marks), runtime)

    # -- the store ------------------------------------------------------------------------------------------------

    async def _fetch(self, keys: Sequence[str], runtime: Runtime) -> Sequence[Any]:
        peek = getattr(self.store, "peek", None)
        at_hand = None if peek is None else peek(keys)
        if at_hand is not None:
            return at_hand  # type: ignore[no-any-return]
        records = await self._do(lambda: self.store.load(keys), runtime)
        return [None] * len(keys) if records is None else records

    async def _do(self, act: Callable[[], Any], runtime: Runtime) -> Any:
        try:
            return await runtime.offload(act) if self.store.blocking else act()
        except Exception as error:  # noqa: BLE001 - counted and logged: the origin is asked instead
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not self._told:
            self._told = True
            logger.error("the store %r of a cache failed, further failures are only counted", self.store, exc_info=error)


def normal(name: str, url: str) -> str:
    """A URL as the client libraries write it: scheme and host in lower case, no port of the scheme's own, no fragment.

    Raises:
        TypeError, ValueError: it is none; the message begins with `name`.
    """
    if not isinstance(url, str):
        raise TypeError(f"{name}: expected a URL such as https://api.example.com/orders, got {url!r}")
    parts = urlsplit(url)
    if parts.scheme not in PORTS or not parts.hostname:
        raise ValueError(f"{name}: expected a URL such as https://api.example.com/orders, got {url!r}")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    port = "" if parts.port in (None, PORTS[parts.scheme]) else f":{parts.port}"
    query = f"?{parts.query}" if "?" in url.partition("#")[0] else ""
    return f"{parts.scheme}://{host}{port}{parts.path or '/'}{query}"


def checked_prefix(prefix: str) -> str:
    """Require the beginning of URLs that ends with a whole segment of a path.

    Raises:
        ValueError: it does not, or has so many segments that what lies below it is not told apart.
    """
    if not prefix.endswith("/") or "?" in prefix:
        raise ValueError(f"prefix: expected the beginning of URLs up to a slash, such as https://api.example.com/orders/, got {prefix!r}")
    if prefix.count("/") - 3 > DEPTH:
        raise ValueError(f"prefix: expected at most {DEPTH} segments, got {prefix!r}")
    return prefix


def _key(uri: str, base: str) -> str:
    return f"e\n{uri}\n{base}"


def _variant_key(uri: str, base: str, asked: Asked, names: tuple[str, ...]) -> str:
    digest = hashlib.blake2b(repr((names, selected(asked, names))).encode("utf-8", "surrogateescape"), digest_size=16)
    return f"v\n{uri}\n{base}\n{digest.hexdigest()}"


def _mark_key(thing: str) -> str:
    return f"m\n{thing}\n"


def _new_mark(old: Any, *, soft: bool) -> Mark:
    """A mark that invalidates: its token begins with the time. A soft one says which one it takes the place of."""
    before = f"{SOFT}{old.token.partition(SOFT)[0] if type(old) is Mark else ''}" if soft else ""
    return Mark(f"{int(time.time() * 1000):x}-{secrets.token_hex(8)}{before}")


def _softened(generation: str, found: Found) -> float | None:
    """Since when, in wall time, an entry of a generation is good for errors alone; infinity for not yet, None for not even that."""
    if generation == found.generation:
        return math.inf
    now = found.generation.split(".")
    then = generation.split(".") if generation else [""] * len(now)
    if len(then) != len(now) or not found.softened:
        return None
    since = math.inf
    for old, new in zip(then, now, strict=True):
        if old == new:
            continue
        if found.softened.get(new) != old:
            return None
        since = min(since, _made_at(Mark(new)))
    return since


def _made_at(mark: Mark) -> float:
    head = mark.token.partition("-")[0]
    try:
        return int(head, 16) / 1000
    except ValueError:  # another version's: nobody knows
        return math.inf


def _group(uri: str, group: str) -> str:
    return f"{_origin(uri)}#{group}"


def _origin(uri: str) -> str:
    parts = urlsplit(uri)
    return f"{parts.scheme}://{parts.netloc}"


def _marked(uri: str) -> tuple[str, ...]:
    """What has marks that an entry of `uri` has to have: itself, the paths above it, and the groups of its origin."""
    bare = uri.partition("?")[0]
    start = bare.find("/", bare.find("://") + 3)
    things = [uri]
    depth = 0
    while start != -1 and depth <= DEPTH:
        things.append(bare[: start + 1])
        start = bare.find("/", start + 1)
        depth += 1
    return tuple(things)
