"""The state of a service as plain JSON: version 1, as docs/dashboard.md describes it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any
from weakref import WeakKeyDictionary

from ..policies.foreign import ForeignBreaker
from ..settings.values import masked
from ..telemetry.families import CACHE_REQUESTS, DEGRADED, REJECTIONS, RETRIES
from .journal import Journal
from .load import load
from .numbers import rounded
from .rates import MOST, Rates, Spread, shown

__all__ = ["Described"]

LONGEST = 200  # characters of a policy
MOST_FEATURES = 200
MOST_ORDERS = 20
MOST_POLICIES = 30

HITS = frozenset({"hit", "validated", "collapsed"})
STALE = frozenset({"stale", "stale_if_error", "fallback"})
MISSES = frozenset({"miss", "error"})


class Described:
    """Reads a `Resilience`; each document is of the moment.

    Args:
        resilience: what is read.
        journal: knows the last transitions.
        wall: the wall clock, in seconds since 1970.
    """

    def __init__(self, resilience: Any, journal: Journal, wall: Callable[[], float]) -> None:
        self._resilience = resilience
        self._journal = journal
        self._wall = wall
        self._policies: WeakKeyDictionary[Any, tuple[int, list[str]]] = WeakKeyDictionary()

    def document(self, rates: Rates, now: float) -> dict[str, Any]:
        """What the service, its load, dependencies and features are like."""
        resilience = self._resilience
        every = list(resilience.dependencies.values())
        features = list(resilience.features.values())
        alone = shown(every)
        counted = _Counted(rates)
        return {
            "window": rounded(rates.seconds),
            "service": self._service(now),
            "load": load(resilience, rates),
            "checks": [_check(one) for one in resilience.checks.values()],
            "dependencies": [self._dependency(one, rates.of(one.name), counted, now) for one in alone],
            "others": _others(every, alone, rates.others),
            "features": [self._feature(one, counted, now) for one in features[:MOST_FEATURES]],
            "other_features": max(len(features) - MOST_FEATURES, 0),
        }

    # -- the service ----------------------------------------------------------------------------------------------

    def _service(self, now: float) -> dict[str, Any]:
        resilience = self._resilience
        if resilience.draining:
            status = "draining"
        elif not resilience.startup_complete:
            status = "starting"
        else:
            status = "ready" if resilience.ready and resilience.health.look() else "not ready"
        stop = resilience.writes.refuses(now)
        return {
            "level": resilience.level,
            "ready": status == "ready",
            "status": status,
            "draining": bool(resilience.draining),
            "waiting": [] if resilience.startup_complete else list(resilience.health.startup.waiting),
            "enabled": resilience.enabled,
            "read_only": None
            if stop is None
            else {"by": stop.by, "why": stop.why, "until": self._date(stop.until, now), "enforce": stop.enforce},
        }

    def _date(self, at: float, now: float) -> float | None:
        """A moment of the clock as epoch seconds; None for one that never comes."""
        return None if at == math.inf else self._wall() + at - now

    # -- dependencies ---------------------------------------------------------------------------------------------

    def _dependency(self, one: Any, spread: Spread, counted: _Counted, now: float) -> dict[str, Any]:
        name, bulkhead, budget, origin = one.name, one.bulkhead, one.budget, getattr(one, "origin", None)
        return {
            "name": name,
            "origin": None if origin is None else masked(str(origin)),
            "required": one.required,
            **_circuit(one, now),
            **_spread(spread),
            "rejections": counted.get("rejections", name),
            "retries": counted.get("retries", name),
            "in_flight": None if bulkhead is None else bulkhead.in_use,
            "limit": None if bulkhead is None else bulkhead.limit,
            "queued": None if bulkhead is None else bulkhead.queued,
            "budget": None if budget is None else rounded(budget.remaining_ratio()),
            "cache": None
            if one.cache is None and getattr(one, "cached", None) is None
            else {part: counted.get(part, name) for part in ("hits", "misses", "stale")},
            "last_change": self._journal.last_changes.get(name),
            "policies": self._shown_policies(one),
        }

    def _shown_policies(self, one: Any) -> list[str]:
        # They are the same at each look, unless a setting was changed, which is an event.
        heard = self._journal.heard
        known = self._policies.get(one)
        if known is None or known[0] != heard:
            told = [masked(_shown(policy)) for policy in one.policies[:MOST_POLICIES]]
            known = heard, [text if len(text) <= LONGEST else text[: LONGEST - 3] + "..." for text in told]
            self._policies[one] = known
        return known[1]

    # -- features -------------------------------------------------------------------------------------------------

    def _feature(self, one: Any, counted: _Counted, now: float) -> dict[str, Any]:
        level = one.level
        last = next((entry for entry in reversed(one.history) if entry.what == "changed"), None)
        if last is not None and last.level != level:
            last = None
        less = last is not None and level != "full"
        return {
            "name": one.name,
            "level": str(level),
            "critical": one.critical,
            "required": one.required,
            "needs": list(one.needs),
            "cause": last.cause if last and less else "",
            "by": last.by if last and less else "",
            "why": last.why if last and less else "",
            "since": None if last is None else last.when.timestamp(),
            "degraded": counted.get("degraded", one.name),
            "orders": [
                {
                    "level": str(order.level),
                    "cause": order.cause,
                    "by": order.by,
                    "why": order.why,
                    "until": self._date(order.until, now),
                    "tenant": order.tenant,
                    "share": order.share,
                }
                for order in one.orders[:MOST_ORDERS]
            ],
            "levels": list(one.levels),
        }


def _check(one: Any) -> dict[str, Any]:
    return {
        "name": one.name,
        "state": one.state,
        "reason": one.reason,
        "age": rounded(one.age),
        "required": one.required,
        "dependency": None if one.dependency is None else one.dependency.name,
    }


def _shown(policy: Any) -> str:
    try:
        return repr(policy)
    except Exception:  # noqa: BLE001 - other people's code, and all that is lost is how it looks
        return f"<{type(policy).__name__}>"


class _Counted:
    """What events were counted, a second, by what they are about."""

    def __init__(self, rates: Rates) -> None:
        self._series = {
            "rejections": rates.by(REJECTIONS, lambda key: not key[2].startswith("shadow_")),
            "retries": rates.by(RETRIES, lambda key: key[1] == "retried"),
            "degraded": rates.by(DEGRADED),
            "hits": rates.by(CACHE_REQUESTS, lambda key: key[1] in HITS),
            "misses": rates.by(CACHE_REQUESTS, lambda key: key[1] in MISSES),
            "stale": rates.by(CACHE_REQUESTS, lambda key: key[1] in STALE),
        }

    def get(self, series: str, name: str) -> float | None:
        found = self._series[series]
        return None if found is None else rounded(found.get(name, 0.0))


def _spread(spread: Spread) -> dict[str, Any]:
    names = ("calls", "failures", "failure_ratio", "p50", "p95", "p99")
    return {name: rounded(getattr(spread, name)) for name in names}


def _circuit(one: Any, now: float) -> dict[str, Any]:
    """Its state: that of its breaker, `isolated` where that was opened by hand, `disabled` where nothing applies."""
    breaker = one.breaker
    if breaker is None:
        return {"state": "closed" if one.enabled else "disabled", "reason": "", "retry_after": None, "enforce": True, "controls": []}
    circuit = breaker.engine if isinstance(breaker, ForeignBreaker) else breaker
    circuit = circuit._worst() or circuit
    core = circuit._core
    state, left = circuit.current_state, core.retry_after(now)
    if not (one.enabled and core.enabled):
        state = "disabled"
    elif state == "open" and core.forced:
        state = "isolated"
    controls = {"closed": ["isolate"], "disabled": [], "isolated": ["half_open", "close"], "open": ["isolate", "half_open", "close"]}
    return {
        "state": state,
        "reason": circuit.reason,
        "retry_after": rounded(left),
        "enforce": circuit._enforce,
        "controls": controls.get(state, ["isolate", "close"]),
    }


def _others(every: list[Any], alone: list[Any], spread: Spread) -> dict[str, Any] | None:
    """The dependencies that are not shown each for itself, in a sum."""
    if len(every) <= MOST:
        return None
    named = {one.name for one in alone}
    states = [one.state for one in every if one.name not in named]
    return {
        "count": len(states),
        "not_closed": sum(state != "closed" for state in states),
        **{name: rounded(getattr(spread, name)) for name in ("calls", "failures", "failure_ratio")},
    }
