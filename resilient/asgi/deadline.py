"""How long an inbound request may take: a limit of our own, shortened by what trusted callers say they will wait."""

from __future__ import annotations

import ipaddress
import logging
import math
import re
import threading
from collections.abc import Callable, Collection, Iterable
from typing import Any

from ..core.bounds import flag, not_negative, positive
from ..core.expiry import ExpiredShare
from .inbound import Inbound
from .protocols import ASGIApp, Scope, Surroundings
from .responses import FIELD_NAME

__all__ = ["DEADLINE_HEADERS", "DeadlineMiddleware", "InboundDeadlines", "Trusted", "trust"]

logger = logging.getLogger("resilient")

Trusted = Callable[[Scope], bool] | Collection[str]

DEADLINE_HEADERS = ("x-request-timeout-ms", "grpc-timeout", "x-envoy-expected-rq-timeout-ms")

_NETWORKS = (ipaddress.IPv4Address, ipaddress.IPv6Address, ipaddress.IPv4Network, ipaddress.IPv6Network)
_MILLISECONDS = re.compile(rb"[0-9]{1,10}")
_GRPC = re.compile(rb"([0-9]{1,8})([HMSmun])")
_GRPC_UNITS = {b"H": 3600.0, b"M": 60.0, b"S": 1.0, b"m": 1e-3, b"u": 1e-6, b"n": 1e-9}


class InboundDeadlines:
    """Says how many seconds a request has.

    Args:
        timeout: seconds that any request has; None for no limit of our own.
        body: whether the limit covers the body, to its last chunk, and not only the time up to the response's start.
        hard: whether the answer is given in time even when the app cannot be cancelled (a synchronous endpoint in its
            thread); asyncio only.
        min_useful: a request that arrives with fewer seconds left is answered 504 before any work.
        max_expired: the largest share of the requests of ten seconds that is refused so; the others are given the limit of our
            own, for where most come late it is a clock or a header that is wrong.
        trusted: whose deadline headers are believed: addresses and networks of peers (`["10.0.0.0/8"]`), or a
            function of the ASGI scope. By default nobody's.
        headers: names of the headers to believe. Whole milliseconds each; `grpc-timeout` as gRPC has it.
        enforce: False refuses and cuts nothing, and only tells.

    Attributes:
        fixed: what every request has, where none can say otherwise and the limit is enforced.
        guarded: whether a request can say of itself that it has too little time.
        ignored: how many headers of trusted peers were unreadable.
    """

    __slots__ = (
        "_expired",
        "_headers",
        "_lock",
        "_timeout",
        "_trusts",
        "body",
        "enforce",
        "fixed",
        "guarded",
        "hard",
        "ignored",
        "min_useful",
    )

    def __init__(
        self,
        timeout: float | None = 30.0,
        *,
        body: bool = False,
        hard: bool = True,
        min_useful: float = 0.01,
        max_expired: float = 0.2,
        trusted: Trusted = (),
        headers: Iterable[str] = DEADLINE_HEADERS,
        enforce: bool = True,
    ) -> None:
        if timeout is not None:
            positive("timeout", timeout)
        not_negative("min_useful", min_useful)
        if timeout is not None and timeout < min_useful:
            raise ValueError(f"timeout: {timeout!r} s is less than min_useful, {min_useful!r} s; no request would be served")
        flag("body", body)
        flag("hard", hard)
        flag("enforce", enforce)
        self._expired = ExpiredShare(max_expired)
        self._lock = threading.Lock()
        self._timeout = math.inf if timeout is None else float(timeout)
        self._trusts = trust(trusted)
        self._headers = _header_names(headers)
        self.body = body
        self.hard = hard
        self.min_useful = min_useful
        self.enforce = enforce
        self.guarded = self._trusts is not None
        self.fixed: float | None = None if self.guarded or not enforce else self._timeout
        self.ignored = 0

    def seconds(self, scope: Scope) -> float:
        """What the request has from now on: the smallest of our own limit and what a trusted caller said."""
        seconds = self._timeout
        if self._trusts is None:
            return seconds
        said = [(name, value) for name, value in scope["headers"] if name in self._headers]
        if not said or not self._trusts(scope):
            return seconds
        for name, value in said:
            told = _grpc_timeout(value) if name == b"grpc-timeout" else _milliseconds(value)
            if told is None:
                self.ignored += 1
            elif told < seconds:
                seconds = told
        return seconds

    def granted(self, seconds: float, now: float) -> float | None:
        """What a request is given that has so many seconds by what it was told: those, our own limit, or None, which refuses it."""
        late = seconds < self.min_useful
        with self._lock:
            self._expired.count(now)
            refused = late and self._expired.refuse(now)
        if not late:
            return seconds
        return None if refused and self.enforce else self._timeout


def _milliseconds(value: bytes) -> float | None:
    return int(value) / 1000 if _MILLISECONDS.fullmatch(value) else None


def _grpc_timeout(value: bytes) -> float | None:
    """`TimeoutValue TimeoutUnit` of the gRPC-over-HTTP/2 protocol."""
    match = _GRPC.fullmatch(value)
    return int(match[1]) * _GRPC_UNITS[match[2]] if match else None


def _header_names(names: Any) -> frozenset[bytes]:
    listed = None if isinstance(names, str) or not isinstance(names, Iterable) else list(names)
    if listed is None or not all(isinstance(name, str) for name in listed):
        raise TypeError(f"deadline_headers: expected a list of header names, got {names!r}")
    wrong = next((name for name in listed if not FIELD_NAME.fullmatch(name)), None)
    if wrong is not None:
        raise ValueError(f"deadline_headers: expected names of header fields, got {wrong!r}")
    return frozenset(name.lower().encode("ascii") for name in listed)


def trust(trusted: Any) -> Callable[[Scope], bool] | None:
    """The question whether a peer is trusted; None if nobody is."""
    if callable(trusted):
        return _sound(trusted)
    if isinstance(trusted, str) or not isinstance(trusted, Collection):
        raise TypeError(f"trusted: expected a list of addresses and networks or a function, got {trusted!r}")
    if not trusted:
        return None
    if not all(isinstance(network, (str, *_NETWORKS)) for network in trusted):
        raise TypeError(f"trusted: expected a list of addresses and networks or a function, got {trusted!r}")  # 10 is one to ipaddress
    try:
        networks = [ipaddress.ip_network(network) for network in trusted]
    except ValueError as error:
        raise ValueError(f"trusted: {error}") from None

    def is_trusted(scope: Scope) -> bool:
        client = scope.get("client")
        if not client:
            return False  # a Unix socket: a function of the scope can say whether that is enough
        try:
            address = ipaddress.ip_address(client[0])
        except ValueError:
            return False
        address = getattr(address, "ipv4_mapped", None) or address
        return any(address in network for network in networks)

    return is_trusted


def _sound(trusted: Callable[[Scope], bool]) -> Callable[[Scope], bool]:
    """A function of the program's that trusts nobody where it fails: what it looks at is the client's to choose."""
    told = False

    def is_trusted(scope: Scope) -> bool:
        nonlocal told
        try:
            return bool(trusted(scope))
        except Exception:
            if not told:
                told = True
                logger.exception("the function %r failed; where it does nobody is trusted, and further failures are not told", trusted)
            return False

    return is_trusted


class DeadlineMiddleware(Inbound):
    """Bounds each request in time and tells the code inside how long it has.

    The limit holds up to `http.response.start`, or with `body` to the last chunk, and is lifted exactly then, so that
    background tasks, event streams and upgraded connections live on. WebSockets and lifespan are not touched. When it
    is reached the app is cancelled, through a cancel scope of anyio, and the client is answered 504; after the
    response's start nothing can be answered any more, and `DeadlineExceeded` is raised so that the server breaks the
    response off. Cancellations and timeouts of others pass untouched.

    A synchronous endpoint runs in a thread that nobody can cancel. On asyncio, with `hard`, the 504 is sent when it is
    due; what the app sends afterwards is dropped; and the call into the app goes on until the thread ends, so that
    whatever counts requests in progress still counts it. On trio, and without `hard`, the 504 is sent once the app has
    ended: there let the endpoint ask `current_deadline()`, or run its work with
    `anyio.to_thread.run_sync(..., abandon_on_cancel=True)`.

    Inside, `current_deadline()` is the request's deadline, and outbound calls keep to it. Once it is lifted it never
    expires.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        timeout: seconds that any request has; None for no limit but a caller's.
        body: whether the limit covers the body, to its last chunk.
        hard: whether the 504 is sent in time even when the app cannot be cancelled (asyncio).
        min_useful: a request that arrives with fewer seconds left is answered 504 before any work.
        max_expired: the largest share of all requests that is refused so; the others have the limit of our own.
        trusted: whose deadline headers are believed: a list of addresses and networks of peers, or a function of the
            ASGI scope. A header only ever shortens the limit.
        deadline_headers: names of the headers to believe. Whole milliseconds each; `grpc-timeout` as gRPC has it.
        enforce: False refuses and cuts nothing, and only tells.
    """

    def __init__(
        self,
        app: ASGIApp,
        resilience: Surroundings,
        *,
        timeout: float | None = 30.0,
        body: bool = False,
        hard: bool = True,
        min_useful: float = 0.01,
        max_expired: float = 0.2,
        trusted: Trusted = (),
        deadline_headers: Iterable[str] = DEADLINE_HEADERS,
        enforce: bool = True,
    ) -> None:
        super().__init__(app, resilience)
        self.deadlines: InboundDeadlines | None = InboundDeadlines(
            timeout,
            body=body,
            hard=hard,
            min_useful=min_useful,
            max_expired=max_expired,
            trusted=trusted,
            headers=deadline_headers,
            enforce=enforce,
        )
