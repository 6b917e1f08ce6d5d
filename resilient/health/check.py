"""A check: what is asked, how often, and how it stands."""

from __future__ import annotations

import functools
import inspect
import re
from collections.abc import Callable
from typing import Any, Protocol

from ..clock import Clock
from ..core.bounds import flag, positive, whole
from ..core.check import JITTER, Standing

__all__ = ["Check", "Probed", "Question", "name_of", "question", "suspends"]

LONGEST_NAME = 100
Question = Callable[[], Any]
"""A function, plain or async, that returns None or True if all is well, and False or raises if not."""


class Probed(Protocol):
    """What of a dependency matters here."""

    @property
    def name(self) -> str: ...
    @property
    def required(self) -> bool: ...
    @property
    def state(self) -> str: ...
    @property
    def breaker(self) -> Any: ...


class Check:
    """A check and how it stands. Only to be read: its service asks it.

    Args:
        name: for logs, metrics and the detail of /readyz.
        fn: what is asked.
        clock: what time is read from.
        interval: seconds between two questions, give or take a tenth.
        timeout: seconds after which no answer is a bad one.
        failures: bad answers in a row that make it ill.
        successes: good answers in a row that make it well again.
        required: whether the service takes no requests while it is ill.
        startup: whether the service has not started before it was well once.
        dependency: the dependency that it is the check of.
        strict: whether a dependency that is required takes its service out.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    __slots__ = ("_clock", "_required", "_strict", "busy", "dependency", "fn", "interval", "name", "standing", "startup", "timeout")

    def __init__(
        self,
        name: str,
        fn: Question,
        clock: Clock,
        *,
        interval: float = 10.0,
        timeout: float = 2.0,
        failures: int = 3,
        successes: int = 1,
        required: bool = False,
        startup: bool = False,
        dependency: Probed | None = None,
        strict: bool = False,
    ) -> None:
        self.name = name_of(name)
        self.fn = question("fn", fn)
        positive("interval", interval)
        positive("timeout", timeout)
        whole("failures", failures)
        whole("successes", successes)
        flag("required", required)
        flag("startup", startup)
        if dependency is not None and not isinstance(getattr(dependency, "required", None), bool):
            raise TypeError(f"dependency: expected a Dependency, got {dependency!r}")
        if dependency is not None and required:
            raise TypeError("required: a dependency says itself whether it is; see readiness= of Resilience for what follows from it")
        self._clock = clock
        self._required = required
        self._strict = strict
        self.dependency = dependency
        self.interval = float(interval)
        self.timeout = float(timeout)
        self.startup = startup
        self.standing = Standing(failures, successes, 3 * interval + timeout, interval * (1 - 2 * JITTER))
        self.busy = False
        """Whether a thread is at work that was asked; nobody asks it again until it is done."""

    def __repr__(self) -> str:
        return f"<Check {self.name} {self.state}>"

    @property
    def required(self) -> bool:
        """Whether the service takes no requests while it is ill."""
        return self._required or (self._strict and self.dependency is not None and self.dependency.required)

    @property
    def state(self) -> str:
        """well, ill or unknown: there was no answer yet, or none for longer than three intervals and a timeout."""
        return self.standing.state(self._clock.now())

    @property
    def since(self) -> float:
        """When the state became what it is, on the clock of the `Resilience`; minus infinity if it was never another."""
        return self.standing.since

    @property
    def age(self) -> float:
        """Seconds since the last answer; infinite before the first."""
        return self._clock.now() - self.standing.at

    @property
    def reason(self) -> str:
        """Why the last answer was a bad one, in a few words and without the text of an error; empty if it was good."""
        return self.standing.reason

    @property
    def failing(self) -> int:
        """Answers in a row, up to the last one, that speak against the state."""
        return self.standing.against


def name_of(name: Any) -> str:
    """A name for logs and labels."""
    if not isinstance(name, str):
        raise TypeError(f"name: expected a word such as 'disk', got {name!r}")
    if not re.fullmatch(r"[^\s\x00-\x1f\x7f]+", name) or len(name) > LONGEST_NAME:
        raise ValueError(f"name: expected 1 to {LONGEST_NAME} characters without white space, got {name!r:.120}")
    return name


def question(parameter: str, fn: Any) -> Question:
    """A function that can be asked without arguments, as far as that can be seen."""
    if not callable(fn) or isinstance(fn, type):
        raise TypeError(f"{parameter}: expected a function, plain or async, got {fn!r}")
    if inspect.isgeneratorfunction(_target(fn)) or inspect.isasyncgenfunction(_target(fn)):
        raise TypeError(f"{parameter}: expected a function that returns, and {fn!r} is a generator")
    try:
        inspect.signature(fn).bind()
    except TypeError as error:
        raise TypeError(f"{parameter}: it is called without arguments, and {fn!r} can't be: {error}") from None
    except ValueError:  # some built-ins tell nothing of their parameters
        pass
    return fn  # type: ignore[no-any-return]


def suspends(fn: Question) -> bool:
    """Whether it belongs on the event loop. What does not say so is called in a thread, and awaited if that turns out to be due."""
    return inspect.iscoroutinefunction(_target(fn))


def _target(fn: Any) -> Any:
    """The function behind partials and objects that can be called."""
    while isinstance(fn, functools.partial):
        fn = fn.func
    return fn if inspect.isroutine(fn) else type(fn).__call__
