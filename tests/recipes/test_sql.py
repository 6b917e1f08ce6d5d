"""SQLAlchemy's async pool under a dependency, over aiosqlite."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from sqlalchemy import event, exc
from sqlalchemy.ext.asyncio import AsyncEngine

from resilient import DeadlineExceeded, Dependency

INSERT = "insert into product values ({}, '{}')"
ENDLESS = "with recursive numbers(n) as (select 1 union all select pause(n) from numbers) select max(n) from numbers"
pytestmark = [pytest.mark.anyio, pytest.mark.parametrize("anyio_backend", ["asyncio"], indirect=True)]  # all that it runs on


@pytest.fixture
def recipe(example: Callable[[str], ModuleType]) -> ModuleType:
    return example("sql")


@pytest.fixture
def database(recipe: ModuleType, tmp_path: Path) -> Callable[[], Any]:
    """The recipe's engine, on a database with a product and the function `pause(n)`, which is slow."""

    def pause(number: int) -> int:
        time.sleep(0.005)
        return number + 1

    @asynccontextmanager
    async def running() -> AsyncIterator[AsyncEngine]:
        engine = recipe.engine(f"sqlite+aiosqlite:///{tmp_path}/shop.db")
        event.listen(engine.sync_engine, "connect", lambda connection, _: connection.create_function("pause", 1, pause))
        try:
            await recipe.change(engine, "create table product (id integer primary key, name text)", INSERT.format(1, "lamp"))
            yield engine
        finally:
            await engine.dispose()

    return running


def counts(dependency: Dependency) -> dict[str, int]:
    assert dependency.bulkhead is not None
    assert dependency.bulkhead.in_use == 0
    return {word: count for word, count in dependency.stats.snapshot().counts.items() if count}


async def test_rows(recipe: ModuleType, database: Any) -> None:
    dependency = recipe.database()
    async with database() as engine:
        assert await dependency.call(recipe.query, engine, "select name from product where id = :id", id=1) == [("lamp",)]
        await dependency.call(recipe.change, engine, INSERT.format(2, "chair"))
        assert await dependency.call(recipe.query, engine, "select count(*) from product") == [(2,)]
    assert counts(dependency) == {"success": 3}


async def test_queries_that_hang_do_not_exhaust_the_pool(recipe: ModuleType, database: Any) -> None:
    dependency = recipe.database(total=1)
    async with database() as engine:
        began = time.monotonic()
        hung = asyncio.gather(*[dependency.call(recipe.query, engine, ENDLESS) for _ in range(30)], return_exceptions=True)
        await asyncio.sleep(0.2)
        assert engine.pool.checkedout() == recipe.CALLS  # type: ignore[attr-defined]
        assert await recipe.query(engine, "select 1") == [(1,)], "there are connections left beside them"
        assert all(isinstance(error, DeadlineExceeded) for error in await hung)
        assert time.monotonic() - began < 10
        assert engine.pool.checkedout() == 0  # type: ignore[attr-defined]
        dependency.reset()  # on a slow machine this was an outage
        for _ in range(recipe.POOL):
            assert await dependency.call(recipe.query, engine, "select name from product") == [("lamp",)]
    assert counts(dependency) == {"success": recipe.POOL}


async def test_without_it_they_do(recipe: ModuleType, database: Any) -> None:
    async with database() as engine:
        hung = [asyncio.create_task(recipe.query(engine, ENDLESS)) for _ in range(recipe.POOL)]
        await asyncio.sleep(0.2)
        with pytest.raises(exc.TimeoutError, match="QueuePool limit"):
            await recipe.query(engine, "select 1")
        for task in hung:
            task.cancel()
        await asyncio.wait(hung)


async def test_a_transaction_that_is_cut_has_not_happened(recipe: ModuleType, database: Any) -> None:
    dependency = recipe.database(total=0.3)
    async with database() as engine:
        with pytest.raises(DeadlineExceeded):
            await dependency.call(recipe.change, engine, INSERT.format(2, "chair"), ENDLESS)
        await recipe.change(engine, INSERT.format(3, "desk"))  # nobody holds the lock
        assert await recipe.query(engine, "select name from product order by id") == [("lamp",), ("desk",)]
    assert counts(dependency) == {"failure": 1}


async def test_a_crowd_queues_for_the_bulkhead_and_nobody_in_the_pool(recipe: ModuleType, database: Any) -> None:
    dependency = recipe.database(total=10)
    most = 0
    async with database() as engine:

        async def ask() -> list[Any]:
            nonlocal most
            most = max(most, engine.pool.checkedout())  # type: ignore[attr-defined]
            rows: list[Any] = await recipe.query(engine, "select name from product")
            return rows

        answers = await asyncio.gather(*[dependency.call(ask) for _ in range(100)])
    assert answers == [[("lamp",)]] * 100
    assert most < recipe.CALLS


async def test_mistakes_of_the_program_are_no_failures_of_the_database(recipe: ModuleType, database: Any) -> None:
    dependency = recipe.database()
    async with database() as engine:
        for _ in range(30):
            with pytest.raises(exc.IntegrityError):
                await dependency.call(recipe.change, engine, INSERT.format(1, "again"))
    assert dependency.state == "closed"
    assert dependency.breaker is not None
    assert dependency.breaker.fail_counter == 0


def test_errors_are_told_apart(recipe: ModuleType, anyio_backend: Any) -> None:
    def dbapi(kind: type[exc.DBAPIError], *, invalidated: bool = False) -> exc.DBAPIError:
        return kind("select", {}, Exception("x"), connection_invalidated=invalidated)

    told = [
        recipe.judge(None, error)
        for error in (
            exc.TimeoutError(),
            dbapi(exc.OperationalError, invalidated=True),
            dbapi(exc.OperationalError),
            dbapi(exc.ProgrammingError),
            KeyError(),
        )
    ]
    assert [verdict and verdict.value for verdict in told] == ["ignored", "outage", None, "success", None]
