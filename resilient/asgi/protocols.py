"""What the inbound side is given: an ASGI application, and the `Resilience` that it belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, MutableMapping, MutableSet
from typing import Any, Protocol

from ..core.degradation import Level
from ..core.startup import Startup
from ..protocols import Surroundings

__all__ = [
    "ASGIApp",
    "Attended",
    "Latencies",
    "Measured",
    "Message",
    "Receive",
    "RequestCounter",
    "Scope",
    "Send",
    "Served",
    "Surroundings",
    "check_resilience",
]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Attended(Protocol):
    """What is done in the background, and has to be begun where there is no lifespan to do it."""

    pending: bool

    def attend(self) -> None:
        """See that somebody does it."""
        ...


class ServiceHealth(Protocol):
    """What probes are answered from."""

    @property
    def startup(self) -> Startup: ...
    def attend(self) -> None: ...
    def look(self) -> bool:
        """Whether no check that is required is known to be ill."""
        ...


class DependencyState(Protocol):
    @property
    def name(self) -> str: ...
    @property
    def required(self) -> bool: ...
    @property
    def state(self) -> str: ...


class FeatureState(Protocol):
    @property
    def critical(self) -> bool: ...
    @property
    def level(self) -> Level: ...


class Latencies(Protocol):
    """Who is told how long requests take, and how many more there are than can be served: a `Brownout`."""

    @property
    def period(self) -> float:
        """Seconds between two decisions."""
        ...

    def load(self, load: float) -> None:
        """The load is so much, where 1 is as much as it should be."""
        ...

    def observe(self, seconds: float) -> None:
        """A request took so long, up to the start of its response."""
        ...


class RequestCounter(Protocol):
    """The part of the metrics that requests are told to."""

    def count_request(self, route: str, method: str, status: str, seconds: float) -> None:
        """One request is over: the route's template, the method, the class of the status, how long it took."""
        ...

    def count_shed(self, criticality: str, reason: str) -> None:
        """One request was turned away."""
        ...


class Measured(Surroundings, Protocol):
    """What a middleware that counts requests, or turns them away, needs of a `Resilience`."""

    @property
    def metrics(self) -> RequestCounter: ...
    @property
    def admissions(self) -> MutableSet[Any]:
        """What lets requests in, for the metrics to read; it must hold them weakly."""
        ...


class Metrics(RequestCounter, Protocol):
    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in a format that `accept` allows, and its media type. Blocks."""
        ...


class Served(Measured, Protocol):
    """What `install` and the routes need of a `Resilience`."""

    @property
    def dependencies(self) -> Mapping[str, DependencyState]: ...
    @property
    def features(self) -> Mapping[str, FeatureState]: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def checks(self) -> Mapping[str, Any]: ...
    @property
    def health(self) -> ServiceHealth: ...
    @property
    def startup_complete(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
    def dashboard(
        self,
        prefix: str = "",
        *,
        authorize: Callable[[Any], Any] | None = None,
        readers: Callable[[Any], Any] | None = None,
        hosts: Iterable[str] | None = None,
    ) -> list[Any]:
        """The routes of the page, its state, its stream and its controls. Made further up than here."""
        ...


def check_resilience(resilience: Any, needed: str = "outbox") -> None:
    """Require what has the parts of a `Resilience`; the class itself has none of them."""
    if not hasattr(resilience, needed):
        raise TypeError(f"resilience: expected a Resilience, got {resilience!r}")
