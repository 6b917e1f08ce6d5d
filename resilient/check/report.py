"""What there is to say of a service, as plain data: the same for people and for machines."""

from __future__ import annotations

import math
import signal
from typing import Any

from ..asgi.drain import Drain
from ..dependency import Dependency
from ..feature import Feature
from ..health import Check
from ..policies.cache import Cache
from ..policies.cached import CachedFallback
from ..policies.fallback import Fallback
from ..policies.order import place_of
from ..policies.retry import Retry
from ..policies.timeout import Timeout
from ..resilience import Resilience
from ..settings.values import masked

__all__ = ["report"]


def report(resilience: Resilience, app: Any, mistakes: list[str]) -> dict[str, Any]:
    """Dependencies, features, middleware and warnings."""
    features = resilience.features
    unused = [str(one) for one in resilience.settings.unused(resilience.dependencies, features, resilience.checks)]
    unchecked = [f'readiness="required" says nothing of {one}: it has no check' for one in resilience.health.unchecked]
    dependencies = [one for one in resilience.dependencies.values() if isinstance(one, Dependency)]
    return {
        "enabled": resilience.enabled,
        "chaos": resilience.chaos,
        "settings": repr(resilience.settings),
        "dependencies": [_dependency(one, list(features.values())) for one in dependencies],
        "features": [_feature(one) for one in features.values()],
        "readiness": resilience.health.readiness,
        "checks": [_check(one) for one in resilience.checks.values()],
        "drain": _drain(resilience.leaving.settings),
        "middleware": [getattr(one.cls, "__name__", repr(one.cls)) for one in getattr(app, "user_middleware", ())],
        "warnings": [masked(one) for one in [*dict.fromkeys(mistakes), *unused, *unchecked]],
    }


def _check(check: Check) -> dict[str, Any]:
    facts = {
        "takes the service out": check.required,
        "holds the start-up up": check.startup or check.required,
        f"of {check.dependency.name}" if check.dependency else "": check.dependency is not None,
    }
    ill = ", ".join(fact for fact, true in facts.items() if true) or "only told"
    return {"name": check.name, "interval": check.interval, "timeout": check.timeout, "required": check.required, "ill": ill}


def _drain(drain: Drain | None) -> dict[str, Any] | None:
    """How the service takes leave; None where no middleware says so."""
    if drain is None:
        return None
    signals = [signal.Signals(number).name for number in drain.signals]
    return {"signals": signals, **{name: getattr(drain, name) for name in ("delay", "budget", "close_websockets", "enforce")}}


def _feature(feature: Feature) -> dict[str, Any]:
    chain = feature._fallback
    steps = () if chain is None else chain.steps
    serves = ", else ".join(f"serves {masked(repr(step.value))} ({step.level})" for step in steps) or "raises"
    return {"name": feature.name, "needs": list(feature.needs), "critical": feature.critical, "failing": serves}


def _dependency(dependency: Dependency, features: list[Feature]) -> dict[str, Any]:
    places = [place for policy in dependency.policies if (place := place_of(policy)) is not None]
    return {
        "name": dependency.name,
        "origin": None if dependency.origin is None else str(dependency.origin),
        "required": dependency.required,
        "variant_of": None if dependency.variant_of is None else dependency.variant_of.name,
        "policies": [masked(repr(policy)) for policy in dependency.policies],
        "usual_order": places == sorted(places),
        "failures": _failures(dependency, [one for one in features if dependency.name in one.needs]),
    }


def _failures(dependency: Dependency, features: list[Feature]) -> dict[str, str]:
    """What becomes of each kind of failure, from the attempt to what users see."""
    retry = dependency._first(Retry)
    again = "not retried"
    if retry is not None and retry.attempts > 1:
        named = "functions: errors in `on`" if retry.on is not None else "functions: never"
        again = f"{retry.attempts} attempts (HTTP: where safe to repeat; {named})"
    timeout = dependency._first(Timeout)
    limits = "no limit of ours"
    if timeout is not None:
        each = "" if timeout.attempt in (None, math.inf) else f", {timeout.attempt:g} s an attempt"
        limits = f"after {timeout.total:g} s in all{each}" + ("" if timeout.enforce else " (shadow: cuts nothing)")
    opened = "no circuit breaker" if dependency.breaker is None else "rejected at once, not sent"
    return {
        "timeout": f"{limits}; {again}; then {_end(dependency, features, 'raises DeadlineExceeded or the timeout')}",
        "5xx": f"{again} (501: an answer); then {_end(dependency, features, 'the caller gets the answer itself')}",
        "open circuit": opened if dependency.breaker is None else f"{opened}; {_end(dependency, features, 'raises CircuitOpen')}",
    }


def _end(dependency: Dependency, features: list[Feature], bare: str) -> str:
    parts: list[str] = []
    fallback = False
    for policy in dependency.policies:
        if isinstance(policy, Cache | CachedFallback):
            age = policy.rules.stale_if_error
            parts.append(f"a cached answer up to {age:g} s stale" if age else "a cached answer where its origin allows it stale")
        elif isinstance(policy, Fallback):
            fallback = True
    if fallback:
        return ", else ".join([*parts, "the fallback"])
    served = [one.name for one in features if one._fallback is not None]
    parts.append(bare + (f" (feature {', '.join(served)} serves its fallback)" if served else ""))
    return ", else ".join(parts)
