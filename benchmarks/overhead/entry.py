"""What is timed: a case, and each library's way of doing what the case asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

Target = Callable[..., Awaitable[Any]]


@dataclass(frozen=True)
class Entry:
    """One library's way of doing what a case asks for.

    Attributes:
        case: Name of the case it belongs to.
        target: What is awaited, with ``args``.
        args: Its arguments; decorated functions take none, a pipeline's ``call`` takes the function.
        rejects: The error that every call must raise, where the cost of a rejection is the case. The target is called
            until it is raised before the timing begins.
        variant: Tells two entries of one library apart.
        lacks: What the case asks for and this entry does not do; empty when it does the same work.
    """

    case: str
    target: Target
    args: tuple[Any, ...] = ()
    rejects: type[Exception] | None = None
    variant: str = ""
    lacks: str = ""


Entries = Callable[[], Iterator[Entry]]


@dataclass(frozen=True)
class Case:
    """One thing to be done, and the bare call above which its cost is counted.

    Attributes:
        name: What ``--only`` takes.
        title: What it is, for the tables.
        goal: Microseconds added that the library means to stay within, on a machine of the pace of `YARDSTICK`; None
            where none is set.
        single: A single policy: its goal holds for the pipeline minus the empty pipeline.
    """

    name: str
    title: str
    goal: float | None = None
    single: bool = False


YARDSTICK = 3.6
"""Microseconds that `async with asyncio.timeout(30)` adds on the machine for which the goals below were set."""

CASES = (
    Case("empty", "empty pipeline", 0.4),
    Case("breaker", "breaker, closed, 10 s time window", 0.9, single=True),
    Case("breaker_keyed", "breaker with a circuit for each of ten keys", single=True),
    Case("breaker_open", "breaker, open: a rejection raised and caught", 1.8, single=True),
    Case("bulkhead", "bulkhead, 100 slots, one in use", 0.6, single=True),
    Case("adaptive", "bulkhead whose limit follows the dependency, one in use", single=True),
    Case("throttle", "client-side throttling of a dependency that accepts all", single=True),
    Case("ratelimit", "rate limit of a million a second, never reached", single=True),
    Case("retry", "retry with a budget, first attempt succeeds", single=True),
    Case("hedge", "hedge with a budget, first attempt quick: a task, and nothing sent beside it", single=True),
    Case("failover", "failover of two targets with a breaker each, the first one answers", single=True),
    Case("fallback", "fallback that is not needed", single=True),
    Case("chaos", "chaos that is allowed and strikes nobody", single=True),
    Case("deadline", "deadline of 30 s over a plain async function", single=True),
    Case("deadline_wait", "the same over a function that suspends once", single=True),
    Case("stack", "fallback + retry with budget + windowed breaker + bulkhead + metrics", 3.0),
    Case("stack_deadline", "the same with a deadline", 5.0),
    Case("stack_deadline_wait", "the same over a function that suspends once"),
    Case("transport_httpx2", "httpx2 transport over an in-memory inner one", 10.0),
    Case("transport_httpx", "httpx transport over an in-memory inner one", 10.0),
    Case("middleware", "all ASGI middleware: deadline + drain + admission + errors + metrics + degradation", 15.0),
    Case("shed", "the same, and the request is turned away: 503, Retry-After, problem details", 10.0),
)
