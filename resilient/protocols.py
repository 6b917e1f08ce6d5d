"""The contracts that hold the library together: a policy, what it is given, and what it may ask of the world."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

if TYPE_CHECKING:
    from .call import Call
    from .clock import Clock
    from .core.entry import Record
    from .core.outcome import Outcome
    from .outbox import Outbox
    from .policies.pipeline import Pipeline
    from .race import Race

__all__ = ["Holder", "Inner", "Policy", "Router", "Runtime", "Store", "Waiter"]

Inner = Callable[["Call"], Awaitable[Any]]
"""The rest of the pipeline: what `Policy.run` calls, once or more often or not at all."""


@runtime_checkable
class Policy(Protocol):
    """One behaviour around a call.

    `run` is either a coroutine function or a plain function that returns `inner(call)`: a policy that only has to
    look before the call need not be a frame of its own while the call runs. A policy that counts its nanoseconds may
    also have `link(inner)`: it returns `run` for one place in one pipeline, as a function of the call.
    """

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        """Run `inner(call)` under this policy and return what it returned."""
        ...


@runtime_checkable
class Holder(Protocol):
    """A policy that holds something for the length of a call: a slot, a permit, a lease.

    In `run` it pushes `(self, token)` on `call.held`; the runner calls `settle` with that token exactly once, newest
    first, without awaiting: after a plain call, at the end, error or close of a streamed body, or before a retry.
    """

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> float | None:
        """Give back what `token` stands for, and learn from `outcome`.

        Returns:
            A moment before which another try is useless, or None.
        """
        ...


class Surroundings(Protocol):
    """The part of a `Resilience` that whatever belongs to it needs."""

    @property
    def clock(self) -> Clock: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def outbox(self) -> Outbox: ...


@runtime_checkable
class Router(Protocol):
    """Finds the dependency that a URL belongs to."""

    def dependency_for(self, url: Any) -> Pipeline:
        """`url` has `scheme`, `host`, `port` (None for the scheme's own) and `path`."""
        ...


class Waiter(Protocol):
    """Somebody who waits in a queue; woken from any thread, through the event loop that it belongs to."""

    def wake(self) -> bool:
        """Let `Runtime.wait` return True. Returns False if nobody can be woken any more (its event loop is closed)."""
        ...


class Runtime(Protocol):
    """All that a policy may ask of the world. One implementation awaits, one blocks, and none needs to know which."""

    clock: Clock
    sync: bool
    """Whether nothing that is awaited here ever suspends."""

    def now(self) -> float: ...

    def may_wait(self) -> bool:
        """Whether waiting is allowed here: a synchronous call on an event loop's own thread must not."""
        ...

    def attempt(self, call: Call) -> Awaitable[Any]:
        """Run the call's function once, under the earlier of its deadline and its attempt timeout."""
        ...

    def bounded(self, deadline: float, fn: Callable[[], Any]) -> Awaitable[Any]:
        """Run `fn` until `deadline`. Returns its result, or `EXPIRED` if it was cut off."""
        ...

    async def sleep(self, seconds: float) -> None: ...

    async def offload(self, act: Callable[[], Any], *, patient: bool = False) -> Any:
        """Run what may block, without blocking an event loop, and return what it returned.

        Raises:
            RuntimeError: every thread for such work is busy, and the caller is not so `patient` as to wait for one.
        """
        ...

    def waiter(self) -> Waiter: ...

    def race(self) -> Race | None:
        """A race for several calls beside each other; None where the caller's own thread is all there is."""
        ...

    async def wait(self, waiter: Waiter, deadline: float) -> bool:
        """Wait to be woken, until `deadline`. Returns whether it was."""
        ...


@runtime_checkable
class Store(Protocol):
    """Where a cache keeps its records. `resilient.testing.StoreContract` is the test of one.

    Keys and records are the cache's; a store looks into neither. It may forget an `Entry` or `Variants` at any time, but
    it keeps a `Mark`: what was saved before a mark and outlives it would be believed again. If it cannot keep one, it
    returns nothing that was saved earlier than that. It never raises for its own trouble, but misses; it may count and
    log it. Its methods are called from several threads at a time.

    A store may also have `peek(keys)`, which returns what `load` would if that takes no input or output at all, else
    None (`peek` itself may be None: it never does); `flush(timeout)`, which waits for writes that are still on their way;
    `clear()`; and to be read by metrics `size` and `limit` in bytes, `count`, `evictions`, `corrupt`, `up`.

    Attributes:
        blocking: whether its methods may wait for input and output, so that an event loop runs them on a thread.
    """

    blocking: bool

    def load(self, keys: Sequence[str]) -> Sequence[Record | None]:
        """What is kept under each key, in order, None for nothing; all of it at once, in one round trip."""
        ...

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        """Keep records, each for so many seconds, in place of what was there. Who saves sees it at once.

        A mark that is `first` takes the place of none: where there is one, that stays.

        Raises:
            TypeError: an entry's value is of a kind that this store cannot keep; the message names it.
        """
        ...

    def remove(self, keys: Sequence[str]) -> None:
        """Forget what is kept under keys."""
        ...

    def close(self) -> None:
        """Let go of files, connections and threads. Later calls miss."""
        ...
