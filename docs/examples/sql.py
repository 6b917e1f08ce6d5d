"""A database behind SQLAlchemy's async pool: the bulkhead is smaller than the pool, so that nobody queues inside it."""

from __future__ import annotations

import asyncio
from typing import Any

from sqlalchemy import event, exc, text
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from resilient import Bulkhead, Dependency, Outcome, Timeout, standard

POOL = 10
CALLS = 8  # two connections stay free for what does not go through the dependency: migrations, health checks


def judge(result: object, error: BaseException | None) -> Outcome | None:
    """Which of SQLAlchemy's errors the database is to blame for."""
    if isinstance(error, exc.TimeoutError):
        return Outcome.IGNORED  # our own pool is empty
    if isinstance(error, exc.DBAPIError) and error.connection_invalidated:
        return Outcome.OUTAGE
    if isinstance(error, exc.IntegrityError | exc.ProgrammingError | exc.DataError):
        return Outcome.SUCCESS  # the database is well; the statement was wrong
    return None  # an OperationalError and whatever else was raised: a failure


def engine(url: str) -> AsyncEngine:
    """A pool that opens no connections beyond its size, and notices those that have died."""
    made = create_async_engine(url, pool_size=POOL, max_overflow=0, pool_timeout=1, pool_pre_ping=True)
    if made.dialect.name == "sqlite":
        event.listen(made.sync_engine, "handle_error", interrupt)
    return made


def interrupt(context: Any) -> None:
    """Stop a statement that nobody waits for any more: SQLite would run it to its end, and keep its lock for longer still."""

    async def stop(driver: Any) -> None:
        await driver.interrupt()
        await driver.rollback()

    if isinstance(context.original_exception, asyncio.CancelledError):
        context.connection.connection.dbapi_connection.run_async(stop)


def database(total: float = 2.0) -> Dependency:
    """The dependency: what a query holds, it gives back within `total` seconds."""
    return Dependency("database", *standard(timeout=Timeout(total=total), bulkhead=Bulkhead(max_concurrent=CALLS)), classify=judge)


async def query(engine: AsyncEngine, statement: str, **values: Any) -> list[tuple[Any, ...]]:
    """The rows of a statement; to be called as `await database.call(query, engine, ...)`."""
    async with engine.connect() as connection:
        rows = await connection.execute(text(statement), values)
        return [tuple(row) for row in rows]


async def change(engine: AsyncEngine, *statements: str) -> None:
    """Several statements in one transaction; where one fails or the time is over, none has happened."""
    async with engine.begin() as connection:
        for statement in statements:
            await connection.execute(text(statement))
