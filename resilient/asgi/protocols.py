"""What the inbound side is given: an ASGI application, and the `Resilience` that it belongs to."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from typing import Any, Protocol

from ..clock import Clock
from ..core.degradation import Level
from ..outbox import Outbox

__all__ = ["ASGIApp", "CountRequest", "Measured", "Message", "Receive", "Scope", "Send", "Served", "Surroundings"]

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
ASGIApp = Callable[[Scope, Receive, Send], Awaitable[None]]


class Surroundings(Protocol):
    """What a middleware needs of a `Resilience`."""

    @property
    def clock(self) -> Clock: ...
    @property
    def enabled(self) -> bool: ...
    @property
    def outbox(self) -> Outbox: ...


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


class Metrics(Protocol):
    def render(self, accept: str) -> tuple[bytes, str]:
        """The exposition in a format that `accept` allows, and its media type. Blocks."""
        ...


CountRequest = Callable[[str, str, str, float], None]
"""Told the route's template, the method, the class of the status, and seconds."""


class RequestCounter(Protocol):
    @property
    def count_request(self) -> CountRequest: ...


class Measured(Surroundings, Protocol):
    """What `MetricsMiddleware` needs of a `Resilience`."""

    @property
    def metrics(self) -> RequestCounter: ...


class Served(Surroundings, Protocol):
    """What the routes need of a `Resilience`."""

    @property
    def dependencies(self) -> Mapping[str, DependencyState]: ...
    @property
    def features(self) -> Mapping[str, FeatureState]: ...
    @property
    def metrics(self) -> Metrics: ...
    @property
    def startup_complete(self) -> bool: ...
    @property
    def ready(self) -> bool: ...
    @property
    def draining(self) -> bool: ...
