"""The service's own last good answers, kept, and served in the place of errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Iterable
from typing import Any

from starlette.routing import compile_path

from ..core.asked import IDENTITY, Asked
from ..core.bounds import flag, not_negative, whole
from ..core.caching import CachingRules
from ..core.entry import Entry
from ..core.freshness import FRESH, look, usable_on_error
from ..core.invalidation import SAFE
from ..policies.stock import Stock
from ..protocols import Runtime, Store
from ..stores.memory import MemoryStore
from .advice import Advice
from .copies import Copy
from .deadline import Trusted
from .degradation import DegradationHeader
from .exposure import exposure
from .inbound import Inbound
from .protocols import ASGIApp, Scope, Surroundings
from .responses import FIELD_NAME
from .shelf import Shelf

__all__ = ["PROBES", "StaleResponseMiddleware", "StaleResponses"]

logger = logging.getLogger("resilient")

MIB = 1024 * 1024
PROBES = frozenset(
    {"health", "healthcheck", "healthy", "healthz", "heartbeat", "live", "liveness", "livez", "metrics", "ping"}
    | {"ready", "readiness", "readyz", "startup", "startupz", "status"}
)
"""What the paths end with that are asked for to see an error: nothing stands in for them, unless `routes` say so."""
READ = frozenset({"GET", "HEAD"})
NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,63}")
IN_PROGRESS = 16  # bodies of the largest size that are held at a time, of answers that are not complete yet


class StaleResponses:
    """Which answers of a service are kept, and when they are served again.

    They are kept by the rules of a shared cache (RFC 9111): whole answers to GET, never those that say `no-store`,
    `private` or set a cookie, those that vary apart, and what was asked for with credentials or cookies for the same
    credentials alone. They are served when the app raises, answers with one of `stale_statuses`, or is not done in time;
    never against its own `no-cache`, `must-revalidate`, `proxy-revalidate` or `s-maxage`, never after a successful write
    to their URL, and never once the response has begun.

    Args:
        stale_if_error: seconds that an answer may be too old and still stand in for an error, where it does not say so
            itself. By default none: then only what the app sends with `Cache-Control: stale-if-error=...`, or what is
            still fresh by its own `max-age`, is kept.
        routes: path templates of what is kept (`/products/{id}`, `/catalog/{rest:path}`). By default all but what ends
            like a probe (`PROBES`).
        stale_statuses: the statuses that are an error: 5xx but not 501, and 429 where you want it.
        max_body: bytes; longer bodies pass through.
        max_stale: seconds beyond its lifetime after which nothing is served.
        partition: whose the answer is: a function of the ASGI scope that returns a word, or None for everybody.
        per_user: whether what is meant for one user (`private`, or asked for with `Authorization`) is kept, for him alone.
        identity: names of further fields that say who is asking; those of credentials and cookies are known.
        share_anonymous: whether what an anonymous caller got may serve one who says who he is.
        unkeyed: of the fields that might choose an answer (`X-Forwarded-Host` and its like), those that do not; for each
            value of the others there is a copy of its own.
        downstream_stale_if_error: seconds to tell the caches of your callers, by adding `stale-if-error` to answers that they
            may keep and that do not say it themselves.
        downstream_stale_while_revalidate: the same of `stale-while-revalidate`, for answers that say how long they are fresh.
        name: what it is called in the `Degraded` header and in metrics.
        store: where answers are kept; by default 64 MiB of this process's memory.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        *,
        stale_if_error: float = 0.0,
        routes: Iterable[str] | None = None,
        stale_statuses: Iterable[int] = (500, 502, 503, 504),
        max_body: int = MIB,
        max_stale: float = 86400.0,
        partition: Callable[[Scope], str | None] | None = None,
        per_user: bool = False,
        identity: Iterable[str] = (),
        share_anonymous: bool = False,
        unkeyed: Iterable[str] = ("x-forwarded-for",),
        downstream_stale_if_error: float = 0.0,
        downstream_stale_while_revalidate: float = 0.0,
        name: str = "response",
        store: Store | None = None,
    ) -> None:
        whole("max_body", max_body)
        flag("share_anonymous", share_anonymous)
        if partition is not None and not callable(partition):
            raise TypeError(f"partition: expected a function of the ASGI scope, got {partition!r}")
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise ValueError(f"name: expected a letter and at most 63 letters, digits, dots, dashes, underscores, got {name!r}")
        if store is not None and not isinstance(store, Store):
            raise TypeError(f"store: expected an object with load, save, remove, close and blocking, got {store!r}")
        self.rules: CachingRules = CachingRules(
            stale_if_error=stale_if_error,
            max_stale=max_stale,
            per_user=per_user,
            stale_statuses=_statuses(stale_statuses),
            unkeyed=_names("unkeyed", unkeyed),
            heuristic=0.0,  # an app that says nothing is not guessed at: the operator has said for how long
        )
        self.max_body = max_body
        self.partition = partition
        self.identity: frozenset[str] = IDENTITY | _names("identity", identity)
        self.advice: Advice | None = _advice(downstream_stale_if_error, downstream_stale_while_revalidate, self.rules)
        self.name = name
        self.store: Store = MemoryStore() if store is None else store
        self.stock: Stock = Stock(self.store, share_anonymous=share_anonymous)
        self.shelf: Shelf = Shelf(self.stock, self.rules, room=IN_PROGRESS * max_body)
        self._told = False
        self._routes = None if routes is None else _patterns(routes)

    # -- which ----------------------------------------------------------------------------------------------------

    def copy(self, scope: Scope, resilience: Surroundings, runtime: Runtime, exposes: Callable[[Scope], bool] | None) -> Copy | None:
        """What is to be known of one request; None for one that is none of its business."""
        method = scope["method"]
        if method in READ:
            return Copy(self, scope, resilience, runtime, exposes) if self.covers(scope["path"], scope.get("root_path", "")) else None
        return None if method in SAFE else Copy(self, scope, resilience, runtime, exposes, unsafe=True)

    def covers(self, path: str, root: str = "") -> bool:
        """Whether answers to GET requests for a path may be kept."""
        if root and path.startswith(root):
            path = path[len(root) :]
        if self._routes is None:
            return path.rpartition("/")[2].lower() not in PROBES
        return any(pattern.match(path) for pattern in self._routes)

    def whose(self, scope: Scope) -> str | None:
        """The partition that a request belongs to, as the operator has it.

        Raises:
            TypeError: it is no word.
        """
        found = None if self.partition is None else self.partition(scope)
        if found is not None and not isinstance(found, str):
            raise TypeError(f"partition: expected a word or None, got {found!r}")
        return found

    def tell_wrong_partition(self, error: Exception) -> None:
        """Log, once, that the operator's function has failed."""
        if not self._told:
            self._told = True
            logger.error(
                "the partition function %r failed; answers are neither kept nor served where it does", self.partition, exc_info=error
            )

    def permitted(self, entry: Entry, asked: Asked | None, now: float) -> str | None:
        """What permits to serve an answer in the place of an error; None if nothing does."""
        return usable_on_error(entry, asked, now, self.rules) or ("fresh" if look(entry, asked, now, self.rules) is FRESH else None)


def _statuses(value: Any) -> frozenset[int]:
    listed = None if isinstance(value, str) or not isinstance(value, Iterable) else list(value)
    if listed is None or not all(type(status) is int for status in listed):
        raise TypeError(f"stale_statuses: expected a list of statuses, got {value!r}")
    return frozenset(listed)


def _names(parameter: str, names: Any) -> frozenset[str]:
    listed = None if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if listed is None or not all(isinstance(name, str) and FIELD_NAME.fullmatch(name) for name in listed):
        raise TypeError(f"{parameter}: expected a list of names of header fields, got {names!r}")
    return frozenset(name.lower() for name in listed)


def _patterns(routes: Any) -> list[re.Pattern[str]]:
    listed = None if isinstance(routes, str) or not isinstance(routes, Iterable) else list(routes)
    if listed is None or not all(isinstance(route, str) for route in listed):
        raise TypeError(f"routes: expected a list of path templates such as /products/{{id}}, got {routes!r}")
    try:
        for route in listed:
            if not route.startswith("/"):
                raise ValueError(f"{route!r} does not begin with a slash")
        return [compile_path(route)[0] for route in listed]
    except (AssertionError, ValueError) as error:  # Starlette asserts that it knows the converters
        raise ValueError(f"routes: expected path templates such as /products/{{id}}: {error}") from None


def _advice(stale_if_error: float, stale_while_revalidate: float, rules: CachingRules) -> Advice | None:
    not_negative("downstream_stale_if_error", stale_if_error)
    not_negative("downstream_stale_while_revalidate", stale_while_revalidate)
    advice = Advice(int(stale_if_error), int(stale_while_revalidate), rules)
    return advice if advice.stale_if_error or advice.stale_while_revalidate else None


class StaleResponseMiddleware(Inbound):
    """Answers with the service's own last good answer when the app fails, and says so.

    The stale answer carries `Age`, the `Degraded` header and, for those who may know, `Cache-Status` (RFC 9211). It is
    given in place of an exception, of a status in `stale_statuses`, and of the 503 and 504 of the middleware inside and
    outside of this one, as long as the response has not begun; every response has one start and one end. An exception
    is logged with its traceback, unless it is a `ResilienceError`, which is told as an event. Background tasks live on.

    Anything but GET and HEAD, answers that stream on and parts of answers pass through as they come. What is kept is
    written after the response was sent, on a thread if the store blocks.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        degraded_header: the name of the field that says what was degraded.
        expose_causes: tell clients causes and ages, in that field and in `Cache-Status`.
        trusted: who is told these in any case: a list of addresses and networks of peers, or a function of the
            ASGI scope. By default nobody.
        settings: those of `StaleResponses`.
    """

    def __init__(
        self,
        app: ASGIApp,
        resilience: Surroundings,
        *,
        degraded_header: str = "Degraded",
        expose_causes: bool = False,
        trusted: Trusted = (),
        **settings: Any,
    ) -> None:
        super().__init__(app, resilience)
        self.degradation: DegradationHeader | None = DegradationHeader(degraded_header)
        self._exposes = exposure(expose_causes, trusted)
        self.stale: StaleResponses | None = StaleResponses(**settings)
