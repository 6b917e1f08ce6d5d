"""What can be set: the parameters of our own constructors, as they are written there, and no second list of them.

A file can say words, numbers, switches, lists and tables. A parameter that takes nothing of these (a function, a class of
exceptions, a store) stays with the program.
"""

from __future__ import annotations

import ast
import functools
import inspect
import re
from collections.abc import Callable, Mapping
from typing import Any

from ..core.backoff import Constant, Exponential, Linear
from ..core.rules import Rules
from ..dependency import Dependency
from ..feature import Feature
from ..health import Check
from ..policies.adaptive import AdaptiveConcurrency
from ..policies.breaker import CircuitBreaker
from ..policies.budget import RetryBudget
from ..policies.bulkhead import Bulkhead
from ..policies.cache import Cache
from ..policies.cached import CachedFallback
from ..policies.chaos import Chaos
from ..policies.failover import Failover
from ..policies.hedge import Hedge
from ..policies.key import KEYS
from ..policies.kinship import RULES
from ..policies.ratelimit import RateLimit
from ..policies.retry import Retry
from ..policies.throttle import AdaptiveThrottle
from ..policies.timeout import Timeout
from ..stores import MemoryStore, RedisStore, SQLiteStore

__all__ = ["BACKOFFS", "CHECK", "DEPENDENCY", "DRAIN", "FEATURE", "KINDS", "PARTS", "ROOT", "STORES", "converted", "parameters", "word"]

_OURS: tuple[type, ...] = (
    *(Timeout, RateLimit, AdaptiveThrottle, Retry, Hedge, Failover, Bulkhead, AdaptiveConcurrency),
    *(CircuitBreaker, Cache, CachedFallback, Chaos),
)
NONE = "none"  # TOML has no word for it


def word(kind: type) -> str:
    """The name of a class as a table has it: `circuit_breaker`."""
    return re.sub(r"(?<!^)(?=[A-Z])", "_", kind.__name__).lower()


KINDS: dict[str, type] = {word(kind): kind for kind in _OURS}
"""Policies that have a table."""
BACKOFFS: dict[str, type] = {word(kind): kind for kind in (Exponential, Linear, Constant)}
STORES: dict[str, type] = {"memory": MemoryStore, "sqlite": SQLiteStore, "redis": RedisStore}
PARTS: dict[str, type] = {"RetryBudget": RetryBudget}
"""Parameters that are tables themselves."""


@functools.cache
def parameters(kind: type) -> dict[str, str]:
    """What of a constructor's parameters a file can say, with their annotations."""
    found = {name: str(one.annotation) for name, one in inspect.signature(kind).parameters.items() if one.kind is not one.VAR_KEYWORD}
    if kind is CircuitBreaker:
        found |= {name: str(field.type) for name, field in Rules.__dataclass_fields__.items() if name in RULES}
    if kind is Failover:
        found["targets"] = "URLs"  # where a target goes is all that a file can say of it
    return {name: annotation for name, annotation in found.items() if any(_known(one) for one in _alternatives(annotation))}


def _alternatives(annotation: str) -> list[str]:
    parts, depth = [""], 0
    for letter in annotation:
        depth += (letter in "[(") - (letter in "])")
        if letter == "|" and not depth:
            parts.append("")
        else:
            parts[-1] += letter
    return [part.strip() for part in parts]


# -- values -----------------------------------------------------------------------------------------------------------

_MISFIT: Any = object()


def _number(value: Any) -> Any:
    return value if isinstance(value, int | float) and not isinstance(value, bool) else _MISFIT


def _exactly(kind: type) -> Callable[[Any], Any]:
    return lambda value: value if type(value) is kind else _MISFIT


def _list_of(kind: type) -> Callable[[Any], Any]:
    return lambda value: tuple(value) if isinstance(value, list | tuple) and all(type(one) is kind for one in value) else _MISFIT


def _pair(value: Any) -> Any:
    return tuple(value) if isinstance(value, list | tuple) and len(value) == 2 and _MISFIT not in map(_number, value) else _MISFIT


def _by_status(value: Any) -> Any:
    if not isinstance(value, Mapping):
        return _MISFIT
    numbers = {str(key): _number(one) for key, one in value.items()}
    return {int(key): one for key, one in numbers.items()} if all(re.fullmatch(r"[0-9]{3}", key) for key in numbers) else _MISFIT


def _urls(value: Any) -> Any:
    if isinstance(value, Mapping):
        return dict(value) if value and all(isinstance(one, str) for one in (*value, *value.values())) else _MISFIT
    return _list_of(str)(value) if value else _MISFIT


_FITS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "bool": ("true or false", _exactly(bool)),
    "int": ("a whole number", _exactly(int)),
    "float": ("a number", _number),
    "str": ("a word", _exactly(str)),
    "Key": (f"one of {', '.join(KEYS)}", lambda value: value if value in KEYS else _MISFIT),
    "Iterable[str]": ("a list of words", _list_of(str)),
    "Iterable[int]": ("a list of whole numbers", _list_of(int)),
    "tuple[float, float]": ("two numbers in a list", _pair),
    "Mapping[int, float]": ("a table of seconds by status", _by_status),
    "URLs": ("a list of URLs, or a table of URLs by the names of the targets", _urls),
    "RetryBudget": ("a table", lambda value: value if isinstance(value, Mapping) else _MISFIT),
    "Backoff": ("a table", lambda value: value if isinstance(value, Mapping) else _MISFIT),
    "Jitter": ("full, equal or none", lambda value: value if value in ("full", "equal", "none") else _MISFIT),
    "Any": ("anything", lambda value: value),
}


def _known(alternative: str) -> bool:
    return alternative in _FITS or alternative.startswith("Literal[")


def converted(annotation: str, value: Any, text: str | None = None) -> Any:
    """`value` as the parameter wants it; `text` is what a variable said, which may be meant as a word.

    Raises:
        TypeError: it fits none of what the parameter takes; the message tells them.
    """
    wanted: list[str] = []
    alternatives = _alternatives(annotation)
    for candidate in (value, text) if text is not None and not isinstance(value, str) else (value,):
        for one in alternatives:
            if one.startswith("Literal["):
                choices = ast.literal_eval(one.removeprefix("Literal").replace("[", "(", 1)[:-1] + ",)")
                said, fitting = " or ".join(map(str, choices)), (candidate if candidate in choices else _MISFIT)
            elif one == "None":
                said, fitting = NONE, (None if candidate == NONE else _MISFIT)
            elif one in _FITS:
                said, fit = _FITS[one]
                fitting = _try(fit, candidate)
            else:
                continue
            if fitting is not _MISFIT:
                return fitting
            wanted += [said] if said not in wanted else []
    raise TypeError(f"expected {' or '.join(wanted)}")


def _try(fit: Callable[[Any], Any], candidate: Any) -> Any:
    try:
        return fit(candidate)
    except TypeError:  # it cannot even be looked for among words
        return _MISFIT


# -- what is no policy ------------------------------------------------------------------------------------------------


def _own(kind: type, *without: str) -> dict[str, str]:
    return {name: annotation for name, annotation in parameters(kind).items() if name not in without}


DEPENDENCY: dict[str, str] = _own(Dependency, "name", "policies", "variant_of")
FEATURE: dict[str, str] = _own(Feature, "name", "needs")
CHECK: dict[str, str] = _own(Check, "name", "strict")


DRAIN: dict[str, str] = {"delay": "float", "budget": "float", "close_websockets": "bool", "enforce": "bool"}
"""Settings of `Drain` that differ from one environment to the other."""
ROOT: dict[str, str] = {
    "enabled": "bool",
    "chaos": "bool",
    "max_origins": "int",
    "readiness": "Literal['local', 'required']",
    "startup_timeout": "float",
    "start_anyway": "bool",
}
"""Settings of the service itself, as `Resilience` has them."""
