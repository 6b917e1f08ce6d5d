"""Policies around functions of every kind: async, plain, generators."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from resilient import DeadlineExceeded, Dependency

search = Dependency("search", timeout=0.1)


@search
async def find(word: str) -> list[str]:
    """An async function: cancelled when its time is over."""
    await asyncio.sleep(60 if word == "slow" else 0)
    return [f"{word} 1", f"{word} 2"]


@search
def count(word: str) -> int:
    """A plain function runs in the caller's thread, under the same breaker and bulkhead."""
    return len(word)


@search
async def stream(word: str) -> AsyncIterator[str]:
    """A generator holds its slot until the last item."""
    for letter in word:
        yield letter


async def main() -> None:
    """Use them."""
    print(await find("lamp"), count("lamp"), [letter async for letter in stream("lamp")])
    try:
        await find("slow")
    except DeadlineExceeded as error:
        print(error)  # search: no answer within 0.100 s


asyncio.run(main())
