"""What checks need of the service that they are for."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol

from ..clock import Clock
from ..outbox import Outbox

__all__ = ["Counter", "Service", "Settings"]


class Counter(Protocol):
    """The part of the metrics that answers are told to."""

    def count_check(self, check: str, result: str) -> None: ...


class Settings(Protocol):
    """What is said of the service from outside."""

    def value(self, name: str, code: Any) -> Any:
        """A setting of the service, or the program's."""
        ...

    def check(self, name: str, own: dict[str, Any]) -> dict[str, Any]:
        """The settings of a check, over the program's."""
        ...


class Service(Protocol):
    """What is needed of a `Resilience`."""

    @property
    def clock(self) -> Clock: ...
    @property
    def outbox(self) -> Outbox: ...
    @property
    def metrics(self) -> Counter: ...
    @property
    def dependencies(self) -> Mapping[str, Any]: ...
