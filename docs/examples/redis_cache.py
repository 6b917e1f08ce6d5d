"""A cache in Redis: what is there is served, and where Redis is down or slow nobody waits for it."""

from __future__ import annotations

import redis
import redis.asyncio
from redis import exceptions
from redis.asyncio.retry import Retry as AsyncRepeat
from redis.backoff import NoBackoff
from redis.retry import Retry as Repeat

from resilient import Bulkhead, Dependency, Outcome, Retry, Timeout, standard

CONNECTIONS = 20
ATTEMPT = 0.2  # seconds


def judge(result: object, error: BaseException | None) -> Outcome | None:
    """redis-py's errors are of its own classes, which say more than that something was raised."""
    if isinstance(error, exceptions.MaxConnectionsError):
        return Outcome.IGNORED  # our own pool is empty
    if isinstance(error, exceptions.ConnectionError | exceptions.TimeoutError | exceptions.ClusterDownError):
        return Outcome.OUTAGE
    if isinstance(error, exceptions.ReadOnlyError | exceptions.OutOfMemoryError):
        return Outcome.FAILURE
    if isinstance(error, exceptions.ResponseError | exceptions.DataError | exceptions.WatchError):
        return Outcome.SUCCESS  # Redis is well; the command was wrong, or somebody else was quicker
    return None


cache = Dependency(
    "cache",
    *standard(
        timeout=Timeout(total=0.5, attempt=ATTEMPT),
        retry=Retry(attempts=2, on=(exceptions.ConnectionError, exceptions.TimeoutError)),  # GET and SET may be repeated
        bulkhead=Bulkhead(max_concurrent=CONNECTIONS),
    ),
    fallback=None,  # a read finds nothing, a write is forgotten
    classify=judge,
)


def async_client(url: str) -> redis.asyncio.Redis:
    """A client that repeats nothing itself, with as many connections as the bulkhead lets through."""
    return redis.asyncio.Redis.from_url(url, max_connections=CONNECTIONS, retry=AsyncRepeat(NoBackoff(), 0))


def sync_client(url: str) -> redis.Redis:
    """The same for threads. Nothing interrupts a thread, so its sockets need time limits of their own."""
    return redis.Redis.from_url(
        url,
        max_connections=CONNECTIONS,
        retry=Repeat(NoBackoff(), 0),
        socket_timeout=ATTEMPT,
        socket_connect_timeout=ATTEMPT,
    )


@cache
async def read(client: redis.asyncio.Redis, key: str) -> bytes | None:
    """What is kept under `key`, or None."""
    return await client.get(key)


@cache
async def write(client: redis.asyncio.Redis, key: str, value: bytes, seconds: int = 60) -> None:
    """Keep `value` for a while, if Redis is there."""
    await client.set(key, value, ex=seconds)


@cache
def read_in_thread(client: redis.Redis, key: str) -> bytes | None:
    """The same from a thread; both share the breaker, the bulkhead and the budget."""
    return client.get(key)
