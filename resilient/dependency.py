"""Dependency: something that the service calls and that will fail, with the policies around it."""

from __future__ import annotations

import math
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeVar

import pybreaker

from .call import Classifier
from .clock import SYSTEM_CLOCK, Clock
from .core.bounds import flag, positive
from .core.origin import LONGEST_NAME, Origin
from .core.propagation import Propagation
from .core.route import Route
from .outbox import Outbox
from .policies.breaker import CircuitBreaker
from .policies.bulkhead import Bulkhead
from .policies.cache import Cache
from .policies.cached import CachedFallback
from .policies.fallback import Fallback
from .policies.foreign import ForeignBreaker
from .policies.hedge import Hedge
from .policies.order import replaced
from .policies.pipeline import Pipeline, flatten
from .policies.retry import Retry, RetryBudget
from .policies.standard import standard
from .policies.timeout import Timeout
from .policies.writes import Writes

__all__ = ["Dependency", "Origin", "composed"]

T = TypeVar("T")
_ABSENT: Any = object()


class Dependency(Pipeline):
    """A named pipeline: `await dependency.call(fn)`, `dependency.call_sync(fn)`, `@dependency`, or through a transport.

    Args:
        name: for errors, metrics, logs and degradation records.
        policies: outermost first; `standard()` if there are none.
        origin: the URL that its requests begin with, for transports that are given a `Resilience`.
        required: whether the service is of no use without it. It is told by /readyz, and has no implicit fallback.
        writes: whether its calls change something, so that they are refused in read-only mode; safe HTTP requests never are.
        propagate: whether requests to its `origin` tell it how many milliseconds they have (`X-Request-Timeout-Ms`) and how
            much they matter (`X-Criticality`). Off by default, for a third party has no use for either. Other names, or
            one of the two alone: `{"deadline": "grpc-timeout", "criticality": "X-Importance"}`.
        timeout: seconds that a call may take in all.
        cache: a `Cache`, or True for one with its defaults: answers are stored and served by RFC 9111. For functions, a
            `Fallback.cached`.
        fallback: what to answer instead, as for `Fallback`; a `Fallback`, or a `Fallback.cached`.
        classify: `classify(result, error)` returns an `Outcome`, or None to leave it to the default.
        clock: what time is read from.
        chaos: whether a `Chaos` among the policies may act; by default the environment decides: `RESILIENT_CHAOS=1`.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    rule: Route | None = None
    """Which requests it is for, where it is the route of another dependency."""
    _adopt: Callable[[Dependency], None] | None = None

    def __init__(
        self,
        name: str,
        *policies: Any,
        origin: str | None = None,
        required: bool = False,
        writes: bool = False,
        propagate: bool | Mapping[str, str] = False,
        timeout: float | None = None,
        cache: Cache | CachedFallback | bool | None = None,
        fallback: Any = _ABSENT,
        classify: Classifier | None = None,
        clock: Clock = SYSTEM_CLOCK,
        outbox: Outbox | None = None,
        chaos: bool | None = None,
        variant_of: Dependency | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name: expected a word such as 'catalog', got {name!r}")
        if not re.fullmatch(r"[^\s\x00-\x1f\x7f\ud800-\udfff]+", name) or len(name) > LONGEST_NAME:
            raise ValueError(f"name: expected 1 to {LONGEST_NAME} characters without white space, got {name!r}")
        flag("required", required)
        flag("writes", writes)
        chosen = composed(policies, timeout=timeout, cache=cache, fallback=fallback, writes=writes)
        self.variant_of: Pipeline | None = variant_of
        super().__init__(*chosen, name=name, clock=clock, classify=classify, outbox=outbox, chaos=chaos)
        self.origin: Origin | None = None if origin is None else Origin(origin)
        self.propagation: Propagation | None = None if propagate is False else Propagation(self.origin, propagate)
        self.required = required
        self.routes: tuple[Dependency, ...] = ()
        self._routing = threading.Lock()

    def __repr__(self) -> str:
        return f"<Dependency {self.name} {self.state}>"

    # -- other policies for some of its calls ----------------------------------------------------------------------

    def variant(
        self, name: str, *policies: Any, timeout: float | None = None, fallback: Any = _ABSENT, classify: Classifier | None = None
    ) -> Dependency:
        """A dependency with some policies of its own, which shares the others with this one: the very same breaker, slots, budget.

        Each policy given takes the place of the one of its kind. A `Retry` without a budget of its own shares this one's.
        Calls are counted under the variant's own name; what is shared is told under this one's.

        Args:
            name: for errors, metrics, logs and degradation records.
            policies: what differs.
            timeout: seconds that a call may take in all; what else the `Timeout` says stays.
            fallback: what to answer instead, as for `Fallback`.
            classify: in place of this one's.

        Raises:
            TypeError, ValueError: naming the parameter that is wrong.
        """
        given = list(flatten(policies))
        if timeout is not None:
            given.append(self._retimed(given, timeout))
        if fallback is not _ABSENT:
            given.append(_as_fallback(fallback))
        for policy in given:
            if isinstance(policy, Retry) and policy.own_budget and self.budget is not None:
                policy.budget = self.budget
        made = Dependency(
            name,
            *replaced(self.policies, given),
            required=self.required,
            classify=self.classify if classify is None else classify,
            clock=self.clock,
            outbox=self.outbox,
            chaos=self.chaos,
            variant_of=self,
        )
        made.enabled = self.enabled
        made.propagation = self.propagation
        made.closing = self.closing
        if self._adopt is not None:
            self._adopt(made)
        return made

    def route(self, pattern: str, *policies: Any, name: str | None = None, **settings: Any) -> Dependency:
        """Other policies for some of the HTTP requests to this dependency: `orders.route("POST /orders/{id}", timeout=60)`.

        Of several routes that match a request the narrowest is its own. What they share is told by `variant`.

        Args:
            pattern: methods, an origin (only where the dependency has none) and the template of a path below the
                dependency's origin; any part may be left out. `{id}` stands for a segment, `{name:path}` for the rest.
            policies: what differs.
            name: as for any dependency; by default made of this one's and the pattern.
            settings: as for `variant`.

        Raises:
            TypeError, ValueError: naming the parameter that is wrong; also where another route is for the same requests.
        """
        if self.rule is not None:
            raise ValueError(f"pattern: {self.name} is a route itself, and has no routes; give them to its dependency")
        rule = Route(pattern, below="" if self.origin is None else self.origin.path, name="pattern")
        if rule.origin is not None and self.origin is not None:
            raise ValueError(f"pattern: {self.name} has an origin; leave it out of {pattern!r}")
        with self._routing:
            twin = next((one for one in self.routes if one.rule is not None and one.rule.twin(rule)), None)
            if twin is not None:
                raise ValueError(f"pattern: {pattern!r} is for requests that belong to {twin.name!r} already")
            made = self.variant(f"{self.name}:{pattern.replace(' ', '')}" if name is None else name, *policies, **settings)
            made.rule, made.template = rule, rule.template
            self.routes = tuple(sorted((*self.routes, made), key=lambda one: one.rule.order if one.rule else ()))
        return made

    def routed(self, method: str, url: Any) -> Dependency:
        """The dependency for a request: the narrowest route that is for it, or this one."""
        path = url.path
        for route in self.routes:
            if route.rule is not None and route.rule.matches(method, url, path):
                return route
        return self

    def _retimed(self, given: list[Any], timeout: float) -> Timeout:
        if any(isinstance(policy, Timeout) for policy in given):
            raise TypeError("timeout: the policies given hold a Timeout already")
        asked, ours = Timeout(total=_checked(timeout)), self._first(Timeout)
        return asked if ours is None else replace(ours, total=asked.total, attempt=asked.attempt, min_useful=asked.min_useful)

    # -- what it has -----------------------------------------------------------------------------------------------

    def _first(self, kind: type[T]) -> T | None:
        return next((policy for policy in self.policies if isinstance(policy, kind)), None)

    @property
    def breaker(self) -> CircuitBreaker | ForeignBreaker | None:
        """Its outermost circuit breaker."""
        return next((policy for policy in self.policies if isinstance(policy, CircuitBreaker | ForeignBreaker)), None)

    @property
    def bulkhead(self) -> Bulkhead | None:
        """Its outermost bulkhead."""
        return self._first(Bulkhead)

    @property
    def budget(self) -> RetryBudget | None:
        """The budget of its outermost retry, or else of its hedge."""
        spender = self._first(Retry) or self._first(Hedge)
        return None if spender is None else spender.budget

    @property
    def cache(self) -> Cache | None:
        """Its outermost cache of HTTP answers."""
        return self._first(Cache)

    @property
    def cached(self) -> CachedFallback | None:
        """Its outermost cache of what functions return."""
        return self._first(CachedFallback)

    @property
    def state(self) -> str:
        """closed, open or half-open; a dependency without a breaker is always closed."""
        breaker = self.breaker
        return pybreaker.STATE_CLOSED if breaker is None else breaker.current_state

    @property
    def failing(self) -> bool:
        """Whether its circuit is not closed, so that its calls fail. Where something of its own answers for it, they don't."""
        circuit = self._circuit
        return circuit is not None and circuit.own_state != pybreaker.STATE_CLOSED

    @property
    def refuses(self) -> bool:
        """Whether its circuit would refuse a call now. One that is due for a trial would not."""
        circuit = self._circuit
        return circuit is not None and circuit.refuses(self.clock.now())

    @property
    def _circuit(self) -> CircuitBreaker | None:
        """The circuit that speaks for all calls, unless a cache or a fallback answers in spite of it."""
        if not self.enabled or self.substitutes or any(isinstance(policy, Cache) for policy in self.policies):
            return None
        breaker = self.breaker
        circuit = breaker.engine if isinstance(breaker, ForeignBreaker) else breaker
        return circuit if circuit is not None and circuit.enforce and not circuit.disabled else None


def composed(
    policies: tuple[Any, ...],
    *,
    timeout: float | None = None,
    cache: Cache | CachedFallback | bool | None = None,
    fallback: Any = _ABSENT,
    writes: bool = False,
) -> tuple[Any, ...]:
    """The policies that the arguments of a `Dependency` stand for, outermost first."""
    chosen = _with_cache(_with_timeout(policies, timeout), cache)
    if writes:
        chosen = (Writes(), *chosen)
    return chosen if fallback is _ABSENT else (_as_fallback(fallback), *chosen)


def _with_timeout(policies: tuple[Any, ...], timeout: float | None) -> tuple[Any, ...]:
    if not policies:
        return standard(timeout=_total(timeout))
    if timeout is None:
        return policies
    if any(isinstance(policy, Timeout) for given in policies for policy in (given.policies if isinstance(given, Pipeline) else (given,))):
        raise TypeError("timeout: the policies given hold a Timeout already")
    return (_total(timeout), *policies)


def _with_cache(policies: tuple[Any, ...], cache: Cache | CachedFallback | bool | None) -> tuple[Any, ...]:
    if cache is None or cache is False:
        return policies
    chosen = Cache() if cache is True else cache
    if not isinstance(chosen, Cache | CachedFallback):
        raise TypeError(f"cache: expected a Cache, True, a Fallback.cached or None, got {cache!r}")
    kind = type(chosen)
    if any(isinstance(policy, kind) for given in policies for policy in (given.policies if isinstance(given, Pipeline) else (given,))):
        raise TypeError(f"cache: the policies given hold a {kind.__name__} already")
    return (chosen, *policies)


def _as_fallback(fallback: Any) -> Fallback | CachedFallback:
    return fallback if isinstance(fallback, Fallback | CachedFallback) else Fallback(fallback)


def _total(timeout: float | None) -> Timeout | None:
    return None if timeout is None else Timeout(total=_checked(timeout))


def _checked(timeout: float) -> float:
    if timeout != math.inf:  # which stands for: no limit
        positive("timeout", timeout)
    return timeout
