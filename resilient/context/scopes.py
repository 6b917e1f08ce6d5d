"""What flows from an inbound request to every outbound call: deadline, criticality, partition, the degradation record."""

from __future__ import annotations

import enum
import math
from collections.abc import Awaitable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar, Token
from typing import TYPE_CHECKING, Any, Literal, Self

from ..clock import SYSTEM_CLOCK, Clock

if TYPE_CHECKING:
    from ..core.degradation import DegradationRecord

__all__ = [
    "CRITICALITY",
    "DEADLINE",
    "PARTITION",
    "RECORD",
    "Criticality",
    "CriticalityName",
    "Deadline",
    "criticality",
    "current_criticality",
    "current_deadline",
    "current_dependency",
    "current_partition",
    "current_record",
    "deadline_scope",
    "in_force",
    "partition",
    "put_back",
]


CriticalityName = Literal["sheddable", "sheddable_plus", "critical", "critical_plus"]


class Deadline:
    """A moment after which an answer is of no use to anyone.

    Args:
        at: absolute seconds on `clock`.
        clock: the clock that `at` is read against; `time.monotonic` by default.
        inbound: True when the caller of this service set it, so that policies keep a reserve for the reply.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    # `of` is there only of the deadline of an attempt: whose it is. Made for every call, it is not filled in for others.
    __slots__ = ("at", "clock", "inbound", "of")

    of: str

    def __init__(self, at: float, clock: Clock = SYSTEM_CLOCK, *, inbound: bool = False) -> None:
        # Made for every call with a limit, so the usual kinds are let through at a glance.
        if type(at) is not float or at != at:  # noqa: PLR0124 - which only NaN is not
            _moment("at", at)
        if clock is not SYSTEM_CLOCK:
            _clock(clock)
        if inbound is not True and inbound is not False:
            raise TypeError(f"inbound must be True or False, not {inbound!r}")
        self.at: float = at
        self.clock: Clock = clock
        self.inbound: bool = inbound

    @classmethod
    def after(cls, seconds: float, clock: Clock = SYSTEM_CLOCK) -> Deadline:
        """The moment `seconds` from now.

        Raises:
            TypeError, ValueError: `seconds` is no number, or `clock` is none.
        """
        _moment("seconds", seconds)
        _clock(clock)
        return cls(clock.now() + seconds, clock)

    @property
    def remaining(self) -> float:
        """Seconds left; negative once it has passed."""
        return self.at - self.clock.now()

    @property
    def expired(self) -> bool:
        return self.clock.now() >= self.at

    def __repr__(self) -> str:
        return f"<Deadline {self.remaining:+.3f} s>"


def _moment(name: str, value: Any) -> None:
    """Require a number; infinity is one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if math.isnan(value):
        raise ValueError(f"{name} must be a number, not {value!r}")


def _clock(value: Any) -> None:
    if not isinstance(value, Clock):
        raise TypeError(f"clock: expected an object with now(), sleep(seconds) and wait(event, seconds), got {value!r}")


class Criticality(enum.IntEnum):
    """How much it matters that a request is served; the lowest are shed first (Google SRE book, chapter 21)."""

    SHEDDABLE = 0
    SHEDDABLE_PLUS = 1
    CRITICAL = 2
    CRITICAL_PLUS = 3

    @classmethod
    def of(cls, given: Criticality | str, name: str = "criticality") -> Criticality:
        """A criticality, or the one that a word such as "sheddable" stands for.

        Raises:
            TypeError, ValueError: it is neither; `name` says whose parameter it was.
        """
        if isinstance(given, cls):
            return given
        words = {member.name.lower(): member for member in cls}
        known = f"expected a Criticality or one of {', '.join(words)}, got {given!r}"
        if not isinstance(given, str):
            raise TypeError(f"{name}: {known}")
        if given not in words:
            raise ValueError(f"{name}: {known}")
        return words[given]


DEADLINE: ContextVar[Deadline | None] = ContextVar("resilient_deadline", default=None)
CRITICALITY: ContextVar[Criticality] = ContextVar("resilient_criticality", default=Criticality.CRITICAL)
RECORD: ContextVar[DegradationRecord | None] = ContextVar("resilient_record", default=None)
PARTITION: ContextVar[str | None] = ContextVar("resilient_partition", default=None)

LONGEST_PARTITION = 200  # characters


class Cover:
    """Says that something is served in place of what is done here, should it fail, for as long as it is `up`.

    Used with `with`, once.
    """

    __slots__ = ("_token", "up")

    def __init__(self) -> None:
        self.up = True

    def __enter__(self) -> Self:
        self._token = COVER.set(self)
        return self

    def __exit__(self, *raised: object) -> None:
        self.up = False  # for tasks that were started inside and are still running, nobody answers any more
        put_back(COVER, self._token)


COVER: ContextVar[Cover | None] = ContextVar("resilient_cover", default=None)


async def covered(awaitable: Awaitable[Any]) -> Any:
    """Await something that will be replaced if it fails."""
    with Cover():
        return await awaitable


def current_deadline() -> Deadline | None:
    """The deadline that bounds the code that asks, or None. It is set inside inbound requests and outbound calls."""
    return DEADLINE.get()


def current_dependency() -> str:
    """The name of the dependency whose attempt the code that asks is a part of; empty outside one, or one without a deadline."""
    return getattr(DEADLINE.get(), "of", "")


def current_criticality() -> Criticality:
    """The criticality of the request being served; `Criticality.CRITICAL` where nobody said otherwise."""
    return CRITICALITY.get()


def current_partition() -> str | None:
    """Whose work is being done, as `partition` was told; None where nobody said so."""
    return PARTITION.get()


def current_record() -> DegradationRecord | None:
    """The degradation record of the request being served, or None outside one."""
    return RECORD.get()


def put_back(variable: ContextVar[Any], token: Token[Any]) -> None:
    """Reset a context variable.

    A coroutine that nobody ends is closed by the garbage collector, in whatever context that runs: one that never saw the
    value.

    Raises:
        ValueError: it was set in another context, and nothing is being closed.
    """
    try:
        variable.reset(token)
    except ValueError as error:
        if not isinstance(error.__context__, GeneratorExit):
            raise


@contextmanager
def in_force(variable: ContextVar[Any], value: Any) -> Iterator[None]:
    """Set a context variable for what is done inside."""
    token = variable.set(value)
    try:
        yield
    finally:
        put_back(variable, token)


@contextmanager
def deadline_scope(deadline: Deadline) -> Iterator[Deadline]:
    """Bound every call made inside by `deadline`, or by the surrounding one if that is earlier.

    It bounds what this library does; it does not cancel other code.

    Raises:
        TypeError: `deadline` is no Deadline; `Deadline.after(2)` makes one.
    """
    if not isinstance(deadline, Deadline):
        raise TypeError(f"deadline: expected a Deadline, such as Deadline.after(2), got {deadline!r}")
    outer = DEADLINE.get()
    if outer is not None and outer.at <= deadline.at:
        deadline = outer
    with in_force(DEADLINE, deadline):
        yield deadline


@contextmanager
def criticality(value: Criticality | CriticalityName) -> Iterator[None]:
    """Give the work done inside this criticality.

    Raises:
        TypeError, ValueError: `value` is no Criticality, nor the name of one, such as "sheddable".
    """
    with in_force(CRITICALITY, Criticality.of(value, "value")):
        yield


@contextmanager
def partition(value: str | None) -> Iterator[None]:
    """Say whose work is done inside: a tenant, a user, a region.

    What a `Cache` or a `Fallback.cached` has stored for one partition is never served to another, nor to work without
    one, and what belongs to nobody not to a partition either. Policies whose `key` is "partition" keep a state for each.
    A request that names a partition of its own is of that one.

    Args:
        value: a word of 1 to 200 characters; None for work that is for nobody in particular.

    Raises:
        TypeError, ValueError: `value` is no such word.
    """
    if value is not None:
        if not isinstance(value, str):
            raise TypeError(f"value: expected a word such as 'tenant-7', or None, got {value!r}")
        if not 0 < len(value) <= LONGEST_PARTITION:
            raise ValueError(f"value: expected 1 to {LONGEST_PARTITION} characters, got {len(value)}")
    with in_force(PARTITION, value):
        yield
