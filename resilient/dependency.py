"""Dependency: something that the service calls and that will fail, with the policies around it."""

from __future__ import annotations

import math
import re
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

import pybreaker

from .call import Classifier
from .clock import SYSTEM_CLOCK, Clock
from .core.bounds import flag, positive
from .outbox import Outbox
from .policies.breaker import CircuitBreaker
from .policies.bulkhead import Bulkhead
from .policies.fallback import Fallback
from .policies.foreign import ForeignBreaker
from .policies.hedge import Hedge
from .policies.pipeline import Pipeline
from .policies.retry import Retry, RetryBudget
from .policies.standard import standard
from .policies.timeout import Timeout

__all__ = ["Dependency", "Origin"]

T = TypeVar("T")
PORTS = {"http": 80, "https": 443}
_ABSENT: Any = object()


class Origin:
    """Where requests to a dependency go: scheme, host and port, and perhaps the beginning of a path."""

    __slots__ = ("host", "path", "port", "scheme")

    def __init__(self, url: str) -> None:
        if not isinstance(url, str):
            raise TypeError(f"origin: expected a URL such as https://api.example.com, got {url!r}")
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname or parts.query or parts.fragment or parts.username:
            raise ValueError(f"origin: expected a URL such as https://api.example.com or https://api.example.com/v1, got {url!r}")
        self.scheme = parts.scheme
        self.host = parts.hostname
        try:
            self.port = parts.port or PORTS[parts.scheme]
        except ValueError as error:
            raise ValueError(f"origin: {error}, got {url!r}") from None
        self.path = unquote(parts.path).rstrip("/")  # as requests show theirs

    @property
    def key(self) -> tuple[str, str, int]:
        return self.scheme, self.host, self.port

    def covers(self, path: str) -> bool:
        """Whether a request's path lies at or below this origin's."""
        own = self.path
        return not own or path == own or path.startswith(own + "/")

    def __str__(self) -> str:
        port = "" if self.port == PORTS[self.scheme] else f":{self.port}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.scheme}://{host}{port}{self.path}"


class Dependency(Pipeline):
    """A named pipeline: `await dependency.call(fn)`, `dependency.call_sync(fn)`, `@dependency`, or through a transport.

    Args:
        name: for errors, metrics, logs and degradation records.
        policies: outermost first; `standard()` if there are none.
        origin: the URL that its requests begin with, for transports that are given a `Resilience`.
        required: whether the service is of no use without it. It is told by /readyz, and has no implicit fallback.
        timeout: seconds that a call may take in all.
        cache: must be None; this release caches nothing.
        fallback: what to answer instead, as for `Fallback`.
        classify: `classify(result, error)` returns an `Outcome`, or None to leave it to the default.
        clock: what time is read from.

    Raises:
        TypeError, ValueError: naming the parameter that is wrong.
    """

    def __init__(
        self,
        name: str,
        *policies: Any,
        origin: str | None = None,
        required: bool = False,
        timeout: float | None = None,
        cache: None = None,
        fallback: Any = _ABSENT,
        classify: Classifier | None = None,
        clock: Clock = SYSTEM_CLOCK,
        outbox: Outbox | None = None,
    ) -> None:
        if not isinstance(name, str):
            raise TypeError(f"name: expected a word such as 'catalog', got {name!r}")
        if not re.fullmatch(r"[^\s\x00-\x1f\x7f]{1,100}", name):
            raise ValueError(f"name: expected 1 to 100 characters without white space, got {name!r}")
        flag("required", required)
        if cache is not None:
            raise TypeError(f"cache: this release caches nothing; leave it None, got {cache!r}")
        chosen = _with_timeout(policies, timeout)
        if fallback is not _ABSENT:
            chosen = (fallback if isinstance(fallback, Fallback) else Fallback(fallback), *chosen)
        super().__init__(*chosen, name=name, clock=clock, classify=classify, outbox=outbox)
        self.origin: Origin | None = None if origin is None else Origin(origin)
        self.required = required

    def __repr__(self) -> str:
        return f"<Dependency {self.name} {self.state}>"

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
    def state(self) -> str:
        """closed, open or half-open; a dependency without a breaker is always closed."""
        breaker = self.breaker
        return pybreaker.STATE_CLOSED if breaker is None else breaker.current_state


def _with_timeout(policies: tuple[Any, ...], timeout: float | None) -> tuple[Any, ...]:
    if not policies:
        return standard(timeout=_total(timeout))
    if timeout is None:
        return policies
    if any(isinstance(policy, Timeout) for given in policies for policy in (given.policies if isinstance(given, Pipeline) else (given,))):
        raise TypeError("timeout: the policies given hold a Timeout already")
    return (_total(timeout), *policies)


def _total(timeout: float | None) -> Timeout | None:
    if timeout is None:
        return None
    if timeout != math.inf:  # which stands for: no limit
        positive("timeout", timeout)
    return Timeout(total=timeout)
