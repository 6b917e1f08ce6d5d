"""Cache: the last good answer, for as long as it is right, and marked where it is served in place of a better one."""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import anyio

from ..core.asked import IDENTITY
from ..core.bounds import flag, not_negative, positive, whole
from ..core.caching import CachingRules
from ..protocols import Store
from ..runtime import drive
from ..stores.memory import MemoryStore
from .flights import Flights
from .places import checked_prefix, normal
from .serving import Serving
from .shown import shown
from .stock import Stock

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["Cache"]

MIB = 1024 * 1024
RETUNED = frozenset({"ttl", "negative_ttl", "heuristic", "stale_if_error", "stale_while_revalidate", "max_stale", "stale_statuses"})


class Cache(Serving):
    """Answer from a store what was answered before, by RFC 9111, and serve it stale where that beats an error.

    Outside of the policies that it saves work: what it answers costs no slot, no retry and no time. Several callers who
    ask for the same thing at the same time share one fetch. What one user was given is never served to another.

    Args:
        ttl: seconds for which a good answer is fresh that says nothing about that.
        stale_if_error: seconds that a stale answer may be served for in place of an error, also where the origin did
            not say so (RFC 5861); never against its `no-cache`, `must-revalidate` or `s-maxage`. The origin's own
            `stale-if-error` holds in any case, up to `max_stale`.
        stale_while_revalidate: seconds that a stale answer may be served for while a new one is fetched behind it.
        soft_timeout: seconds to wait for a new answer where a stale one could stand in for an error.
        negative_ttl: seconds to keep answers by status, such as `{404: 5}`, where the origin gives no lifetime.
        shared: whether answers serve many users. False for a client that has one user: then `private` is kept too.
        per_user: whether a shared cache keeps, for each user by himself, what was asked for with credentials.
        partition: whose the answer is: a function of the request that returns a word, or None for everybody.
        identity: names of further fields that say who is asking; those of credentials and cookies are known.
        share_anonymous: whether what an anonymous caller got may serve one who says who he is.
        max_body: bytes; longer bodies pass through.
        max_stale: seconds beyond its lifetime after which nothing is served.
        heuristic: the share of an answer's age at its arrival that it is taken to be fresh for where its origin says
            nothing but when it was changed last; 0 for none.
        refresh_early: how eagerly an answer is fetched anew before it expires, so that the readers of many processes do
            not all do so at once (XFetch: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede
            Prevention", VLDB 2015, their beta); by default 1 where others share the store, else 0.
        stale_statuses: the statuses that are an error: 5xx but not 501, and 429 where you want it.
        unkeyed: of the fields that might choose an answer without the origin saying so (`X-Forwarded-Host` and its like), those
            that do not at this origin; what was asked for with any other of them is not kept.
        ignore_origin_prohibition: serve stale even what the origin forbids to. For a route, where you know better.
        store: where answers are kept; by default 64 MiB of this process's memory.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        *,
        ttl: float | None = None,
        stale_if_error: float = 0.0,
        stale_while_revalidate: float = 0.0,
        soft_timeout: float | None = None,
        negative_ttl: Mapping[int, float] | None = None,
        shared: bool = True,
        per_user: bool = False,
        partition: Callable[..., str | None] | None = None,
        identity: Iterable[str] = (),
        share_anonymous: bool = True,
        max_body: int = MIB,
        max_stale: float = 86400.0,
        heuristic: float = 0.1,
        refresh_early: float | None = None,
        stale_statuses: Iterable[int] = (500, 502, 503, 504),
        unkeyed: Iterable[str] = (),
        ignore_origin_prohibition: bool = False,
        store: Store | None = None,
    ) -> None:
        identity, unkeyed, stale_statuses = _names("identity", identity), _names("unkeyed", unkeyed), tuple(stale_statuses)
        self._given = {name: value for name, value in locals().items() if name != "self"}
        if soft_timeout is not None:
            positive("soft_timeout", soft_timeout)
        if partition is not None and not callable(partition):
            raise TypeError(f"partition: expected a function of the request, got {partition!r}")
        flag("share_anonymous", share_anonymous)
        whole("max_body", max_body)
        if refresh_early is not None:
            not_negative("refresh_early", refresh_early)
        self.rules: CachingRules = CachingRules(
            shared=shared,
            per_user=per_user,
            ttl=ttl,
            negative_ttl=_by_status(negative_ttl),
            heuristic=heuristic,
            stale_if_error=stale_if_error,
            stale_while_revalidate=stale_while_revalidate,
            max_stale=max_stale,
            stale_statuses=frozenset(stale_statuses),
            ignore_origin_prohibition=ignore_origin_prohibition,
            unkeyed=frozenset(unkeyed),
        )
        self.soft_timeout: float | None = soft_timeout
        self.partition = partition
        if store is not None and not isinstance(store, Store):
            raise TypeError(f"store: expected an object with load(keys), save(records), remove(keys) and close(), got {store!r}")
        self.identity: frozenset[str] = IDENTITY | frozenset(identity) if identity else IDENTITY
        self.max_body: int = max_body
        self.store: Store = MemoryStore() if store is None else store
        self.stock: Stock = Stock(self.store, share_anonymous=share_anonymous)
        self.eagerness: float = (1.0 if self.store.blocking else 0.0) if refresh_early is None else refresh_early
        self.flights: Flights | None = None
        self._owner: Any = None
        self._lock = threading.Lock()
        self._cooled: dict[str, tuple[float, str]] = {}

    def __repr__(self) -> str:
        return shown(self, **self._given)

    changeable: ClassVar[frozenset[str]] = RETUNED | {"soft_timeout", "max_body"}
    """Settings that `taking` can change at work: those that say how long, and none that say whose an answer is."""

    def taking(self, other: Cache, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; what is stored stays."""
        rules = replace(self.rules, **{name: getattr(other.rules, name) for name in names if name in RETUNED})
        return self._taking(other, names, rules, [name for name in names if name not in RETUNED])

    def join(self, owner: Pipeline) -> None:
        """Tell the time by the pipeline's clock."""
        if self.flights is None:
            self.flights = Flights(owner.clock.now)
            self._owner = owner

    # -- operations -----------------------------------------------------------------------------------------------

    async def invalidate(
        self, url: str | None = None, *, prefix: str | None = None, tag: str | None = None, keep_for_errors: bool = False
    ) -> None:
        """Forget what is stored for a URL, for all below a path, or with a tag, whoever it was given to.

        What is being fetched for them meanwhile is not kept either. Processes that share the store know of it as soon as
        they look there: at once, or when what they hold in memory is no longer trusted (`RedisStore.trust`).

        Args:
            url: one URL, its query included.
            prefix: the beginning of URLs, up to a slash: `https://api.example.com/orders/`.
            tag: a name that the origin gave in `Cache-Groups` (RFC 9875), of the dependency's own origin.
            keep_for_errors: let it stand in for errors still, where its windows allow it, counted from now on: an
                invalidation of much at once is then no risk, should the origin not bear it.

        Raises:
            TypeError, ValueError: not exactly one of them was given, or it is not what it should be.
        """
        flag("keep_for_errors", keep_for_errors)
        await self._forget(self._pipeline().runtime, *self._named(url, prefix, tag), soft=keep_for_errors)

    def invalidate_sync(
        self, url: str | None = None, *, prefix: str | None = None, tag: str | None = None, keep_for_errors: bool = False
    ) -> None:
        """The same from synchronous code; with a store that does I/O it blocks."""
        flag("keep_for_errors", keep_for_errors)
        drive(self._forget(self._pipeline().sync_runtime, *self._named(url, prefix, tag), soft=keep_for_errors))

    def _named(self, url: str | None, prefix: str | None, tag: str | None) -> tuple[Any, Any, Any]:
        if sum(one is not None for one in (url, prefix, tag)) != 1:
            raise TypeError("give exactly one of url, prefix and tag")
        if url is not None:
            return (normal("url", url),), (), ()
        if prefix is not None:
            return (), (checked_prefix(normal("prefix", prefix)),), ()
        if not isinstance(tag, str) or not tag:
            raise TypeError(f"tag: expected a name, got {tag!r}")
        origin = getattr(self._pipeline(), "origin", None)
        if origin is None:
            raise ValueError("tag: names belong to an origin, and this dependency has none; give it one, or invalidate a prefix")
        return (), (), ((f"{normal('origin', str(origin))}", tag),)

    async def prime(self, client: Any, urls: Iterable[str], *, concurrency: int = 8) -> dict[str, Exception]:
        """Fetch `urls` through an async client of this dependency, so that the first users find them stored.

        Args:
            client: whatever has an async `get(url)`.
            urls: what to ask for.
            concurrency: requests at a time.

        Returns:
            What went wrong, by URL: what could not be fetched is no reason not to start.
        """
        whole("concurrency", concurrency)
        failures: dict[str, Exception] = {}
        limiter = anyio.Semaphore(concurrency)

        async def fetch(url: str) -> None:
            async with limiter:
                try:
                    response = await client.get(url)
                    response.raise_for_status()
                except Exception as error:  # noqa: BLE001 - handed to whoever asked for it
                    failures[url] = error

        async with anyio.create_task_group() as group:
            for url in urls:
                group.start_soon(fetch, url)
        return failures


def _by_status(value: Mapping[int, float] | None) -> dict[int, float]:
    if value is not None and not (isinstance(value, Mapping) and all(type(status) is int for status in value)):
        raise TypeError(f"negative_ttl: expected seconds by status, such as {{404: 5}}, got {value!r}")
    return dict(value or {})


def _names(name: str, value: Iterable[str]) -> tuple[str, ...]:
    names = (value,) if isinstance(value, str) else tuple(value)
    if not all(isinstance(one, str) and one for one in names):
        raise TypeError(f"{name}: expected names of header fields, got {value!r}")
    return tuple(one.lower() for one in names)
