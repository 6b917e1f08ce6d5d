"""All the features of a service: what they mean for each other, for the whole, and for writes."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType

from ..core.bounds import flag, positive
from ..core.degradation import Level, service_level
from ..core.orders import Order
from ..core.writes import ReadOnly, WriteMode
from ..events import CircuitChanged, Event, FeatureChanged, ReadOnlyChanged, ServiceChanged
from ..protocols import Surroundings
from .brownout import Brownout
from .feature import Feature
from .settings import seconds_until, text

__all__ = ["Registry"]


class Registry:
    """The features of one `Resilience`. It listens: a circuit that opens is news for the features that need it.

    Args:
        resilience: whose features they are.
        brownout: what dims them under load.
        wall: the wall clock, in seconds since 1970.
    """

    def __init__(self, resilience: Surroundings, brownout: Brownout | None = None, wall: Callable[[], float] = time.time) -> None:
        if brownout is not None and not isinstance(brownout, Brownout):
            raise TypeError(f"brownout: expected a Brownout, got {brownout!r}")
        self.brownout = brownout
        self.writes = WriteMode()
        self._resilience = resilience
        self._wall = wall
        self._features: dict[str, Feature] = {}
        self.view: Mapping[str, Feature] = MappingProxyType(self._features)
        """All features by name, as they are now and will stay: a new one makes a new view."""
        self._told = "healthy"
        self._lock = threading.Lock()
        if brownout is not None:
            brownout.join(resilience)

    def declare(self, feature: Feature) -> None:
        """Take a feature in.

        Raises:
            ValueError: there is one of that name already.
        """
        with self._lock:
            if feature.name in self._features:
                raise ValueError(f"name: there is a feature {feature.name!r} already")
            self._features = {**self._features, feature.name: feature}
            self.view = MappingProxyType(self._features)
        if self.brownout is not None:
            self.brownout.watch(self._features.values())
        if feature.writes and (stop := self.writes.refuses(self._resilience.clock.now())) is not None:
            feature._order(_order(stop))
        feature._look()  # perhaps a circuit that it needs is open already

    def reset(self) -> None:
        """Every feature full again, writes taken, nobody told."""
        self.writes.stop = None
        if self.brownout is not None:
            self.brownout.reset()
        for feature in self._features.values():
            feature.reset()
        self._told = "healthy"

    # -- what they mean for each other ----------------------------------------------------------------------------

    def on_event(self, event: Event) -> None:
        """Part of being a `Listener`."""
        if isinstance(event, CircuitChanged):
            for feature in self._features.values():
                if feature._circuits:
                    feature._look()
        elif isinstance(event, FeatureChanged):
            changed = self._features.get(event.feature)
            for feature in self._features.values():
                if changed in feature._features:
                    feature._look()
            if changed is not None and changed.critical:
                self._tell()

    @property
    def level(self) -> str:
        """healthy, degraded or critical: the worst of the critical features."""
        self._tell()
        return self._told

    def _tell(self) -> None:
        level = service_level([(feature.level, True) for feature in self._features.values() if feature.critical])
        with self._lock:
            old, self._told = self._told, level
            if old != level:
                self._resilience.outbox.post(ServiceChanged(at=self._resilience.clock.now(), old=old, new=level))
        self._resilience.outbox.flush()

    # -- writes -----------------------------------------------------------------------------------------------------

    def read_only(self, by: str, why: str, until: datetime | float | None, retry_after: float, *, enforce: bool) -> None:
        text("by", by)
        text("why", why)
        positive("retry_after", retry_after)
        flag("enforce", enforce)
        now = self._resilience.clock.now()
        end = math.inf if until is None else now + seconds_until(until, self._wall())
        stop = ReadOnly(by, why, end, retry_after, enforce)
        self.writes.stop = stop
        for feature in self._features.values():
            if feature.writes:
                feature._order(_order(stop))
        self._resilience.outbox.emit(ReadOnlyChanged(at=now, read_only=True, by=by, why=why, enforced=enforce))

    def read_write(self, by: str, why: str) -> None:
        text("by", by)
        text("why", why)
        stop, self.writes.stop = self.writes.stop, None
        for feature in self._features.values():
            feature._lift("read_only", None, everyone=True, by=by, why=why)
        if stop is not None:
            now = self._resilience.clock.now()
            self._resilience.outbox.emit(ReadOnlyChanged(at=now, read_only=False, by=by, why=why, enforced=stop.enforce))


def _order(stop: ReadOnly) -> Order:
    return Order(level=Level.OFF, until=stop.until, by=stop.by, why=stop.why, cause="read_only", enforce=stop.enforce)
