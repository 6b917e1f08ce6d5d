"""Features: what users see, each with something to serve in its place when a dependency fails."""

from __future__ import annotations

import functools
import inspect
import re
import threading
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, ParamSpec, Protocol, TypeVar, cast

from .clock import Clock
from .context import RECORD, Cover, covered
from .core.bounds import exception_classes, flag, not_negative
from .core.degradation import Hysteresis, Level, LevelChange
from .core.outcome import Outcome, outcome_of_status
from .errors import ResilienceError, cause_of
from .events import FeatureChanged, FeatureDegraded
from .outbox import Outbox
from .substitute import Substitute

__all__ = ["MISSING", "Feature", "Level"]

P = ParamSpec("P")
R = TypeVar("R")

MISSING: Any = type("MISSING", (), {"__repr__": lambda self: "MISSING", "__doc__": "No fallback was given; None is one."})()

_CLIENTS = frozenset({"httpx", "httpx2"})


class Surroundings(Protocol):
    """What a feature needs of the `Resilience` that it belongs to."""

    @property
    def clock(self) -> Clock: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def outbox(self) -> Outbox: ...


class Named(Protocol):
    @property
    def name(self) -> str: ...


class Feature:
    """Decorates the functions of one feature, so that it degrades alone.

    A use that fails because of a dependency is answered by the fallback and told to the degradation record of the
    request being served, to listeners and thereby to metrics and logs. Failures of a dependency are `ResilienceError`,
    the `TransportError` of httpx and httpx2, an `HTTPStatusError` whose status is a failure or 429, and what `on`
    adds; also an exception group of nothing else. Anything else is a bug or an answer: it raises, and `errors` counts it.

    Args:
        resilience: where the feature belongs to.
        name: a token of RFC 9110 that begins with a letter (`recommendations`), at most 64 characters: it is told to
            clients and is a metric label.
        needs: the dependencies that it uses, for attribution.
        fallback: what to serve instead. A list, dict, set or tuple is copied for each use, nested ones too; a function
            is called (and awaited, in an async feature) with the arguments of the use, or without any if it takes none,
            and makes the level `reduced` rather than `static`; a class is called without arguments. What it raises
            reaches the caller, with the failure as its context. Without a fallback the failure itself is raised, and
            the level is `off`. None is a fallback.
        on: an exception class, or several, that count as failures of a dependency too.
        critical: whether the service as a whole is degraded when this feature is.
        dwell: seconds that a level is kept at least.
        recover_after: seconds without a degraded use after which the level rises again.

    Raises:
        TypeError, ValueError: from the constructor and the decorator; the message names the parameter.
    """

    def __init__(
        self,
        resilience: Surroundings,
        name: str,
        *,
        needs: Iterable[Named] = (),
        fallback: Any = MISSING,
        on: type[Exception] | Iterable[type[Exception]] = (),
        critical: bool = False,
        dwell: float = 1.0,
        recover_after: float = 10.0,
    ) -> None:
        self.name: str = _token(name)
        self.needs: tuple[str, ...] = _names(needs)
        flag("critical", critical)
        self.critical = critical
        self.errors: int = 0
        self._resilience = resilience
        self._on = exception_classes("on", on)
        self._fallback = None if fallback is MISSING else Substitute(fallback)
        not_negative("dwell", dwell)
        not_negative("recover_after", recover_after)
        if recover_after < dwell:
            raise ValueError(f"recover_after must be at least dwell = {dwell!r}, not {recover_after!r}")
        self._hysteresis = Hysteresis(dwell, recover_after)
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return f"<Feature {self.name} {self._hysteresis.level}>"

    @property
    def level(self) -> Level:
        """The level that recent uses show. A recovery that has become due is told to listeners when somebody looks."""
        if not self._hysteresis.steady:
            self._look()
        return self._hysteresis.level

    def reset(self) -> None:
        """Full again, with nothing remembered and nobody told."""
        with self._lock:
            self._hysteresis.reset()
            self.errors = 0

    def __call__(self, fn: Callable[P, R]) -> Callable[P, R]:
        """Make `fn` a use of this feature. Plain and async functions and methods; not generators.

        Raises:
            TypeError: `fn` is a generator function or a class, or the fallback cannot stand in for it.
        """
        if isinstance(fn, type):
            raise TypeError(f"feature {self.name}: decorate the methods of {fn.__name__}, or a function that makes one; it is a class")
        if isinstance(fn, staticmethod | classmethod):
            return cast("Callable[P, R]", type(fn)(self(fn.__func__)))
        target = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__
        if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
            raise TypeError(f"feature {self.name}: {fn!r} is a generator function; nothing could replace what it has yielded already")
        is_async = inspect.iscoroutinefunction(target)
        if self._fallback is not None:
            self._fallback.check(fn, is_async=is_async)
        return cast("Callable[P, R]", self._async(cast("Callable[..., Awaitable[Any]]", fn)) if is_async else self._sync(fn))

    # -- one use --------------------------------------------------------------------------------------------------

    def _async(self, fn: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        @functools.wraps(fn)
        async def use(*args: Any, **kwargs: Any) -> Any:
            if not self._resilience.enabled:
                return await fn(*args, **kwargs)
            return await self._guard(fn(*args, **kwargs), args, kwargs)

        return use

    async def _guard(self, awaitable: Awaitable[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = await (awaitable if self._fallback is None else covered(awaitable))
        except Exception as error:
            blamed = self._blame(error)
            if blamed is None:
                raise
            try:
                with self._degrading(blamed):
                    if self._fallback is None:
                        raise
                    value = self._fallback.make(args, kwargs)
                    return await value if inspect.isawaitable(value) else value
            finally:
                del blamed  # an error in a local of a frame of its own traceback would keep them all
        if not self._hysteresis.steady:
            self._look()
        return value

    def _sync(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(fn)
        def use(*args: Any, **kwargs: Any) -> Any:
            if not self._resilience.enabled:
                return fn(*args, **kwargs)
            try:
                if self._fallback is None:
                    value = fn(*args, **kwargs)
                else:
                    with Cover():
                        value = fn(*args, **kwargs)
            except Exception as error:
                blamed = self._blame(error)
                if blamed is None:
                    raise
                try:
                    with self._degrading(blamed):
                        if self._fallback is None:
                            raise
                        return self._fallback.make(args, kwargs)
                finally:
                    del blamed
            if hasattr(type(value), "__await__"):
                # A plain function that hands on a coroutine has done nothing yet: that fails when it is awaited.
                return self._guard(value, args, kwargs)
            if not self._hysteresis.steady:
                self._look()
            return value

        return use

    @contextmanager
    def _degrading(self, blamed: Exception) -> Iterator[None]:
        """Around the making of a replacement: tells what was served, or that nothing was."""
        try:
            yield
        except Exception:
            self._tell(Level.OFF, blamed)
            raise
        self._tell(Level.OFF if self._fallback is None else self._fallback.level, blamed)

    def _blame(self, error: Exception) -> Exception | None:
        """The dependency's failure that `error` is, or the first of those it consists of. None for anything else, counted."""
        failures = list(_leaves(error))
        if all(isinstance(leaf, (ResilienceError, *self._on)) or _is_client_failure(leaf) for leaf in failures):
            return failures[0]
        if self._on and isinstance(error, self._on):
            return error
        with self._lock:
            self.errors += 1
        return None

    def _tell(self, level: Level, blamed: Exception) -> None:
        cause = cause_of(blamed)
        dependency = blamed.dependency if isinstance(blamed, ResilienceError) else None
        if dependency is None:
            dependency = self.needs[0] if len(self.needs) == 1 else ""
        record = RECORD.get()
        if record is not None:
            record.add(self.name, level, cause, dependency=dependency)
        now = self._resilience.clock.now()
        outbox = self._resilience.outbox
        with self._lock:
            outbox.post(FeatureDegraded(at=now, dependency=dependency, feature=self.name, level=level, cause=cause))
            self._post(self._hysteresis.degraded(level, cause, now), now)
        outbox.flush()

    def _look(self) -> None:
        now = self._resilience.clock.now()
        with self._lock:
            changes = self._hysteresis.look(now)
            self._post(changes, now)
        if changes:
            self._resilience.outbox.flush()

    def _post(self, changes: list[LevelChange], now: float) -> None:
        # Under the lock, so that listeners are told of changes in the order in which they happened.
        for old, new, cause in changes:
            self._resilience.outbox.post(FeatureChanged(at=now, feature=self.name, old=old, new=new, cause=cause))


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _client_classes(kind: type) -> frozenset[str]:
    """Names of the classes of an HTTP client library that an exception class descends from; neither is imported."""
    return frozenset(base.__name__ for base in kind.__mro__ if base.__module__.partition(".")[0] in _CLIENTS)


def _is_client_failure(error: Exception) -> bool:
    classes = _client_classes(type(error))
    if "HTTPStatusError" in classes:
        outcome = outcome_of_status(error.response.status_code)  # type: ignore[attr-defined]
        return outcome.failed or outcome is Outcome.THROTTLED
    return "TransportError" in classes


# -- checks of settings -----------------------------------------------------------------------------------------------

_TOKEN = re.compile(r"[A-Za-z][A-Za-z0-9!#$%&'*+.^_`|~:/-]{0,63}")


def _token(name: Any) -> str:
    if not isinstance(name, str):
        raise TypeError(f"name: expected a string, got {name!r}")
    if not _TOKEN.fullmatch(name):
        raise ValueError(f"name: expected a letter followed by at most 63 letters, digits or any of -_.:/, got {name!r}")
    return name


def _names(needs: Any) -> tuple[str, ...]:
    if isinstance(needs, str) or not isinstance(needs, Iterable):
        raise TypeError(f"needs: expected dependencies in a list, got {needs!r}")
    names = tuple(getattr(dependency, "name", None) for dependency in needs)
    if not all(isinstance(name, str) for name in names):
        raise TypeError(f"needs: expected dependencies, got {needs!r}")
    return cast("tuple[str, ...]", names)
