"""The last good value of a function: `Fallback.cached`. The cache of HTTP answers, with calls in the place of requests."""

from __future__ import annotations

import copy
import inspect
import itertools
import json
import logging
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..core.asked import Asked
from ..core.bounds import not_negative, positive
from ..core.caching import CachingRules
from ..core.entry import Entry
from ..core.outcome import Outcome
from ..runtime import drive
from ..stores.memory import MemoryStore
from .flight import Flight, Landing
from .flights import Flights
from .key import Key, check_key, finder
from .serving import Serving
from .stock import Found, Stock

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Store
    from .pipeline import Pipeline

__all__ = ["CachedFallback", "FunctionCaching"]

logger = logging.getLogger("resilient")

PLAIN = (str, bytes, int, float, bool, type(None))
LONGEST_KEY = 2000


class CachedFallback(Serving):
    """Made by `Fallback.cached`, which says what it does."""

    def __init__(
        self,
        *,
        ttl: float,
        stale_if_error: float,
        stale_while_revalidate: float,
        soft_timeout: float | None,
        key: Key | None,
        partition: Callable[..., str | None] | None,
        store: Store | None,
    ) -> None:
        not_negative("ttl", ttl)
        not_negative("stale_if_error", stale_if_error)
        not_negative("stale_while_revalidate", stale_while_revalidate)
        if soft_timeout is not None:
            positive("soft_timeout", soft_timeout)
        if key is not None:
            check_key(key)
        if partition is not None and not callable(partition):
            raise TypeError(f"partition: expected a function of the call's arguments, got {partition!r}")
        self.ttl: float = ttl
        self.rules = CachingRules(
            stale_if_error=stale_if_error,
            stale_while_revalidate=stale_while_revalidate,
            max_stale=max(stale_if_error, stale_while_revalidate),
        )
        self.soft_timeout: float | None = soft_timeout
        self.find_key = None if key is None else finder(key)
        self.partition = partition
        self.store: Store = MemoryStore() if store is None else store
        self.stock = Stock(self.store, share_anonymous=False)
        self.eagerness: float = 1.0 if self.store.blocking else 0.0
        self.flights: Flights | None = None
        self._owner: Any = None
        self._lock = threading.Lock()
        self._cooled: dict[str, tuple[float, str]] = {}
        self._names: weakref.WeakKeyDictionary[Any, str] = weakref.WeakKeyDictionary()
        self._numbers = itertools.count(1)
        self.told_unstorable = False

    def join(self, owner: Pipeline) -> None:
        """Tell the time by the pipeline's clock."""
        if self.flights is None:
            self.flights = Flights(owner.clock.now)
            self._owner = owner

    def name_of(self, function: Any) -> str:
        """A name for a function that no other function has.

        Raises:
            TypeError: others would not know it by the same name, and the store is shared with them.
        """
        target = inspect.unwrap(function)
        name = f"{getattr(target, '__module__', '')}.{getattr(target, '__qualname__', '<>')}"
        if "<" not in name:
            return name
        if self.store.blocking:
            raise TypeError(f"Fallback.cached: {function!r} has no name of its own; give a function of a module to a store that is shared")
        with self._lock:
            known = self._names.get(target)
            if known is None:
                known = self._names[target] = f"{name}#{next(self._numbers)}"
        return known

    async def forget(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Let what `function` returned for these arguments be used no more, for any partition; what is on its way neither."""
        await self._forget(self._pipeline().runtime, (self.uri_of(function, args, kwargs),), (), ())

    def forget_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """The same from synchronous code."""
        drive(self._forget(self._pipeline().sync_runtime, (self.uri_of(function, args, kwargs),), (), ()))

    def uri_of(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any], key: Any = None) -> str:
        """What stands in the place of a URI: the function and the key of the call."""
        if key is None:
            key = [_plain(value, function) for value in args], {name: _plain(value, function) for name, value in sorted(kwargs.items())}
        text = repr(key)
        if len(text) > LONGEST_KEY:
            raise ValueError(f"Fallback.cached: the key of a call of {function!r} has {len(text)} characters, more than {LONGEST_KEY}")
        return f"call:{self.name_of(function)}({text})"

    def reset(self) -> None:
        """Forget all that was stored and learnt."""
        with self._lock:
            self._cooled.clear()
        clear = getattr(self.store, "clear", None)
        if clear is not None:
            clear()


def _plain(value: Any, function: Any) -> Any:
    """An argument as part of a key.

    Raises:
        TypeError: two that are equal need not look the same, or two that look the same need not be equal.
    """
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, list | tuple):
        return [_plain(item, function) for item in value]
    if isinstance(value, dict):
        return {str(name): _plain(item, function) for name, item in sorted(value.items(), key=lambda item: str(item[0]))}
    raise TypeError(
        f"Fallback.cached: {type(value).__name__} among the arguments of {function!r} is no key; give key=, a function of the arguments"
    )


class FunctionCaching:
    """The side of a cache that knows calls of functions."""

    def ask(self, call: Call, cache: Any) -> Asked | None:
        """What is asked for; None where it is no value that could be kept."""
        if not isinstance(cache, CachedFallback) or call.streamed or call.uncached:
            return None
        key = None if cache.find_key is None else (cache.find_key(call),)
        partition = call.partition if cache.partition is None else cache.partition(*call.args, **call.kwargs)
        asked = Asked("GET", cache.uri_of(call.fn, call.args, call.kwargs, key), partition=partition)
        return cache.stock.own(asked)

    def solo(self, asked: Asked, entry: Entry | None) -> bool:
        return False

    async def fetch(self, cache: CachedFallback, flight: Flight, branch: Call, inner: Inner, asked: Asked, found: Found) -> None:
        """Call the function, and let the flight land with what it returns."""
        began, runtime = time.time(), branch.runtime
        try:
            value = await inner(branch)
        except BaseException as error:
            cache.broke(flight, branch, asked, error)
            if not isinstance(error, Exception):
                raise
            return
        outcome = Outcome.SUCCESS if branch.plain else branch.outcome_of(value)
        branch.owner.close(branch, outcome, None)
        if outcome.failed:
            cache.failed(flight, branch, asked, value, None, outcome)
            return
        cache.recovered(asked)
        rules, wall = cache.rules, time.time()
        size = _size_of(value) if not cache.store.blocking else self._checked(cache, value)
        entry = Entry.of_value(
            _own_copy(value), ttl=cache.ttl, stale_if_error=rules.stale_if_error, stale_while_revalidate=rules.stale_while_revalidate,
            now=runtime.now(), wall=wall, took=wall - began, size=size or 0,
        )  # fmt: skip
        flight.entry = entry
        if size is not None and not flight.doomed:
            flight.kept = True
            await cache.stock.keep(asked, found, entry, cache.ttl + rules.max_stale, runtime)
        flight.land(Landing.SHARED)

    def _checked(self, cache: CachedFallback, value: Any) -> int | None:
        """The size of a value that others can read; None for one that they cannot."""
        try:
            return len(json.dumps(value, allow_nan=False))
        except (TypeError, ValueError) as error:
            if not cache.told_unstorable:
                cache.told_unstorable = True
                logger.error("Fallback.cached: %s, so it is not kept in a store that is shared; JSON can say less than Python", error)
            return None

    async def let_go(self, branch: Call, head: Any) -> None:
        """Nothing is open."""

    def drop(self, branch: Call) -> None:
        """Nothing is held."""

    async def readable(self, call: Call, flight: Flight) -> bool:
        return flight.entry is not None

    def received(self, call: Call, asked: Asked, flight: Flight, found: Found, *, collapsed: bool) -> Any:
        flight.leave()
        return None if flight.entry is None else _own_copy(flight.entry.value)

    def answer(self, call: Call, asked: Asked, entry: Entry, **told: Any) -> Any:
        return _own_copy(entry.value)

    def nothing(self, call: Call) -> Any:
        raise LookupError("no value is stored")

    def status_of(self, flight: Flight) -> int:
        return 500

    def shareable_failure(self, cache: Any, asked: Asked, flight: Flight) -> bool:
        return True

    def failed(self, call: Call, flight: Flight, *, first: bool) -> Any:
        return flight.head if first else _own_copy(flight.head)


def _own_copy(value: Any) -> Any:
    """What its reader may change without changing what others read."""
    return copy.deepcopy(value) if isinstance(value, list | dict | set | bytearray) else value


def _size_of(value: Any) -> int:
    """About how many bytes a value takes: of text and bytes exactly, of anything else as it would be printed."""
    if isinstance(value, str | bytes | bytearray):
        return len(value)
    return len(repr(value)) if isinstance(value, list | dict | set | tuple) else 200
