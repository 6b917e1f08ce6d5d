"""Asking once, in the background: within its time, in a thread if it blocks, and what the answer means."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, NamedTuple

import anyio

from ..context import DEADLINE, RECORD, Deadline
from ..core.degradation import DegradationRecord
from ..errors import ResilienceError
from ..runtime import AsyncRuntime, ThreadsBusy
from ..threads import Threads
from .check import Check, Probed, Question, suspends

__all__ = ["RESULTS", "Answer", "ask", "credit", "invoke"]

RESULTS = ("well", "ill", "raised", "timeout", "degraded")
CLOSED = "closed"
LONGEST_WORD = 100
CALLS = 0.95  # of its time, for the calls that a check makes: so it is they who end, as a trial that failed, and not we who cancel them


class Ended(Exception):
    """What is no `Exception` was raised in a thread: it is named, and ends nothing but that."""


class Answer(NamedTuple):
    """What came of a question.

    Attributes:
        result: one of `RESULTS`.
        reason: why it is bad, in a few words; no text of an error, which may hold anything.
        error: what was raised.
    """

    result: str
    reason: str = ""
    error: BaseException | None = None


async def ask(check: Check, runtime: AsyncRuntime, threads: Threads | None) -> Answer:
    """Ask once. Whatever goes wrong is an answer, but for a cancellation from outside."""
    if check.busy:
        return Answer("timeout", "the last call of it has not returned yet")
    # Of this task alone: the check's calls keep to its time, and what they were served in place of an answer is seen.
    RECORD.set(record := DegradationRecord())
    DEADLINE.set(Deadline(runtime.now() + check.timeout * CALLS, runtime.clock))
    try:
        with anyio.move_on_after(check.timeout):
            return _judged(await invoke(check.fn, runtime, threads, check), record)
    except asyncio.CancelledError as error:
        task = asyncio.current_task()
        if task is None or task.cancelling():
            raise
        return Answer("raised", "CancelledError", error)  # its own: something that it awaited was cancelled
    except Ended as error:
        return Answer("raised", str(error)[:LONGEST_WORD], error)
    except Exception as error:  # noqa: BLE001 - the answer, which is logged
        return Answer("raised", type(error).__name__[:LONGEST_WORD], error)
    return Answer("timeout", f"no answer within {check.timeout:g} s")


def _judged(value: Any, record: DegradationRecord) -> Answer:
    if value is False:
        return Answer("ill", "returned False")
    if not (value is None or value is True):
        return Answer("ill", f"returned {type(value).__name__[:LONGEST_WORD]}, which is none of None, True and False")
    for entry in record.entries:
        # A fallback or a stale answer is no sign that whoever should have answered is there.
        return Answer("degraded", f"answered {entry.level} ({entry.cause})"[:LONGEST_WORD])
    return Answer("well")


async def invoke(fn: Question, runtime: AsyncRuntime, threads: Threads | None, check: Check | None = None) -> Any:
    """Call a function, plain or async, and return what it returned in the end.

    Args:
        fn: what to call.
        runtime: of the event loop that runs here.
        threads: where plain functions are called; None where no other thread can live by the clock.
        check: is `busy` as long as a thread is at work for it, which goes on though nobody waits any more.
    """
    if threads is None or suspends(fn):
        value = fn()
    else:
        try:
            value = await runtime.offload(_work(fn, check), threads=threads)
        except ThreadsBusy:
            if check is not None:
                check.busy = False  # it was never begun
            raise
    return await value if inspect.isawaitable(value) else value


def _work(fn: Question, check: Check | None) -> Callable[[], Any]:
    context = copy_context()

    def work() -> Any:
        try:
            return context.run(fn)
        except Exception:
            raise
        except BaseException as error:  # sys.exit() in it must not end the event loop
            raise Ended(type(error).__name__) from error
        finally:
            if check is not None:
                check.busy = False

    if check is not None:
        check.busy = True
    return work


def credit(dependency: Probed) -> None:
    """Let a good answer count as a trial of the dependency's circuit, if that is due for one; without traffic it gets none.

    Whether the check itself went through the circuit does not matter: then it was a trial, and this is one more.
    """
    breaker = dependency.breaker
    if breaker is None or dependency.state == CLOSED:
        return
    engine = getattr(breaker, "engine", breaker)  # of a plain pybreaker instance
    with contextlib.suppress(ResilienceError):  # its break is not over, or it has trials enough
        engine.call(_well)


def _well() -> None:
    """A trial that went well."""
