"""Who may cancel a call, in which order, and what must hold afterwards.

A *layer* runs code and may cancel it: an anyio scope, a task group, `asyncio.timeout`, `wait_for`, a native
`task.cancel()`. Layers are nested at random round a call, and again inside what it calls. Two things are looked for.
A cancellation is *spurious* if it reaches code that nobody cancelled, or comes after the code it was meant for has
ended. It is *swallowed* if code that was cancelled goes on as if it had not been.

One order is left out: a native timeout of the program's own *inside* an anyio scope of its own. asyncio folds the two
into one cancellation, anyio no longer knows its own, and the program is hit without any help from us (3 in 1,000 here).
Our scope with native timeouts inside is the same order, and must not be hit: it stays in.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections import Counter
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from typing import Any

import anyio
import anyio.lowlevel

from resilient import DeadlineExceeded, Rejected

Work = Callable[[], Awaitable[Any]]
EXPECTED = (DeadlineExceeded, Rejected, ConnectionError)


INSIDE_ANYIO: ContextVar[bool] = ContextVar("inside_anyio", default=False)


class Fuzz:
    """One random history: `counts` tells what happened, `faults` must stay empty."""

    def __init__(self, seed: int, backend: str) -> None:
        self.random = random.Random(seed)
        self.asyncio = backend == "asyncio"
        self.cancelled = anyio.get_cancelled_exc_class()
        self.counts: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.structured = [self.move_on_after, self.fail_after, self.sibling_cancels, self.plain]
        self.native = [self.asyncio_timeout, self.task_cancel] if self.asyncio else []
        # Until 3.11 wait_for itself swallows a cancellation that comes together with the result: outermost only.
        self.outermost = [*self.native, self.wait_for] if self.asyncio else []
        if self.asyncio and sys.version_info >= (3, 12):
            self.native.append(self.wait_for)

    def delay(self) -> float:
        return self.random.choice((0.0, 0.0003, 0.001, 0.003)) * self.random.random()

    async def nested(self, depth: int, work: Work, *, outermost: bool = False) -> Any:
        """Run `work` inside `depth` random layers."""
        if depth == 0:
            return await work()
        native = [] if INSIDE_ANYIO.get() else self.outermost if outermost else self.native
        layer = self.random.choice([*self.structured, *native])
        if layer in native:
            return await layer(lambda: self.nested(depth - 1, work))
        token = INSIDE_ANYIO.set(INSIDE_ANYIO.get() or layer != self.plain)
        try:
            return await layer(lambda: self.nested(depth - 1, work))
        finally:
            INSIDE_ANYIO.reset(token)

    def requests(self) -> int:
        """How many native cancellations of this task were asked for and not yet answered."""
        task = asyncio.current_task() if self.asyncio else None
        return 0 if task is None else task.cancelling()

    # -- one use --------------------------------------------------------------------------------------------------

    async def use(self, call: Work, expected: type[Exception] = ConnectionError) -> None:
        """Make a call inside random layers, as a program would, and see that nothing is left over."""
        try:
            await self.nested(self.random.randint(0, 3), lambda: self.watched(call), outermost=True)
        except (*EXPECTED, expected) as error:
            self.counts[type(error).__name__] += 1
        except self.cancelled:
            self.faults["spurious: nobody had cancelled the program"] += 1
        try:
            await anyio.lowlevel.checkpoint()
            await anyio.sleep(0)
        except self.cancelled:
            self.faults["spurious: came after the code that it was meant for"] += 1
        if self.requests():
            self.faults["a request to cancel was never taken back"] += 1

    async def watched(self, call: Work) -> None:
        before = self.requests()
        try:
            await call()
        finally:
            error = sys.exc_info()[1]
            if error is None or isinstance(error, Exception):
                asked = self.requests() > before
                await anyio.lowlevel.checkpoint()
                if asked:
                    self.faults["swallowed: a native cancellation was asked for, and the code went on"] += 1

    async def body(self) -> str:
        """What a user's function does: waits, fails, has scopes and timeouts of its own, cleans up when cancelled."""
        try:
            await self.nested(self.random.choice((0, 0, 1, 2)), lambda: anyio.sleep(self.delay()))
            if self.random.random() < 0.2:
                raise ConnectionError("scripted")
        except self.cancelled:
            self.counts["cancelled in the function"] += 1
            if self.random.random() < 0.3:
                with anyio.CancelScope(shield=True):
                    await anyio.sleep(self.delay() / 4)
            raise
        return "done"

    # -- layers ---------------------------------------------------------------------------------------------------

    async def plain(self, work: Work) -> Any:
        return await work()

    async def move_on_after(self, work: Work) -> Any:
        with anyio.move_on_after(self.delay()) as scope:
            return await work()
        self.counts["move_on_after"] += 1
        if not scope.cancel_called:
            self.faults["spurious: a scope caught what it had not asked for"] += 1
        return None

    async def fail_after(self, work: Work) -> Any:
        try:
            with anyio.fail_after(self.delay()):
                return await work()
        except TimeoutError as error:
            if isinstance(error, DeadlineExceeded):
                raise
            self.counts["fail_after"] += 1
            return None

    async def sibling_cancels(self, work: Work) -> Any:
        failure: Exception | None = None
        async with anyio.create_task_group() as group:

            async def cancel() -> None:
                await anyio.sleep(self.delay())
                self.counts["task group"] += 1
                group.cancel_scope.cancel()

            group.start_soon(cancel)
            try:
                await work()
            except Exception as error:  # noqa: BLE001 - raised again, outside the group
                failure = error
            group.cancel_scope.cancel()
        # Raised outside, or the program would get an ExceptionGroup.
        if failure is not None:
            raise failure

    async def asyncio_timeout(self, work: Work) -> Any:
        try:
            async with asyncio.timeout(self.delay()):
                return await work()
        except TimeoutError as error:
            if isinstance(error, DeadlineExceeded):
                raise
            self.counts["asyncio.timeout"] += 1
            return None

    async def wait_for(self, work: Work) -> Any:
        try:
            outcome = await asyncio.wait_for(caught(work), self.delay())
        except TimeoutError:
            self.counts["wait_for"] += 1
            return None
        if isinstance(outcome, Exception):
            raise outcome
        return outcome

    async def task_cancel(self, work: Work) -> Any:
        """As a server does when it shuts down: a task is cancelled once, from outside."""
        asked = False

        def cancel() -> None:
            nonlocal asked
            asked = task.cancel()

        token = INSIDE_ANYIO.set(False)  # scopes of this task do not reach into another
        task = asyncio.ensure_future(caught(work))
        INSIDE_ANYIO.reset(token)
        handle = asyncio.get_running_loop().call_later(self.delay(), cancel)
        try:
            await asyncio.wait([task])
        finally:
            handle.cancel()
            if not task.done():  # we are cancelled ourselves
                task.cancel()
                with anyio.CancelScope(shield=True):
                    await asyncio.wait([task])
        if task.cancelled():
            if asked:
                self.counts["task.cancel"] += 1
            else:
                self.faults["spurious: a task ended cancelled that nobody had cancelled"] += 1
            return None
        if asked:
            self.faults["swallowed: a cancelled task ended otherwise"] += 1
        outcome = task.result()
        if isinstance(outcome, Exception):
            raise outcome
        return outcome


async def caught(work: Work) -> Any:
    """Errors as values: asyncio complains of a task whose error nobody came to fetch, as a caller who left does not."""
    try:
        return await work()
    except Exception as error:  # noqa: BLE001 - handed on as a value
        return error
