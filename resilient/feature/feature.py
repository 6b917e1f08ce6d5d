"""Features: what users see, each with something to serve in its place when a dependency fails."""

from __future__ import annotations

import functools
import inspect
import random
import time
from collections.abc import Awaitable, Callable, Iterable
from contextlib import nullcontext
from typing import Any, ParamSpec, TypeVar, cast

from ..context import Cover, covered
from ..core.bounds import exception_classes
from ..core.degradation import Hysteresis, Level, worse
from ..core.orders import Verdict
from ..errors import Rejected, ResilienceError, cause_of
from ..events import FallbackFailed
from ..protocols import Surroundings
from ..substitute import Substitute
from .blame import blame
from .chain import MISSING, Chain
from .settings import Named, check, circuits, features, hands_on_awaitables, names, schedule_of, token
from .switch import Switch

__all__ = ["Feature", "Level"]

P = ParamSpec("P")
R = TypeVar("R")


class Feature(Switch):
    """Decorates the functions of one feature, so that it degrades alone.

    A use that fails because of a dependency is answered by the fallback and told to the degradation record of the
    request being served, to listeners and thereby to metrics and logs. Failures of a dependency are `ResilienceError`,
    the `TransportError` of httpx and httpx2, an `HTTPStatusError` whose status is a failure or 429, and what `on`
    adds; also an exception group of nothing else. Anything else is a bug or an answer: it raises, and `errors` counts it.

    The function is not called at all, and the fallback answers, where the circuit of something that it needs is open,
    where the load is too high (`Brownout`), and where the feature is ordered to be static or off: by `set_level`, by its
    schedule, or in read-only mode. Without a fallback `Rejected` is raised then; an open circuit lets the function find out.

    Args:
        resilience: where the feature belongs to.
        name: a token of RFC 9110 that begins with a letter (`recommendations`), at most 64 characters: it is told to
            clients and is a metric label.
        needs: the dependencies that it uses, and other features.
        fallback: what to serve instead. A list, dict, set or tuple is copied for each use, nested ones too; a function
            is called (and awaited, in an async feature) with the arguments of the use, or without any if it takes none,
            and makes the level `reduced` rather than `static`; a class is called without arguments; `chain(...)` is
            several of them in order. What it raises reaches the caller, with the failure as its context. Without a
            fallback the failure itself is raised, and the level is `off`. None is a fallback.
        on: an exception class, or several, that count as failures of a dependency too.
        critical: whether the service as a whole is degraded when this feature is; a brownout leaves it alone.
        required: it works or fails, and nothing in between: no fallback, no brownout, no roll-out of a switch.
        writes: whether it changes anything, so that it is refused in read-only mode.
        dim: features with a higher number are dimmed earlier under load, of equal ones the first declared; 0 is never.
        schedule: windows in which it is less, as for `Schedule`: "static 02:00-04:00" (UTC).
        key: says whose use it is (a user), for switches that are rolled out to a share; by default the tenant.
        tenant: says which tenant's use it is; by default the partition that is in force.
        dwell: seconds that a level is kept at least.
        recover_after: seconds without a degraded use after which the level rises again.
        wall: the wall clock, in seconds since 1970.
        chance: a source of numbers in [0, 1).

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
        required: bool = False,
        writes: bool = False,
        dim: float = 1.0,
        schedule: str | Iterable[str] | None = None,
        key: Callable[[], str | None] | None = None,
        tenant: Callable[[], str | None] | None = None,
        dwell: float = 1.0,
        recover_after: float = 10.0,
        wall: Callable[[], float] = time.time,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self.name: str = token(name)
        needs = tuple(needs) if isinstance(needs, Iterable) and not isinstance(needs, str) else needs
        self.needs: tuple[str, ...] = names(needs)
        check(critical=critical, required=required, writes=writes, dim=dim, dwell=dwell, recover_after=recover_after)
        if required and fallback is not MISSING:
            raise ValueError("required, fallback: what is required has none; it works or fails")
        self.critical: bool = critical
        self.required: bool = required
        self.writes: bool = writes
        self.dim: float = dim
        self._resilience = resilience
        self._circuits, self._features = circuits(needs), features(needs)
        self._on = exception_classes("on", on)
        self._fallback = None if fallback is MISSING else fallback if isinstance(fallback, Chain) else Chain(fallback)
        self._schedule = None if schedule is None else schedule_of(schedule, self._allowed)
        for parameter, function in (("key", key), ("tenant", tenant)):
            if function is not None and not callable(function):
                raise TypeError(f"{parameter}: expected a function without arguments, got {function!r}")
        self._key, self._tenant, self._wall, self._chance = key, tenant, wall, chance
        super().__init__(Hysteresis(dwell, recover_after))

    def __repr__(self) -> str:
        return f"<Feature {self.name} {self._level}>"

    @property
    def optional(self) -> bool:
        """Whether a brownout may dim it."""
        return self._fallback is not None and not self.critical and not self.required

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
            if self._watched:
                verdict = self._stopping()
                if verdict is not None:
                    return await self._replace(verdict, args, kwargs)
            return await self._guard(fn(*args, **kwargs), args, kwargs)

        return use

    async def _guard(self, awaitable: Awaitable[Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        try:
            value = await (awaitable if self._fallback is None else covered(awaitable))
        except Exception as error:
            verdict = self._replaceable(error)
            if verdict is None:
                raise
            return await self._replace(verdict, args, kwargs)
        if not self._hysteresis.steady:
            self._look()
        return value

    def _sync(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        hands_on = hands_on_awaitables(fn)

        @functools.wraps(fn)
        def use(*args: Any, **kwargs: Any) -> Any:
            nonlocal hands_on
            if not self._resilience.enabled:
                return fn(*args, **kwargs)
            if self._watched:
                verdict = self._stopping()
                if verdict is not None:
                    return self._replace(verdict, args, kwargs) if hands_on else self._replace_sync(verdict, args, kwargs)
            try:
                if self._fallback is None:
                    value = fn(*args, **kwargs)
                else:
                    with Cover():
                        value = fn(*args, **kwargs)
            except Exception as error:
                verdict = self._replaceable(error)
                if verdict is None:
                    raise
                return self._replace_sync(verdict, args, kwargs)
            if hasattr(type(value), "__await__"):
                # A plain function that hands on a coroutine has done nothing yet: that fails when it is awaited.
                hands_on = True
                return self._guard(value, args, kwargs)
            if not self._hysteresis.steady:
                self._look()
            return value

        return use

    # -- what is served instead -----------------------------------------------------------------------------------

    def _stopping(self) -> Verdict | None:
        """Why the function is not to be called, if it is not. A use that is only to be less is told, and called."""
        verdict = self._refusal()
        if verdict is None or not verdict.ordered or verdict.level is not Level.REDUCED:
            return verdict
        if self._fallback is not None and self._fallback.level is Level.REDUCED:
            return verdict
        self._tell(Level.REDUCED, verdict)
        return None

    async def _replace(self, verdict: Verdict, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        steps = self._steps(verdict)
        for number, step in enumerate(steps, start=1):
            try:
                with Cover() if number < len(steps) else nullcontext():
                    value = step.make(args, kwargs)
                    if inspect.isawaitable(value):
                        value = await value
            except Exception as error:
                if self._gives_way(number, steps, verdict, error):
                    continue
                raise
            self._tell(worse(step.level, verdict.level), verdict)
            return value
        raise self._refused(verdict)

    def _replace_sync(self, verdict: Verdict, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        steps = self._steps(verdict)
        for number, step in enumerate(steps, start=1):
            try:
                value = step.make(args, kwargs)
            except Exception as error:
                if self._gives_way(number, steps, verdict, error):
                    continue
                raise
            self._tell(worse(step.level, verdict.level), verdict)
            return value
        raise self._refused(verdict)

    def _steps(self, verdict: Verdict) -> tuple[Substitute, ...]:
        return () if self._fallback is None else self._fallback.steps[self._fallback.first(verdict) :]

    def _gives_way(self, number: int, steps: tuple[Substitute, ...], verdict: Verdict, error: Exception) -> bool:
        """Whether a fallback that failed is followed by another; it is told either way."""
        if number == len(steps):
            self._tell(Level.OFF, verdict)
            return False
        if blame(error, self._on) is None:
            self._count_error()
        now, level = self._resilience.clock.now(), steps[number - 1].level
        self._resilience.outbox.emit(
            FallbackFailed(at=now, feature=self.name, step=number - 1, level=level, cause=cause_of(error), dependency=_dependency(error))
        )
        return True

    def _refused(self, verdict: Verdict) -> Rejected:
        """Nothing can be served, and the function is not to be called."""
        self._tell(Level.OFF, verdict)
        wait = self._wait(verdict)
        return Rejected(f"feature {self.name} is off ({verdict.cause})", policy="feature", reason=verdict.cause, retry_after=wait)

    def _replaceable(self, error: Exception) -> Verdict | None:
        """What a use failed with, if something is served in its place. None for what is to be raised, which is told or counted."""
        verdict = self._blame(error)
        if verdict is not None and self._fallback is None:
            self._tell(Level.OFF, verdict)
            return None
        return verdict

    def _blame(self, error: Exception) -> Verdict | None:
        """What a use failed with, if that is the failure of a dependency. None for anything else, counted."""
        blamed = blame(error, self._on)
        try:
            if blamed is None:
                self._count_error()
                return None
            dependency = _dependency(blamed) or (self.needs[0] if len(self.needs) == 1 else "")
            return Verdict(Level.FULL, cause_of(blamed), dependency=dependency)
        finally:
            del blamed  # an error in a local of a frame of its own traceback would keep them all


def _dependency(error: Exception) -> str:
    return (error.dependency or "") if isinstance(error, ResilienceError) else ""
