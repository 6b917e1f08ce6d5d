"""What a circuit breaker has because it is a `pybreaker.CircuitBreaker`: its names, its setters, its ways of calling."""

from __future__ import annotations

import inspect
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any

import pybreaker

from ..clock import Clock
from ..core.bounds import flag, positive, whole
from ..core.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Rules, Transition
from ..core.outcome import Outcome
from ..errors import CircuitOpen
from ..runtime import drive
from .guests import excluded, listening

if TYPE_CHECKING:
    from .pipeline import Pipeline

__all__ = ["Kinship", "rules_of"]

RULES = frozenset(Rules.__dataclass_fields__) - {"consecutive", "growth"}
# Rules are frozen, so that all breakers that keep to the defaults share one object.
DEFAULTS = Rules()
# pybreaker's parameters, and those of ours that say the same or that they put out of force.
RIVALS = {
    "fail_max": frozenset(
        {
            *("outage_failures", "outage_quiet", "stall_calls", "stall_factor", "stall_after", "failure_rate", "minimum_calls"),
            *("window", "buckets", "count_window", "slow_call", "slow_rate"),
        }
    ),
    "reset_timeout": frozenset({"break_time", "max_break", "jitter"}),
    "success_threshold": frozenset({"trials"}),
}


class Kinship(pybreaker.CircuitBreaker):
    """pybreaker's surface in front of our engine, which a subclass brings along.

    pybreaker's own `__init__` is not run: it would build its storage, its states and a re-entrant lock. What its
    inherited methods use is set here instead.
    """

    _core: Breaker
    _look_closer: Callable[[], None]

    def __init__(
        self,
        exclude: Iterable[type[BaseException] | Callable[[Any], bool]] | None,
        listeners: Sequence[pybreaker.CircuitBreakerListener] | None,
        state_storage: pybreaker.CircuitBreakerStorage | None,
        name: str | None,
        throw_new_error_on_trip: bool,
    ) -> None:
        flag("throw_new_error_on_trip", throw_new_error_on_trip)
        if name is not None and not isinstance(name, str):
            raise TypeError(f"name: expected a string, got {name!r}")
        if state_storage is not None and not isinstance(state_storage, pybreaker.CircuitBreakerStorage):
            raise TypeError(f"state_storage: expected a pybreaker.CircuitBreakerStorage, got {state_storage!r}")
        self._lock: threading.Lock = threading.Lock()  # type: ignore[assignment]
        self._excluded_exceptions = excluded(exclude)
        self._listeners = listening(listeners)
        self._name = name
        self._throw_new_error_on_trip = throw_new_error_on_trip
        self._pipeline: Pipeline | None = None

    # -- settings -------------------------------------------------------------------------------------------------

    def configure(self, **rules: Any) -> None:
        """Change our own settings at run time, by their names at construction; the state is kept, and so is the window.

        Raises:
            TypeError, ValueError: naming the setting that is wrong; nothing was changed then.
        """
        _known(rules)
        self._configure(**rules)

    def _configure(self, **rules: Any) -> None:
        with self._lock:
            self._core.configure(replace(self._core.rules, **rules))
        self._look_closer()

    @property  # type: ignore[override]
    def fail_max(self) -> int | None:
        """Failures in a row, of any kind, that trip; None where our own rules are in force."""
        return self._core.rules.consecutive

    @fail_max.setter
    def fail_max(self, number: int) -> None:
        whole("fail_max", number)
        self._configure(consecutive=number)

    @property
    def reset_timeout(self) -> float:
        """Seconds of the (first) break."""
        return self._core.rules.break_time

    @reset_timeout.setter
    def reset_timeout(self, timeout: float) -> None:
        positive("reset_timeout", timeout)
        self._configure(**_fixed_break(timeout))

    @property
    def success_threshold(self) -> int:
        """Size of the sample of trials."""
        return self._core.rules.trials

    @success_threshold.setter
    def success_threshold(self, threshold: int) -> None:
        whole("success_threshold", threshold)
        self._configure(trials=threshold)

    def is_system_error(self, exception: BaseException) -> bool:
        """Whether `exception` says something of the dependency: it is not among the excluded ones."""
        for exclusion in self._excluded_exceptions:
            if isinstance(exclusion, type):
                if isinstance(exception, exclusion):
                    return False
            elif exclusion(exception):
                return False
        return True

    # -- state ----------------------------------------------------------------------------------------------------

    @property
    def current_state(self) -> str:
        """closed, open or half-open."""
        return self._core.state

    @property  # type: ignore[override]
    def state(self) -> pybreaker.CircuitBreakerState:
        """The state as pybreaker's listeners know it; to be set by its name."""
        return pybreaker.CircuitBreakerState(self, self.current_state)

    @state.setter
    def state(self, state_str: str) -> None:
        acts: dict[str, Callable[[], Any]] = {CLOSED: self.close, OPEN: self.open, HALF_OPEN: self.half_open}
        if state_str not in acts:
            raise ValueError(f"state: expected one of {', '.join(acts)}, got {state_str!r}")
        acts[state_str]()

    @property
    def fail_counter(self) -> int:
        """Failures in a row."""
        return self._core.consecutive_failures

    @property
    def success_counter(self) -> int:
        """Successful trials of the present round."""
        return self._core.trial_successes

    def open(self) -> bool:
        """Isolate: reject every call until `close` or `half_open`."""
        self._change(self._core.open)
        return self._throw_new_error_on_trip

    def half_open(self) -> None:
        """Let a round of trials through now."""
        self._change(self._core.half_open)

    def close(self) -> None:
        """Let every call through, and forget what was learnt."""
        self._change(self._core.close)

    def _change(self, act: Callable[[float], Transition | None]) -> None:
        raise NotImplementedError

    def _clock(self) -> Clock:
        raise NotImplementedError

    def add_listener(self, listener: pybreaker.CircuitBreakerListener) -> None:
        """Tell `listener` of calls and transitions, after all is settled and outside every lock."""
        super().add_listener(listening([listener])[0])
        self._look_closer()

    def remove_listener(self, listener: pybreaker.CircuitBreakerListener) -> None:
        super().remove_listener(listener)
        self._look_closer()

    # -- calls ----------------------------------------------------------------------------------------------------

    def _own(self) -> Pipeline:
        """The pipeline behind `call`, `calling` and the decorator: one breaker, the same runner."""
        if self._pipeline is None:
            from .pipeline import Pipeline  # which knows breakers, so that it cannot be known here from the start

            self._pipeline = Pipeline(self, name=self._name or "", clock=self._clock())
        return self._pipeline

    def call(self, func: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Call a plain function; a generator function is counted by the end of its generator.

        Raises:
            TypeError: `func` is a coroutine function; decorate it instead, or use `Pipeline(breaker).call`.
        """
        if inspect.isgeneratorfunction(func):
            return self._own()(func)(*args, **kwargs)
        if inspect.iscoroutinefunction(func) or inspect.isasyncgenfunction(func):
            raise TypeError(f"{func!r} is async: decorate it, or use `await Pipeline(breaker).call(fn)`")
        return self._own().call_sync(func, *args, **kwargs)

    @contextmanager
    def calling(self) -> Iterator[None]:
        """Guard a block of code, awaits included."""
        own = self._own()
        if not own.enabled:
            yield
            return
        generation = self._core.generation
        call = own.begin(_nothing, (), {}, sync=True)
        drive(own.open(call))
        try:
            yield
        except GeneratorExit:
            settle = partial(own.close, call, Outcome.IGNORED, None)
            if self._lock.locked():
                # Perhaps by this very thread: the collector closes what was dropped wherever it happens to run.
                own.abandoned.append(settle)
            else:
                settle()
            raise
        except BaseException as error:
            own.close(call, call.outcome_of_error(error), error)
            if isinstance(error, Exception) and self._replaces(generation):
                raise self._replacement() from error
            raise
        own.close(call, Outcome.SUCCESS, None)

    def _replaces(self, generation: int) -> bool:
        """Whether an error that came since `generation` tripped, and is to be told as CircuitOpen."""
        core = self._core
        return self._throw_new_error_on_trip and core.generation != generation and core.state is OPEN

    def _replacement(self) -> CircuitOpen:
        return CircuitOpen("the circuit opened", policy="breaker", reason=self._core.reason)

    def __call__(self, *functions: Callable[..., Any], **options: Any) -> Any:
        """Decorate a function, plain or async, or a generator; `@breaker` and `@breaker()` both work."""
        if options:
            raise TypeError("tornado coroutines are not supported: decorate an async function")
        if len(functions) > 1:
            raise TypeError(f"expected one function to decorate, got {len(functions)}")
        return self._own()(functions[0]) if functions else self._own()

    def call_async(self, func: Any, *args: Any, **kwargs: Any) -> Any:
        """Not supported: it needs tornado.

        Raises:
            TypeError: always.
        """
        raise TypeError("call_async needs tornado: decorate the async function, or use `await Pipeline(breaker).call(fn)`")


def _nothing() -> None:
    """What `calling` calls: its block is the call."""


# -- checks of settings -----------------------------------------------------------------------------------------------


def rules_of(fail_max: int | None, reset_timeout: float | None, success_threshold: int | None, rules: dict[str, Any]) -> Rules:
    """The engine's rules, from pybreaker's parameters and ours.

    Raises:
        TypeError, ValueError: naming the parameter that is unknown, wrong, or at odds with another one.
    """
    _known(rules)
    given = {"fail_max": fail_max, "reset_timeout": reset_timeout, "success_threshold": success_threshold}
    for name, value in given.items():
        rivals = sorted(RIVALS[name] & rules.keys())
        if value is not None and rivals:
            raise TypeError(f"{name}: cannot be given together with {', '.join(rivals)}")
    if fail_max is not None:
        whole("fail_max", fail_max)
        rules["consecutive"] = fail_max
    if reset_timeout is not None:
        positive("reset_timeout", reset_timeout)
        rules.update(_fixed_break(reset_timeout))
    if success_threshold is not None:
        whole("success_threshold", success_threshold)
        rules["trials"] = success_threshold
    return Rules(**rules) if rules else DEFAULTS


def _known(rules: dict[str, Any]) -> None:
    unknown = set(rules) - RULES
    if unknown:
        raise TypeError(f"CircuitBreaker: unknown parameter {', '.join(sorted(unknown))}; known are {', '.join(sorted(RULES))}")


def _fixed_break(seconds: float) -> dict[str, float]:
    return {"break_time": seconds, "max_break": seconds, "growth": 1.0, "jitter": 0.0}
