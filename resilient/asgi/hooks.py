"""What is to be done before a service stops: work in the background that notes how far it came."""

from __future__ import annotations

import inspect
import logging
import threading
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, NamedTuple

import anyio
import anyio.to_thread

from ..events import DrainHookFailed

if TYPE_CHECKING:
    from .protocols import Surroundings

__all__ = ["DrainHooks", "Hook"]

logger = logging.getLogger("resilient")

Hook = Callable[[], Awaitable[object] | object]


class _Limited(NamedTuple):
    hook: Hook
    timeout: float

    @property
    def name(self) -> str:
        return getattr(self.hook, "__qualname__", type(self.hook).__name__)


class DrainHooks:
    """The hooks of one service, called beside each other when a drain begins.

    Attributes:
        errors: how many failed or were late.
    """

    __slots__ = ("_hooks", "_lock", "_resilience", "errors")

    def __init__(self, resilience: Surroundings) -> None:
        self._resilience = resilience
        self._lock = threading.Lock()
        self._hooks: tuple[_Limited, ...] = ()
        self.errors = 0

    def __bool__(self) -> bool:
        return bool(self._hooks)

    def add(self, hook: Hook, timeout: float) -> None:
        """Call `hook` too, for so many seconds at the most."""
        with self._lock:
            self._hooks = (*self._hooks, _Limited(hook, timeout))

    async def call(self) -> None:
        """Call them all, and wait for them."""
        async with anyio.create_task_group() as group:
            for one in self._hooks:
                group.start_soon(self._call, one)

    async def _call(self, one: _Limited) -> None:
        cause = "late"
        try:
            with anyio.move_on_after(one.timeout):
                await (one.hook() if inspect.iscoroutinefunction(one.hook) else _on_a_thread(one.hook))
                cause = ""
        except Exception:
            logger.exception("drain hook %s failed", one.name)
            cause = "error"
        except (KeyboardInterrupt, SystemExit):
            cause = "error"  # on the event loop it ends the program, as anywhere there
            raise
        finally:
            if cause:
                self.errors += 1
                resilience = self._resilience
                resilience.outbox.emit(DrainHookFailed(at=resilience.clock.now(), hook=one.name, cause=cause))


async def _on_a_thread(hook: Hook) -> None:
    """Call a plain function, for it may block; what it returns may be there to be awaited (an object whose call is async)."""
    # Not one of the threads that endpoints share: they may all be taken, which is when a drain is overdue.
    own = anyio.CapacityLimiter(1)
    result, error = await anyio.to_thread.run_sync(_called, hook, abandon_on_cancel=True, limiter=own)
    if isinstance(error, Exception):
        raise error
    if error is not None:
        # What ends a program ends a thread only, where no signal comes: it may not end the event loop with all that is served.
        raise RuntimeError(f"it raised {type(error).__name__} on its thread") from error
    if inspect.isawaitable(result):
        await result


def _called(hook: Hook) -> tuple[object, BaseException | None]:
    try:
        return hook(), None
    except BaseException as error:  # noqa: BLE001 - told where it is awaited
        return None, error
