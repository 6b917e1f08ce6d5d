"""The transport below ours, built from the options that a client ignores once it is given `transport=`."""

from __future__ import annotations

import inspect
import sys
import urllib.request
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .library import Library

__all__ = ["build_inner", "pool_size", "pool_size_of"]

STREAMS_A_CONNECTION = 100  # what HTTP/2 servers usually allow at a time
PORTS = {"http": 80, "https": 443}
TRANSPORTS = {"AsyncBaseTransport": "AsyncHTTPTransport", "BaseTransport": "HTTPTransport"}


def build_inner(library: Library, base: str, options: dict[str, Any]) -> Any:
    """The library's own transport, with environment proxies where the client would have used them.

    Raises:
        TypeError: an option that it does not know.
    """
    make = getattr(library.module, TRANSPORTS[base])
    known = set(inspect.signature(make).parameters)
    unknown = set(options) - known
    if unknown:
        raise TypeError(f"unknown transport option {', '.join(sorted(unknown))}; known are {', '.join(sorted(known))}")
    options = {**options, "limits": _limits(library, options)}
    direct = options.get("proxy") is None and options.get("uds") is None
    proxies = _environment_proxies() if direct and options.get("trust_env", True) else {}
    if not proxies:
        return make(**options)
    # Reading the certificates of authorities takes longer than all the rest: once for all of these.
    verified = {name: options.pop(name) for name in ("verify", "cert", "trust_env") if name in options}
    options["verify"] = library.module.create_ssl_context(**verified)
    routes = {scheme: make(**{**options, "proxy": url}) for scheme, url in proxies.items() if scheme != "no"}
    return Proxied(make(**options), routes, proxies)


def pool_size(library: Library, options: dict[str, Any]) -> int | None:
    """How many requests the pool can have under way, or None for no limit."""
    connections: int | None = _limits(library, options).max_connections
    if connections is None:
        return None
    return connections * STREAMS_A_CONNECTION if options.get("http2") else connections


def pool_size_of(inner: Any) -> int | None:
    """How many requests the pool of a given transport can have under way, as far as it can be seen; None for no limit.

    Neither library says it in public, so this is read with care.
    """
    pool = getattr(inner, "_pool", None)
    connections = getattr(pool, "_max_connections", None)
    if not isinstance(connections, int) or connections >= sys.maxsize:
        return None
    return connections * STREAMS_A_CONNECTION if getattr(pool, "_http2", False) else connections


def _limits(library: Library, options: dict[str, Any]) -> Any:
    limits = options.get("limits")
    make = library.module.Limits
    if limits is None:
        limits = make(max_connections=100)
    elif not isinstance(limits, make):
        raise TypeError(f"limits: expected {library.name}.Limits, got {limits!r}")
    # httpcore counts busy connections as idle ones, so that a lower limit for those would close good ones.
    return make(
        max_connections=limits.max_connections, max_keepalive_connections=limits.max_connections, keepalive_expiry=limits.keepalive_expiry
    )


def _environment_proxies() -> dict[str, str]:
    found = urllib.request.getproxies()
    proxies = {
        scheme: url if "://" in url else f"http://{url}" for scheme, url in found.items() if scheme in ("http", "https", "all") and url
    }
    return {**proxies, "no": found.get("no", "")} if proxies else {}


class Proxied:
    """Chooses between the environment's proxies (HTTP_PROXY, HTTPS_PROXY, ALL_PROXY, NO_PROXY) and the direct way."""

    def __init__(self, direct: Any, routes: dict[str, Any], proxies: dict[str, str]) -> None:
        self._direct = direct
        self._routes = routes
        self._proxies = proxies

    def pick(self, url: Any) -> Any:
        route = self._routes.get(url.scheme) or self._routes.get("all")
        if route is None or self._bypassed(url.host) or self._bypassed(f"{url.host}:{url.port or PORTS.get(url.scheme)}"):
            return self._direct
        return route

    def _bypassed(self, host: str) -> bool:
        return bool(urllib.request.proxy_bypass_environment(host, self._proxies))  # type: ignore[attr-defined]

    async def handle_async_request(self, request: Any) -> Any:
        return await self.pick(request.url).handle_async_request(request)

    def handle_request(self, request: Any) -> Any:
        return self.pick(request.url).handle_request(request)

    async def aclose(self) -> None:
        for transport in (self._direct, *self._routes.values()):
            await transport.aclose()

    def close(self) -> None:
        for transport in (self._direct, *self._routes.values()):
            transport.close()
