"""What one request may ask for itself, in its extensions."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Any, TypedDict

from ..call import Call
from ..context import Criticality, CriticalityName
from ..core.bounds import flag, positive

__all__ = ["RequestOptions", "apply_options"]

LONGEST = 200  # characters of a word that states are kept by


class RequestOptions(TypedDict, total=False):
    """`client.get(url, extensions={"resilient": options})`: all keys may be left out, and no other may be there.

    Attributes:
        timeout: seconds in all. It only ever shortens what the dependency grants; `Dependency.route` may grant more.
        retry: False for a single attempt: no retry, no hedge.
        criticality: how much this request matters, where that differs from the work it is part of; "sheddable" is as good
            as `Criticality.SHEDDABLE`.
        partition: whose request it is (a tenant, a region), for policies that keep several states apart; by default that of
            `resilient.context.partition`.
        route: the template of its path, `/orders/{id}`, for policies that keep a state for each route.
        cache: False to let no cache take part: nothing stored is served, and nothing is stored.
        propagate: False to tell the server neither how long the request has nor how much it matters, where the dependency would.
    """

    timeout: float
    retry: bool
    criticality: Criticality | CriticalityName
    partition: str
    route: str
    cache: bool
    propagate: bool


def apply_options(call: Call, given: Any) -> None:
    """Put on a call what its request asks for.

    Raises:
        TypeError, ValueError: naming the key that is wrong; the nearest one, where there is none of that name.
    """
    if not isinstance(given, Mapping):
        raise TypeError(f"extensions['resilient']: expected a mapping with some of {', '.join(KEYS)}, got {given!r}")
    for key, value in given.items():
        apply = KEYS.get(key)
        if apply is None:
            raise ValueError(f"extensions['resilient']: there is no {key!r}; {_nearest(key)}")
        apply(call, f"extensions['resilient'][{key!r}]", value)


def _timeout(call: Call, name: str, value: Any) -> None:
    positive(name, value)
    call.lower(call.runtime.now() + value, "total")


def _retry(call: Call, name: str, value: Any) -> None:
    flag(name, value)
    call.once = not value


def _criticality(call: Call, name: str, value: Any) -> None:
    call._criticality = Criticality.of(value, name)


def _partition(call: Call, name: str, value: Any) -> None:
    _word(name, value)
    call._partition = value


def _route(call: Call, name: str, value: Any) -> None:
    _word(name, value)
    call._route = value


def _cache(call: Call, name: str, value: Any) -> None:
    flag(name, value)
    call.uncached = not value


def _propagate(call: Call, name: str, value: Any) -> None:
    flag(name, value)
    if not value:
        call.propagation = None  # type: ignore[attr-defined]  # of an HTTP request, as all that has extensions


KEYS: dict[str, Callable[[Call, str, Any], None]] = {
    "timeout": _timeout,
    "retry": _retry,
    "criticality": _criticality,
    "partition": _partition,
    "route": _route,
    "cache": _cache,
    "propagate": _propagate,
}


def _word(name: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(f"{name}: expected a string, got {value!r}")
    if not 0 < len(value) <= LONGEST:
        raise ValueError(f"{name}: expected 1 to {LONGEST} characters, got {len(value)}")


def _nearest(key: Any) -> str:
    near = difflib.get_close_matches(str(key), KEYS, n=1)
    return f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(KEYS)}"
