"""Records on a server that many machines share."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from typing import Any

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import positive, whole
from .layered import LayeredStore
from .lines import Client, Line, Lines
from .server import Server

__all__ = ["RedisStore"]

_URL = re.compile(r"(?:(redis|valkey)(s?)|(unix))://")


class RedisStore(LayeredStore):
    """Keeps records in Redis or Valkey, for many processes and machines.

    It is a `LayeredStore` over the server: what it knows is believed for `trust` seconds, entries are written behind, and
    a server that is slow or gone is a miss, counted and logged, and left alone for a while. A hit that goes to the server
    is one MGET. Names are hashed, each record has its time to live. redis-py's synchronous client is used, from threads, so
    that it works under asyncio, trio and without either. It is connected at first use, so that it need not be there.

    Args:
        url: `redis://`, `rediss://` (TLS), `unix://`, or the same with `valkey`; or a synchronous client of redis-py or
            valkey-py, with timeouts of its own, that is not closed by `close`. Clusters are not supported.
        prefix: of every name, for an ACL (`~resilient:cache:*`) and for several caches on one server.
        secret: at least 16 bytes that all who share the cache have: names tell nothing then, and records that somebody else
            wrote are refused. Without it whoever may write to the server is trusted.
        timeout: seconds for connecting, for each answer, and for a free connection.
        max_record: bytes of the largest record that is written.
        connections: at the most.
        l1_bytes: bytes for the first level, in memory; 0 for none.
        trust: seconds for which it is believed.
        clock: the source of monotonic time.
        wall: the source of wall time.

    Raises:
        ImportError: redis-py is not installed (`resilient-asgi[redis]`).
        TypeError: `url` is a client for asyncio.
    """

    def __init__(
        self,
        url: Any,
        *,
        prefix: str = "resilient:cache:",
        secret: str | bytes | None = None,
        timeout: float = 0.05,
        max_record: int = 2 * 2**20,
        connections: int = 16,
        l1_bytes: int = 16 * 2**20,
        trust: float = 1.0,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
    ) -> None:
        positive("timeout", timeout)
        whole("max_record", max_record, least=1024)
        whole("connections", connections)
        if not isinstance(prefix, str) or not prefix:
            raise ValueError(f"prefix must be a word that its names begin with, not {prefix!r}")
        line = _line(url, timeout, connections) if isinstance(url, str) else _given(url)
        server = Server(line, prefix=prefix, secret=_key(secret), timeout=timeout, connections=connections, max_record=max_record)
        super().__init__(server, l1_bytes=l1_bytes, trust=trust, name="RedisStore", clock=clock, wall=wall)


def _key(secret: str | bytes | None) -> bytes:
    if secret is None:
        return b""
    key = secret.encode() if isinstance(secret, str) else secret
    if not isinstance(key, bytes):
        raise TypeError(f"secret must be a string or bytes, not of type {type(secret).__name__}")
    if len(key) < 16:
        raise ValueError("secret must have at least 16 bytes")
    return key


def _line(url: str, timeout: float, connections: int) -> Line:
    # An extra: whoever has no RedisStore need not have it.
    import redis
    from redis.backoff import NoBackoff
    from redis.retry import Retry

    match = _URL.match(url)
    if match is None:
        raise ValueError(f"url must begin with redis://, rediss:// or unix://, not {url.partition('://')[0][:20]!r}")
    known = url if match[3] else f"redis{match[2]}://{url[match.end() :]}"

    def connect() -> Any:
        return redis.ConnectionPool.from_url(
            known,
            socket_timeout=timeout,
            socket_connect_timeout=timeout,
            # Its own default tries again, for seconds.
            retry=Retry(NoBackoff(), 0),
            max_connections=connections + 1,
        )

    try:
        connect()  # what is wrong with the URL is told here; nothing is connected yet
    except ValueError as error:
        raise ValueError(f"url: {error}") from None
    return Lines(connect)


def _given(client: Any) -> Line:
    if not all(callable(getattr(client, name, None)) for name in ("mget", "pipeline")):
        raise TypeError(f"url must be a URL or a client of redis-py, not {client!r}")
    if ".asyncio" in type(client).__module__:
        raise TypeError("url must be a synchronous client (redis.Redis): it is used from threads, under asyncio and trio alike")
    options = getattr(getattr(client, "connection_pool", None), "connection_kwargs", {})
    if options.get("decode_responses"):
        raise ValueError("url must be a client without decode_responses: records are bytes")
    return Client(client)
