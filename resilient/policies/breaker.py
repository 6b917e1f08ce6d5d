"""CircuitBreaker: leave a dependency alone that is known to be failing, and notice when it is back."""

from __future__ import annotations

import functools
import random
from collections.abc import Awaitable, Callable, Collection, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import pybreaker

from ..core.bounds import flag, one_of, whole
from ..core.breaker import CLOSED, HALF_OPEN, OPEN, Breaker, Rules
from .circuit import Circuit
from .guests import Mirror, store
from .key import MAX_KEYS, Key, check_key
from .keyed import Circuits, KeyedCircuit
from .kinship import RULES, rules_of
from .shown import shown
from .transitions import BreakFor

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["CircuitBreaker"]

STANDS_FOR = {
    "fail_max": ("consecutive",),
    "reset_timeout": ("break_time", "max_break", "growth", "jitter"),
    "success_threshold": ("trials",),
}
"""The rules behind pybreaker's parameters."""
CHANGEABLE = frozenset({*RULES - {"window", "buckets", "count_window", "lease"}, *STANDS_FOR, "enforce", "disabled"})


class CircuitBreaker(Circuit):
    """Reject calls while the dependency is failing; a `pybreaker.CircuitBreaker` with another engine.

    It trips on an outage (`outage_failures` connect errors, timeouts, 502, 503 or 504 in a row and no success for
    `outage_quiet`), on a stall (`stall_calls` calls that hang, and no success for `stall_after`), or when `failure_rate`
    of at least `minimum_calls` in the last `window` seconds failed. Then calls are rejected for `break_time`, longer
    after each failed round of trials up to `max_break`; then `trials` calls are let through, each under a lease, and
    their sample decides.

    The first eight parameters are pybreaker's, in its order and with its meaning; none of them is needed.

    Args:
        fail_max: trip on so many failures in a row, of any kind, instead of by the rules above.
        reset_timeout: seconds of a break that does not grow.
        success_threshold: size of the sample of trials.
        exclude: exception classes, or functions of the exception, that say nothing of the dependency.
        listeners: `pybreaker.CircuitBreakerListener`s; called outside every lock. An answer that is a failure without
            being an error is told to them as a `ResilienceError`.
        state_storage: mirrored to, in the background; the state is never read from it.
        name: for listeners and logs.
        throw_new_error_on_trip: raise CircuitOpen in place of the error that tripped it (pybreaker's default; not ours).
        outage_failures, outage_quiet: the outage rule: how many, and seconds without a success.
        stall_calls, stall_factor, stall_after: the stall rule: how many calls hang, which have waited for more than
            so many times the 95th percentile of the pipeline's successes (of which it takes 20) and for so many seconds.
            `stall_calls=None` switches it off. Calls with a fallback or a feature to answer for them are cut then.
        failure_rate, minimum_calls, window, buckets, count_window: the rate rule, over seconds (forgotten in so many
            steps) or over a number of calls.
        slow_call, slow_rate: calls of at least `slow_call` seconds are slow; trip at this rate of them. Off by default.
        break_time, max_break, jitter: seconds, seconds, and the share by which a break is varied.
        break_for: `break_for(number, reason)` returns the seconds of a break instead; `number` counts those since it was
            last closed, from 1. Where it fails, the three above hold.
        trials, trial_failure_rate: how many trials in a round, and at which failure rate they fail.
        lease: seconds after which a trial that never ended gives its place to another. By default a second more than
            the trial may take, or 30 where nothing limits it.
        key: a circuit for each "route" or "origin" of HTTP requests, or for each value of a function of the call's
            arguments (the request, for HTTP). What is done by hand to the breaker is then done to all of them.
        max_keys: circuits that are kept. One more drops one that is closed and idle if there is any, the one that was
            used longest ago; it begins anew when it is asked for again.
        initial_state: "closed", "half-open" (begin with trials), or "open" (reject until `close` or `half_open`).
        enforce: False counts and reports, and lets every call through.
        disabled: True takes no notice of anything.
        random: a source of numbers in [0, 1), for the jitter.

    Raises:
        CircuitOpen: from the call; its `reason` is the rule that tripped and `retry_after` the seconds left.
        DeadlineExceeded: from a call that was cut for a stall; its `reason` is "stall".
        TypeError, ValueError: from the constructor and the setters, naming the parameter.
    """

    _circuits: Circuits | None = None
    _storage: pybreaker.CircuitBreakerStorage | None = None

    def __init__(
        self,
        fail_max: int | None = None,
        reset_timeout: float | None = None,
        success_threshold: int | None = None,
        exclude: Iterable[type[BaseException] | Callable[[Any], bool]] | None = None,
        listeners: Sequence[pybreaker.CircuitBreakerListener] | None = None,
        state_storage: pybreaker.CircuitBreakerStorage | None = None,
        name: str | None = None,
        throw_new_error_on_trip: bool = False,
        *,
        break_for: BreakFor | None = None,
        key: Key | None = None,
        max_keys: int = MAX_KEYS,
        initial_state: str = CLOSED,
        enforce: bool = True,
        disabled: bool = False,
        random: Callable[[], float] = random.random,
        **rules: Any,
    ) -> None:
        flag("enforce", enforce)
        flag("disabled", disabled)
        one_of("initial_state", initial_state, (CLOSED, HALF_OPEN, OPEN))
        whole("max_keys", max_keys)
        _check_functions(break_for, key, random)
        if break_for is not None and reset_timeout is not None:
            raise TypeError("reset_timeout: cannot be given together with break_for")
        if key is not None and state_storage is not None:
            raise TypeError("state_storage: cannot hold the states of as many circuits as there are keys")
        super().__init__(exclude, listeners, state_storage, name, throw_new_error_on_trip)
        if rules:
            self._chosen = frozenset(rules)
        self._random = random
        self._enforce = enforce
        self._begin(Breaker(rules_of(fail_max, reset_timeout, success_threshold, rules)))
        if break_for is not None:
            self._break_for = break_for
        if key is not None:
            self._circuits = Circuits(self, key, max_keys)
        if disabled:
            self.disabled = True
        if initial_state != CLOSED:
            (self._core.open if initial_state == OPEN else self._core.half_open)(0.0)
        if state_storage is not None:
            self._storage = state_storage
            self._mirror = Mirror(lambda: self.current_state, functools.partial(store, state_storage), state_storage)

    def __repr__(self) -> str:
        rules = _settings_of(self.rules)
        if self.chose("lease"):
            rules["lease"] = self.rules.lease  # 30 s, too: by default it is the trial's own limit
        own = {"name": self._name, "throw_new_error_on_trip": self._throw_new_error_on_trip, "break_for": self._break_for}
        lists = {"exclude": self._excluded_exceptions or None, "listeners": self._listeners or None, "state_storage": self._storage}
        keyed = {} if self._circuits is None else {"key": self._circuits.key, "max_keys": self._circuits.most}
        return shown(self, **own, **rules, **lists, **keyed, enforce=self._enforce, disabled=self.disabled, random=self._random)

    # -- the policy -----------------------------------------------------------------------------------------------

    def link(self, inner: Inner) -> Inner:
        circuits, core = self._circuits, self._core
        if circuits is None:
            return super().link(inner)

        def dispatch(call: Call) -> Awaitable[Any]:
            return circuits.of(call).run(call, inner)

        own = super().link(dispatch)  # the breaker's own circuit is in the way only when it was opened by hand

        def step(call: Call) -> Awaitable[Any]:
            if not core.enabled:
                return inner(call)
            return dispatch(call) if core.state is CLOSED else own(call)

        return step

    def look(self, call: Call) -> None:
        if self._circuits is None:
            super().look(call)
        elif self._core.enabled:
            self._circuits.of(call).look(call)

    # -- state ----------------------------------------------------------------------------------------------------

    def circuit(self, key: Hashable) -> KeyedCircuit:
        """The circuit of one key, to look at it or to open and close it by hand; made if there is none yet.

        Raises:
            TypeError: this breaker has one circuit for all calls.
        """
        if self._circuits is None:
            raise TypeError("key: this circuit breaker was made without one, and has one circuit for all calls")
        return self._circuits[key]

    @property
    def circuits(self) -> dict[Hashable, KeyedCircuit]:
        """The circuits that are kept now, by key; empty for a breaker without keys."""
        return {} if self._circuits is None else self._circuits.all()

    def _worst(self) -> KeyedCircuit | None:
        """The circuit that speaks for all keys, unless the breaker itself was opened by hand."""
        return None if self._circuits is None or self._core.state is not CLOSED else self._circuits.worst()

    @property
    def current_state(self) -> str:
        """closed, open or half-open; of a breaker with keys, the worst there is."""
        worst = self._worst()
        return self._core.state if worst is None else worst.current_state

    @property
    def own_state(self) -> str:
        """The state of the circuit that every call meets; of a breaker with keys, one that changes by hand alone."""
        return self._core.state

    def refuses(self, now: float) -> bool:
        """Whether every call is refused at this moment. One that has become due is let through as a trial."""
        core = self._core
        return core.state is OPEN and core.enabled and self._enforce and (core.forced or core.open_until > now)

    @property
    def reason(self) -> str:
        """Why it is not closed: outage, stall, failure_rate, slow_rate, consecutive, forced; empty when it is."""
        worst = self._worst()
        return self._core.reason if worst is None else worst.reason

    def close(self) -> None:
        """Let every call through, and forget what was learnt."""
        super().close()
        for circuit in self.circuits.values():
            circuit.close()

    # -- settings -------------------------------------------------------------------------------------------------

    @property
    def enforce(self) -> bool:
        """False counts and reports, and lets every call through."""
        return self._enforce

    @enforce.setter
    def enforce(self, value: bool) -> None:
        flag("enforce", value)
        self._enforce = value
        for circuit in self.circuits.values():
            circuit._enforce = value

    @property
    def disabled(self) -> bool:
        """True admits every call and learns nothing."""
        return not self._core.enabled

    @disabled.setter
    def disabled(self, value: bool) -> None:
        flag("disabled", value)
        self._core.enabled = not value
        self._look_closer()

    @property
    def rules(self) -> Rules:
        """The settings in force."""
        return self._core.rules

    changeable: ClassVar[frozenset[str]] = CHANGEABLE
    """Settings that `taking` can change at work: all rules but those that would empty the window."""

    def taking(self, other: CircuitBreaker, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; the state stays, and so does the window.

        Raises:
            ValueError: a setting is at odds with another one that was changed by hand.
        """
        fields = {field for name in names for field in STANDS_FOR.get(name, (name,)) if field in Rules.__dataclass_fields__}
        rules = {field: getattr(other.rules, field) for field in fields}
        replace(self.rules, **rules)

        def take() -> None:
            if rules:
                self._configure(**rules)
            if "enforce" in names:
                self.enforce = other.enforce
            if "disabled" in names:
                self.disabled = other.disabled

        return take

    def chose(self, name: str) -> bool:
        """Whether a setting was given at construction, rather than left to its default."""
        return name in self._chosen

    def _configure(self, **rules: Any) -> None:
        super()._configure(**rules)
        for circuit in self.circuits.values():
            circuit._configure(**rules)

    def _look_closer(self) -> None:
        super()._look_closer()
        for circuit in self.circuits.values():
            circuit._look_closer()


def _settings_of(rules: Rules) -> dict[str, Any]:
    """Rules that are not the default ones, by the names that they are set by."""
    fields = {name: field.default for name, field in Rules.__dataclass_fields__.items()}
    told = {name: value for name, default in fields.items() if (value := getattr(rules, name)) != default}
    if "consecutive" in told:
        told = {"fail_max": told.pop("consecutive"), **told}
    if told.pop("growth", None) is not None:
        told = {name: value for name, value in told.items() if name not in ("break_time", "max_break", "jitter")}
        told["reset_timeout"] = rules.break_time
    return told


def _check_functions(break_for: Any, key: Any, random: Any) -> None:
    if not callable(random):
        raise TypeError(f"random: expected a function, got {random!r}")
    if break_for is not None and not callable(break_for):
        raise TypeError(f"break_for: expected a function of a number and a reason, got {break_for!r}")
    if key is not None:
        check_key(key)
