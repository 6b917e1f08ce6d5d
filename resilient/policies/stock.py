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
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, TypeAlias

from ..core.entry import Entry, Mark, Variants
from ..core.vary import selected
from .places import entry_key, group_of, mark_key, places_of, things_of, variant_key

if TYPE_CHECKING:
    from ..core.asked import Asked
    from ..protocols import Runtime, Store

__all__ = ["Found", "Stock"]

logger = logging.getLogger("resilient")

HINTS = 1024  # URIs of which it is remembered what their answers vary by
SKEW = 2.0  # seconds that the clocks of processes with one store may differ by
MADE_SECONDS = 60.0  # for which a mark that was made up is made up again as it was
SEEN_SECONDS = 1.0  # likewise, once it was seen in the store: as long as a look-up may be on its way
SOFT = "~"  # in the token of a mark, before that of the mark it took the place of
OLDEST = "0-"  # what the token of a mark begins with that was made up, not replaced
MARK_SECONDS = 8 * 86400.0  # longer than any entry is kept
ENTRY_SECONDS = 7 * 86400.0
ANYBODY = ("",)
NONE: Mapping[str, Any] = MappingProxyType({})

Look: TypeAlias = Callable[[Sequence[str]], "Sequence[Any] | None"]


class Found:
    """What there is for a request, and what will have to be known to keep a new answer.

    Attributes:
        entry: the stored answer that is for this caller, fresh or not.
        varied: whether there are answers, but to requests with other fields.
        foreign: whether there is an answer, but for other callers.
        generation: of the marks that hold now.
    """

    # On the class, for most look-ups never come to set them. Maps are replaced rather than changed.
    entry: Entry | None = None
    varied = foreign = False
    generation = ""
    new_marks: Mapping[str, Mark] = NONE
    softened: Mapping[str, str] = NONE
    specs: Mapping[str, Variants] = NONE


class Stock:
    """The entries of one cache.

    Args:
        store: where they are.
        share_anonymous: whether a caller who says who he is may be served what an anonymous one got.
        secret: what the digests of credentials are keyed with.
    """

    __slots__ = ("_hints", "_look", "_made", "_secret", "_share_anonymous", "_told", "failures", "store")

    def __init__(self, store: Store, *, share_anonymous: bool, secret: bytes | None = None) -> None:
        self.store = store
        self._share_anonymous = share_anonymous
        self._secret = secret or getattr(store, "secret", None) or secrets.token_bytes(32)
        self._hints: dict[str, tuple[tuple[str, ...], ...]] = {}
        self._made: dict[str, tuple[Mark, float]] = {}
        self._told = False
        self.failures = 0
        # What tells of records without waiting.
        self._look: Look | None = getattr(store, "peek", None) or (None if store.blocking else self._load)

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
        return self.store.blocking or bool(getattr(self.store, "marked", True))

    # -- looking up -----------------------------------------------------------------------------------------------

    def at_hand(self, asked: Asked, runtime: Runtime) -> Found | None:
        """What there is for a request, where that can be told without waiting; else None."""
        look = self._look
        if look is None:
            return None
        try:
            return self._found(asked, look, runtime)
        except _Elsewhere:
            return None
        except Exception as error:  # noqa: BLE001 - counted and logged: it is loaded instead
            self._failed(error)
            return None

    async def find(self, asked: Asked, runtime: Runtime) -> Found:
        """What there is for a request."""
        found = self.at_hand(asked, runtime)
        return await self.look_up(asked, runtime) if found is None else found

    async def look_up(self, asked: Asked, runtime: Runtime) -> Found:
        """The same for who knows already that it is not at hand."""
        found = await self._do(lambda: self._found(asked, self._load, runtime), runtime)
        return self._found(asked, _nothing, runtime) if found is None else found

    def _found(self, asked: Asked, look: Look, runtime: Runtime) -> Found:
        uri, partition, found = asked.uri, asked.partition, Found()
        if partition is None and not (self._hints and entry_key(uri, "") in self._hints):
            return self._found_for_all(asked, found, look, runtime)
        bases = ANYBODY if partition is None else ("", partition)
        things = things_of(uri) if self._marked else ()
        keys = [entry_key(uri, base) for base in bases]
        hinted: list[tuple[str, str]] = []
        if self._hints:
            for base, key in zip(bases, keys, strict=True):
                hinted += [(base, variant_key(uri, base, asked, names)) for names in self._hints.get(key, ())]
        records = _known(look([*keys, *(key for _, key in hinted), *map(mark_key, things)]))
        if things:
            self._generation(found, things, records[len(keys) + len(hinted) :])
        candidates = [(base, record) for (base, _), record in zip(hinted, records[len(keys) :], strict=False)]
        missing: list[tuple[str, str]] = []
        for base, key, record in zip(bases, keys, records, strict=False):
            if type(record) is Variants:
                found.specs, found.varied = {**found.specs, base: record}, True
                known = [one for _, one in hinted]
                missing += [(base, one) for names in record.specs if (one := variant_key(uri, base, asked, names)) not in known]
                self._hint(key, record.specs)
            elif record is not None:
                candidates.append((base, record))
        if missing:
            candidates += zip((base for base, _ in missing), _known(look([key for _, key in missing])), strict=True)
        for base, record in candidates:
            if type(record) is not Entry:
                continue
            if self._fits(asked, record, base):
                self._take(found, asked, record, look, runtime)
            else:
                found.foreign = True
        return found

    def _found_for_all(self, asked: Asked, found: Found, look: Look, runtime: Runtime) -> Found:
        """The same where the caller is nobody in particular, and nothing is known of variants: one entry, as nearly always."""
        uri = asked.uri
        if self._marked:
            things, keys = places_of(uri)
            record, *marks = _known(look(keys))
            self._generation(found, things, marks)
        else:
            (record,) = _known(look((entry_key(uri, ""),)))
        if type(record) is Entry:
            self._take(found, asked, record, look, runtime)
        elif type(record) is Variants:
            found.specs, found.varied = {"": record}, True
            self._hint(entry_key(uri, ""), record.specs)
            for variant in _known(look([variant_key(uri, "", asked, names) for names in record.specs])):
                if type(variant) is Entry:
                    self._take(found, asked, variant, look, runtime)
        return found

    def _take(self, found: Found, asked: Asked, entry: Entry, look: Look, runtime: Runtime) -> None:
        """Consider an entry; of several that fit, the most recent is right (RFC 9111 section 4), but no failure before an answer."""
        if entry.arrived != entry.arrived:  # NaN: it is from another process
            entry.place(runtime.now(), time.time())
        if entry.generation != found.generation or entry.groups:
            held = self._held(entry, found, asked.uri, look, runtime)
            if held is None:
                return
            entry = held
        if entry.vary and selected(asked, entry.vary) != entry.selected:
            found.varied = True
        elif found.entry is None or (entry.status < 500, entry.date) >= (found.entry.status < 500, found.entry.date):
            found.entry = entry

    def _generation(self, found: Found, things: Sequence[str], marks: Sequence[Any]) -> str:
        """The tokens of the marks. Where a store may lose one, those that are not there are made up, to be written too."""
        tokens = []
        for thing, mark in zip(things, marks, strict=True):
            if type(mark) is Mark:
                token = mark.token
                if SOFT in token:
                    token, _, before = token.partition(SOFT)
                    found.softened = {**found.softened, token: before}
                tokens.append(token)
                if self._made:
                    self._seen(thing, mark)
            elif self.store.blocking:
                made = self._made_up(thing)
                found.new_marks = {**found.new_marks, thing: made}
                tokens.append(made.token)
            else:
                tokens.append("")
        found.generation = ".".join(tokens) if any(tokens) else ""
        return found.generation

    def _seen(self, thing: str, mark: Mark) -> None:
        """A mark is in the store. If it was made up here, those who looked before it was there may make it up a moment longer."""
        known = self._made.get(thing)
        if known is None:
            return
        if known[0].token != mark.token:
            self._made.pop(thing, None)
        else:
            self._made[thing] = known[0], min(known[1], time.monotonic() + SEEN_SECONDS)

    def _made_up(self, thing: str) -> Mark:
        """A mark for what has none: the same for all who look at the same time, or each would undo what the other stores."""
        now = time.monotonic()
        known = self._made.get(thing)
        if known is None or known[1] < now:
            if len(self._made) >= HINTS:
                self._made.clear()
            known = self._made[thing] = Mark(OLDEST + secrets.token_hex(8), first=True), now + MADE_SECONDS
        return known[0]

    def _held(self, entry: Entry, found: Found, uri: str, look: Look, runtime: Runtime) -> Entry | None:
        """An entry as it counts by the marks that there are now; None if it does not."""
        own, _, groups = entry.generation.partition("/")
        since = _softened(own, found)
        if since is not None and entry.groups and self._marked:
            now, things = Found(), [group_of(uri, one) for one in entry.groups]
            self._generation(now, things, _known(look([mark_key(thing) for thing in things])))
            softened = None if now.new_marks else _softened(groups, now)
            since = None if softened is None else min(since, softened)
        if since is None or since == math.inf:
            return None if since is None else entry
        # It is stale since it was invalidated, and may stand in for an error only, for as long as it might have then.
        age = entry.age(runtime.now()) - max(time.time() - since, 0.0)
        return replace(entry, lifetime=min(entry.lifetime, age), stale_while_revalidate=0.0)

    def changed(self, found: Found, since: float) -> bool:
        """Whether anything that an answer depends on was invalidated after a moment of wall time; in doubt, it was.

        For who had no time to look before the answer was made: `found` is what there is after it.
        """
        return any(_made_at(token) >= since - SKEW for token in found.generation.split(".") if token)

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
        if self.store.blocking:
            await self._do(lambda: self._keep(asked, found, entry, seconds), runtime)
            return
        try:
            self._keep(asked, found, entry, seconds)
        except Exception as error:  # noqa: BLE001 - counted and logged: it is not kept
            self._failed(error)

    def _keep(self, asked: Asked, found: Found, entry: Entry, seconds: float) -> None:
        base = "" if entry.open or asked.partition is None else asked.partition
        records: dict[str, tuple[Any, float]] = {}
        if self._marked and not self._mark(records, found, entry, asked.uri):
            return
        key, seconds = entry_key(asked.uri, base), min(seconds, ENTRY_SECONDS)
        gone: tuple[str, ...] = ()
        known = found.specs.get(base)
        if entry.vary:
            variant = variant_key(asked.uri, base, asked, entry.vary)
            note, gone = (known or Variants()).added(entry.vary, variant)
            records[key] = note, ENTRY_SECONDS
            records[variant] = entry, seconds
            self._hint(key, note.specs)
        else:
            records[key] = entry, seconds
            gone = () if known is None else known.keys
            if self._hints:
                self._hints.pop(key, None)
        self.store.save(records)
        if gone:
            self.store.remove(gone)

    async def drop(self, asked: Asked, entry: Entry | None, runtime: Runtime) -> None:
        """Remove the entry that was found for a request, unless it is there for others too."""
        if entry is None or (asked.partition is not None and entry.open):
            return
        base = asked.partition or ""
        key = variant_key(asked.uri, base, asked, entry.vary) if entry.vary else entry_key(asked.uri, base)
        await self._do(lambda: self.store.remove((key,)), runtime)

    def _mark(self, records: dict[str, Any], found: Found, entry: Entry, uri: str) -> bool:
        """Give an entry its generation. False if it or one of its groups was invalidated while the origin was asked."""
        shared = self.store.blocking
        things, own = [group_of(uri, group) for group in entry.groups], () if shared else things_of(uri)
        marks = self._load([*map(mark_key, (*own, *things))]) if own or things else ()
        if own and self._generation(Found(), own, marks[: len(own)]) != found.generation:
            return False
        entry.generation = found.generation
        new_marks = found.new_marks
        if things:
            if any(type(mark) is Mark and _made_at(mark.token) >= entry.requested_at - SKEW for mark in marks[len(own) :]):
                return False
            groups = Found()
            entry.generation += "/" + self._generation(groups, things, marks[len(own) :])
            new_marks = {**new_marks, **groups.new_marks}
        for thing, mark in new_marks.items():
            records[mark_key(thing)] = mark, MARK_SECONDS
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
        things = [*uris, *prefixes, *(group_of(uri, group) for uri, group in groups)]
        keys = [mark_key(thing) for thing in things]
        for thing in things:
            self._made.pop(thing, None)

        def replace_marks() -> None:
            before = self._load(keys) if soft else [None] * len(keys)
            self.store.save({key: (_new_mark(old, soft=soft), MARK_SECONDS) for key, old in zip(keys, before, strict=True)})

        await self._do(replace_marks, runtime, patient=True)

    # -- the store ------------------------------------------------------------------------------------------------

    def _load(self, keys: Sequence[str]) -> Sequence[Any]:
        try:
            return self.store.load(keys)
        except Exception as error:  # noqa: BLE001 - counted and logged: the origin is asked instead
            self._failed(error)
            return _nothing(keys)

    async def _do(self, act: Callable[[], Any], runtime: Runtime, *, patient: bool = False) -> Any:
        if not self.store.blocking:
            return self._attempt(act)
        try:
            return await runtime.offload(act, patient=patient)
        except Exception as error:  # noqa: BLE001 - counted and logged: the origin is asked instead
            self._failed(error)
            return None

    def _attempt(self, act: Callable[[], Any]) -> Any:
        try:
            return act()
        except Exception as error:  # noqa: BLE001 - counted and logged: the origin is asked instead
            self._failed(error)
            return None

    def _failed(self, error: Exception) -> None:
        self.failures += 1
        if not self._told:
            self._told = True
            logger.error("the store %r of a cache failed, further failures are only counted", self.store, exc_info=error)


class _Elsewhere(Exception):
    """What is looked for cannot be told without waiting."""


def _known(records: Sequence[Any] | None) -> Sequence[Any]:
    if records is None:
        raise _Elsewhere
    return records


def _nothing(keys: Sequence[str]) -> Sequence[Any]:
    return [None] * len(keys)


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
        since = min(since, _made_at(new))
    return since


def _made_at(token: str) -> float:
    """When a mark was made, in wall time, by its token."""
    head = token.partition("-")[0]
    try:
        return int(head, 16) / 1000
    except ValueError:  # another version's: nobody knows
        return math.inf
