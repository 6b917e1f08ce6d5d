"""Transports for httpx2: `httpx2.AsyncClient(transport=AsyncResilientTransport(resilience))`.

A client ignores its own `verify`, `cert`, `http1`, `http2`, `limits`, `proxy` and `trust_env` once `transport=` is
given; give them to the transport instead.
"""

from __future__ import annotations

import httpx2

from . import errors
from .http import library
from .http.response import AsyncGuard, SyncGuard
from .http.taped import AsyncTaped, SyncTaped
from .http.transport import AsyncEngine, SyncEngine
from .http.wire import AsyncWire, Probe, SyncWire

__all__ = [
    "AllTargetsFailed",
    "AsyncResilientTransport",
    "BulkheadFull",
    "CircuitOpen",
    "DeadlineExceeded",
    "Overloaded",
    "RateLimited",
    "Rejected",
    "ResilienceError",
    "ResilientTransport",
    "SpendExceeded",
]


class ResilienceError(errors.ResilienceError, httpx2.TransportError):
    """Also an `httpx2.TransportError`, so that existing `except` clauses keep working."""


class Rejected(errors.Rejected, httpx2.TransportError):
    """Also an `httpx2.TransportError`."""


class CircuitOpen(errors.CircuitOpen, httpx2.TransportError):
    """Also an `httpx2.TransportError`."""


class BulkheadFull(errors.BulkheadFull, httpx2.TransportError):
    """Also an `httpx2.TransportError`."""


class RateLimited(errors.RateLimited, httpx2.TransportError):
    """Also an `httpx2.TransportError`."""


class SpendExceeded(errors.SpendExceeded, httpx2.TransportError):
    """Also an `httpx2.TransportError`."""


class Overloaded(errors.Overloaded, httpx2.TransportError):
    """Also an `httpx2.TransportError`."""


class DeadlineExceeded(errors.DeadlineExceeded, httpx2.TimeoutException):
    """Also an `httpx2.TimeoutException`."""


class AllTargetsFailed(errors.AllTargetsFailed, httpx2.TransportError):
    """Also an `httpx2.TransportError`."""


class _Probe(Probe, httpx2.AsyncByteStream, httpx2.SyncByteStream):
    pass


class _AsyncGuard(AsyncGuard, httpx2.AsyncByteStream):
    pass


class _SyncGuard(SyncGuard, httpx2.SyncByteStream):
    pass


class _AsyncWire(AsyncWire, httpx2.AsyncByteStream):
    pass


class _SyncWire(SyncWire, httpx2.SyncByteStream):
    pass


class _AsyncTaped(AsyncTaped, httpx2.AsyncByteStream):
    pass


class _SyncTaped(SyncTaped, httpx2.SyncByteStream):
    pass


_LIBRARY = library.Library(
    module=httpx2,
    door="resilient.httpx2",
    errors=library.bound_errors(globals()),
    probe=_Probe,
    async_guard=_AsyncGuard,
    sync_guard=_SyncGuard,
    async_wire=_AsyncWire,
    sync_wire=_SyncWire,
    async_taped=_AsyncTaped,
    sync_taped=_SyncTaped,
)


class AsyncResilientTransport(AsyncEngine, httpx2.AsyncBaseTransport):
    """Sends an `httpx2.AsyncClient`'s requests through a dependency's policies.

    A request may ask for less time than its dependency grants: `extensions={"deadline": 0.5}` for seconds in all, or a
    `Deadline`. An answer that a fallback gave says so in `response.extensions["degraded"]`.

    Args:
        target: a `Resilience` (each request goes to the dependency whose origin matches), a `Dependency`, a
            `Pipeline`, or one policy.
        inner: the transport to send with; by default one is built from `transport_options`.
        max_connections: the size of the given `inner`'s pool, if that cannot be seen.
        transport_options: `verify`, `cert`, `http1`, `http2`, `limits`, `proxy`, `trust_env`, `uds`, `local_address`,
            `retries`, `socket_options`, as for `httpx2.AsyncHTTPTransport`.

    Raises:
        TypeError: options that do not fit each other, or objects of another library, by name.
    """

    _library = _LIBRARY


class ResilientTransport(SyncEngine, httpx2.BaseTransport):
    """The same for an `httpx2.Client`; safe from threads."""

    _library = _LIBRARY
