"""The last good value of a function: `Fallback.cached`. The cache of HTTP answers, with calls in the place of requests."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Collection, Coroutine, Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.bounds import exception_classes, not_negative, positive, whole
from ..core.caching import CachingRules
from ..runtime import drive
from ..stores.codec import check_value
from ..stores.memory import MemoryStore
from .flights import Flights
from .functions import FUNCTIONS
from .key import KEYS, Key, check_key
from .naming import Names, opened, said, word
from .serving import Serving
from .shown import shown
from .stock import Stock
from .values import size_of

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Store
    from .pipeline import Pipeline

__all__ = ["CachedFallback"]

logger = logging.getLogger("resilient")

MIB = 1024 * 1024
LARGEST_SHARED = MIB - 4096  # characters of JSON that a store takes, less what it says besides


class CachedFallback(Serving):
    """Return what a function returned before, for as long as it is fresh, and stale where that beats an error.

    Made as `Fallback.cached(ttl=60, stale_if_error=3600)`, for the functions of a dependency; `Cache` does the same for
    HTTP. Outside of the policies that it saves work. Several callers who ask for the same thing at the same time share one
    call, whose value or failure is for all of them. A value that was made for one partition (`resilient.context.partition`)
    is never returned in another.

    A value is of the function and its arguments, as they were given: None, booleans, numbers, text, bytes, dates,
    `Decimal`, `UUID`, members of enums, and lists, tuples, sets and dicts of these. For other arguments, such as the `self` of
    a method, `key` has to say what counts. A function that has no name of its own (a lambda, one within another) is known
    by the object that it is, and not at all by a store that others share.

    Everybody gets a copy of his own. What cannot be copied is not kept, nor what JSON cannot say in a shared store.

    Args:
        ttl: seconds for which a value is fresh; up to a tenth less, so that not all expire at once. 0 for one that is only
            to stand in for failures.
        stale_if_error: seconds after that for which it is returned in place of a failure, marked as degraded.
        stale_while_revalidate: seconds after that for which it is returned while the function is called anew behind it.
        soft_timeout: seconds to wait for a new value where an old one could stand in for a failure. A synchronous caller who
            makes the call himself waits for it all the same.
        key: what tells calls of a function apart: a function of its arguments, of a method the object first, or "route",
            "origin", "partition". None stands for a call that is not to be cached.
        partition: whose the value is: a function of the same arguments that returns a word, or None for everybody. By
            default that of `resilient.context.partition`.
        on: an exception class, or several, that a value may stand in for although they are no failure of the dependency.
        max_size: bytes; larger values are returned and not kept.
        refresh_early: how eagerly the function is called anew before a value expires, as for `Cache`.
        store: where values are kept; by default 64 MiB of this process's memory.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        *,
        ttl: float,
        stale_if_error: float = 0.0,
        stale_while_revalidate: float = 0.0,
        soft_timeout: float | None = None,
        key: Key | None = None,
        partition: Callable[..., str | None] | None = None,
        on: type[Exception] | Iterable[type[Exception]] = (),
        max_size: int = MIB,
        refresh_early: float | None = None,
        store: Store | None = None,
    ) -> None:
        self._given = {name: value for name, value in locals().items() if name not in ("self", "__class__")}
        not_negative("ttl", ttl)
        not_negative("stale_if_error", stale_if_error)
        not_negative("stale_while_revalidate", stale_while_revalidate)
        if soft_timeout is not None:
            positive("soft_timeout", soft_timeout)
        if key is not None:
            check_key(key)
        if partition is not None and not callable(partition):
            raise TypeError(f"partition: expected a function of the call's arguments, got {partition!r}")
        whole("max_size", max_size)
        if refresh_early is not None:
            not_negative("refresh_early", refresh_early)
        self.ttl: float = ttl
        self.rules: CachingRules = CachingRules(
            stale_if_error=stale_if_error,
            stale_while_revalidate=stale_while_revalidate,
            max_stale=max(stale_if_error, stale_while_revalidate),
        )
        self.soft_timeout: float | None = soft_timeout
        self.max_size: int = max_size
        self.on: tuple[type[Exception], ...] = exception_classes("on", on)
        self.store: Store = MemoryStore() if store is None else store
        self.stock: Stock = Stock(self.store, share_anonymous=False)
        self.eagerness: float = (1.0 if self.store.blocking else 0.0) if refresh_early is None else refresh_early
        self.flights: Flights | None = None
        self._key = key
        self._partition = partition
        self._owner: Any = None
        self._lock = threading.Lock()
        self._cooled: dict[str, tuple[float, str]] = {}
        self._names = Names()
        self._told: set[str] = set()

    def __repr__(self) -> str:
        return shown(self, **self._given)

    changeable: ClassVar[frozenset[str]] = frozenset({"ttl", "stale_if_error", "stale_while_revalidate", "soft_timeout", "max_size"})
    """Settings that `taking` can change at work: those that say how long and how much, and none that say whose a value is."""

    def taking(self, other: CachedFallback, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; what is stored stays, and is fresh for as long as it was to be."""
        windows = {name: getattr(other.rules, name) for name in names if name.startswith("stale_")}
        rules = replace(self.rules, **windows)
        rules = replace(rules, max_stale=max(rules.stale_if_error, rules.stale_while_revalidate))
        return self._taking(other, names, rules, [name for name in names if name not in windows])

    def join(self, owner: Pipeline) -> None:
        """Tell the time by the pipeline's clock."""
        if self.flights is None:
            self.flights = Flights(owner.clock.now)
            self._owner = owner

    def run(self, call: Call, inner: Inner) -> Coroutine[Any, Any, Any]:
        if call.caching is None:
            call.caching = FUNCTIONS
        elif call.caching is not FUNCTIONS:
            error = TypeError("Fallback.cached is for functions; answers to HTTP requests are kept by a Cache, which knows what they allow")
            call.ignore(error)
            raise error
        return super().run(call, inner)

    # -- operations -----------------------------------------------------------------------------------------------

    async def forget(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """Return no more what `function` returned for these arguments, in any partition; nor what it is about to return.

        Args:
            function: as it was decorated or given to `call`; a method of its object.
            *args: as they were given to it ...
            **kwargs: ... and these.

        Raises:
            TypeError: such a call could not have been cached, as where it is made.
        """
        await self._forget(self._pipeline().runtime, self._uris(function, args, kwargs), (), ())

    def forget_sync(self, function: Callable[..., Any], /, *args: Any, **kwargs: Any) -> None:
        """The same from synchronous code; with a store that does I/O it blocks."""
        drive(self._forget(self._pipeline().sync_runtime, self._uris(function, args, kwargs), (), ()))

    # -- what a call is known by ----------------------------------------------------------------------------------

    def _uris(self, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[str, ...]:
        function, args, opened_kwargs = opened(function, args, kwargs)
        call = self._pipeline().begin(self._names.wrapped(function), args, dict(opened_kwargs))
        uri = self.key_of(call)[0]
        return () if uri is None else (uri,)

    def key_of(self, call: Call) -> tuple[str | None, str | None]:
        """What stands in the place of a URI, None for a call that is not to be cached; and whose call it is.

        Raises:
            TypeError: it cannot be told from others. Whatever the program's own `key` and `partition` raise.
        """
        function, args, kwargs = opened(call.fn, call.args, call.kwargs)
        name, signature = self._names.of(function, lasting=self.store.blocking)
        key: Any
        if self._key is None:
            if kwargs and signature is not None:
                try:
                    bound = signature.bind(*args, **kwargs)  # by position or by name, it is the same call
                except TypeError:
                    pass  # which the function is going to raise itself
                else:
                    args, kwargs = bound.args, bound.kwargs
            key = self._said((args, dict(kwargs)), f"among the arguments of {function!r} is no key; give key=, a function of the arguments")
        else:
            found = KEYS[self._key](call) if isinstance(self._key, str) else self._key(*args, **kwargs)
            if found is None:
                return None, None
            key = self._said(found, f"was returned by key for {function!r}, and is no key")
        if self._partition is None:
            return word(name, key), call.partition
        partition = self._partition(*args, **kwargs)
        if partition is not None and not isinstance(partition, str):
            raise TypeError(f"partition: expected a function that returns a word or None, got {partition!r} from it")
        return word(name, key), partition

    @staticmethod
    def _said(value: Any, why: str) -> Any:
        try:
            return said(value)
        except TypeError as error:
            raise TypeError(f"Fallback.cached: {error} {why}") from None

    # -- what is kept ---------------------------------------------------------------------------------------------

    def size_to_keep(self, value: Any) -> int | None:
        """The bytes that a value takes; None for one that is not to be kept."""
        size = size_of(value, self.max_size)
        if self.store.blocking:
            try:
                check_value(value)
            except TypeError as error:
                self.tell("is returned but not kept", error)
                return None
            size = max(size, len(json.dumps(value)))
            if size > LARGEST_SHARED:
                return None
        return None if size > self.max_size else size

    def tell(self, what: str, error: Exception) -> None:
        """Log once what becomes of a value."""
        with self._lock:
            known = what in self._told
            self._told.add(what)
        if not known:
            logger.error("Fallback.cached of %r: a value %s: %s; further ones are not logged", self._pipeline().name, what, error)
