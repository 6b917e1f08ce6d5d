"""A target of a Failover: where its calls go, what they carry, and the policies that are its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pybreaker

from ..core.bounds import flag
from ..core.outcome import Outcome
from ..protocols import Policy
from .breaker import CircuitBreaker
from .bulkhead import Bulkhead
from .cache import Cache
from .foreign import ForeignBreaker
from .pipeline import Pipeline, flatten
from .retry import Retry, RetryBudget

if TYPE_CHECKING:
    from ..call import Call

__all__ = ["Target", "TargetPipeline"]


class Target:
    """One of the alternatives of a `Failover`: a replica, a region, another provider or model, another function.

    Args:
        name: for events, metrics and `response.extensions["target"]`.
        policies: its own, outermost first; a new `CircuitBreaker()` if there are none.
        url: where its requests go, in place of the dependency's origin (or the request's own, without one), e.g.
            "https://eu.example.com/v1". The rest of the path, the query and the body stay.
        headers: fields to set, by name; None removes one. They replace what the request has.
        json: members to set in a JSON body that is an object, e.g. {"model": "small"}; or a function that is given the
            whole value and returns another.
        trusted: whether it may see the credentials that the request came with, and set cookies. By default it may if
            its requests stay on their origin. To an untrusted target they go without `Authorization`, `Cookie` and
            every field that sounds like a key, a token or a secret, except those that `headers` sets.
        function: for calls of functions: what is called in place of the dependency's own.
        arguments: for calls of functions: keyword arguments that replace the call's own of the same name.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    __slots__ = ("arguments", "function", "headers", "json", "name", "policies", "trusted", "url")

    def __init__(
        self,
        name: str,
        *policies: Any,
        url: str | None = None,
        headers: Mapping[str, str | None] | None = None,
        json: Mapping[str, Any] | Callable[[Any], Any] | None = None,
        trusted: bool | None = None,
        function: Callable[..., Any] | None = None,
        arguments: Mapping[str, Any] | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name: expected a word such as 'eu', got {name!r}")
        if not name or len(name) > 50 or any(letter.isspace() or not letter.isprintable() for letter in name):
            raise ValueError(f"name: expected 1 to 50 characters without white space, got {name!r}")
        if url is not None:
            _check_url(url)
        for field, value in _mapping("headers", headers).items():
            if not isinstance(field, str) or not (value is None or isinstance(value, str)):
                raise TypeError(f"headers: expected words, or None to remove a field, got {field!r}: {value!r}")
        if json is not None and not callable(json):
            _mapping("json", json)
        if trusted is not None:
            flag("trusted", trusted)
        if function is not None and not callable(function):
            raise TypeError(f"function: expected a function, got {function!r}")
        self.name: str = name
        tuple(flatten(policies))  # whose error names the parameter
        self.policies: tuple[Any, ...] = policies or (CircuitBreaker(),)
        self.url: str | None = None if url is None else url.rstrip("/")
        self.headers: dict[str, str | None] = _mapping("headers", headers)
        self.json: dict[str, Any] | Callable[[Any], Any] | None = dict(json) if isinstance(json, Mapping) else json
        self.trusted: bool | None = trusted
        self.function: Callable[..., Any] | None = function
        self.arguments: dict[str, Any] = _mapping("arguments", arguments)

    def __repr__(self) -> str:
        return f"<Target {self.name}>"

    @classmethod
    def of(cls, given: Any) -> Target:
        """A target, or one made of a URL or a function.

        Raises:
            TypeError: it is neither.
        """
        if isinstance(given, cls):
            return given
        if isinstance(given, str):
            _check_url(given)
            return cls(urlsplit(given).netloc.rpartition("@")[2][:50], url=given)
        if isinstance(given, tuple | list):
            raise TypeError(f"targets: put a star in front of a {type(given).__name__} of targets, as in Failover(*targets)")
        if isinstance(given, Pipeline | Policy | pybreaker.CircuitBreaker):
            raise TypeError(f"targets: put policies into a target, as in Target('eu', *policies), got {given!r}")
        if callable(given) and not isinstance(given, type):
            return cls(getattr(given, "__name__", type(given).__name__)[:50], function=given)
        raise TypeError(f"targets: expected a Target, a URL or a function, got {given!r}")

    @property
    def rewrites_requests(self) -> bool:
        """Whether it says something that only an HTTP request can follow."""
        return bool(self.url or self.headers or self.json)


class TargetPipeline(Pipeline):
    """What is known of one target: its policies and its statistics, under its own name."""

    required = False

    def __init__(self, *policies: Any, name: str, within: Pipeline) -> None:
        self._within = within
        super().__init__(*policies, name=name, clock=within.clock, outbox=within.outbox)

    @property
    def chaos(self) -> bool:
        """Whether a `Chaos` may act on the way to this target: as for the whole call."""
        return self._within.chaos

    @chaos.setter
    def chaos(self, value: bool) -> None:
        pass  # a pipeline has its own word on it; a target has none

    @property
    def breaker(self) -> CircuitBreaker | ForeignBreaker | None:
        return next((policy for policy in self.policies if isinstance(policy, CircuitBreaker | ForeignBreaker)), None)

    @property
    def bulkhead(self) -> Bulkhead | None:
        return next((policy for policy in self.policies if isinstance(policy, Bulkhead)), None)

    @property
    def budget(self) -> RetryBudget | None:
        return next((policy.budget for policy in self.policies if isinstance(policy, Retry)), None)

    @property
    def cache(self) -> Cache | None:
        return next((policy for policy in self.policies if isinstance(policy, Cache)), None)

    @property
    def state(self) -> str:
        breaker = self.breaker
        return pybreaker.STATE_CLOSED if breaker is None else breaker.current_state

    def settle(self, token: Call, outcome: Outcome, now: float, error: BaseException | None) -> None:
        """Count a call that this target was given: at the end of its body, if it has one."""
        if outcome.counted:
            self.stats.record(outcome.label, now - token.started, now)
        else:
            self.stats.record("ignored", None, now)


def _mapping(name: str, given: Any) -> dict[str, Any]:
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise TypeError(f"{name}: expected a mapping, got {given!r}")
    return dict(given)


def _check_url(url: Any) -> None:
    if not isinstance(url, str):
        raise TypeError(f"url: expected one such as https://eu.example.com/v1, got {url!r}")
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment or parts.username:
        raise ValueError(f"url: expected one such as https://eu.example.com/v1, got {url!r}")
    try:
        parts.port  # noqa: B018 - it is parsed when it is read
    except ValueError as error:
        raise ValueError(f"url: {error}, got {url!r}") from None
