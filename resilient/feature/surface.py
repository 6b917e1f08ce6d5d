"""What a `Resilience` offers of its features as a whole, and of the writes that it takes or refuses."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from ..core.writes import WriteMode
from .brownout import Brownout
from .feature import Feature
from .registry import Registry

__all__ = ["Featured"]


class Featured:
    """Mixed into `Resilience`; `Registry` does the work."""

    _registry: Registry

    @property
    def features(self) -> Mapping[str, Feature]:
        """All features by name."""
        return self._registry.view

    @property
    def level(self) -> str:
        """healthy, degraded or critical: how the worst of the critical features is."""
        return self._registry.level

    @property
    def brownout(self) -> Brownout | None:
        """What dims optional features under load."""
        return self._registry.brownout

    def read_only(
        self, *, by: str = "", why: str = "", until: datetime | float | None = None, retry_after: float = 30.0, enforce: bool = True
    ) -> None:
        """Refuse writes until `read_write`: features and dependencies declared with `writes=True`, and HTTP requests that
        are not safe, unless the middleware says otherwise (`refuse_writes=False`, `exempt_writes=["POST /login"]`).

        Args:
            by: who says so; at most 500 characters, as for `why`.
            why: the reason, for those who ask later.
            until: when it is over: a date with a time zone, or seconds from now.
            retry_after: seconds after which clients are told to try again, where `until` does not say it.
            enforce: False counts what would be refused, and refuses nothing.

        Raises:
            TypeError, ValueError: naming the parameter that is wrong.
        """
        self._registry.read_only(by, why, until, retry_after, enforce=enforce)

    def read_write(self, *, by: str = "", why: str = "") -> None:
        """Take writes again."""
        self._registry.read_write(by, why)

    @property
    def writes(self) -> WriteMode:
        """Whether writes are taken: `writes.stop` is None then, else says who refuses them and why."""
        return self._registry.writes
