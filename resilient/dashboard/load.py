"""The load of a service: who is inside, who waits, who was turned away, how long it takes."""

from __future__ import annotations

from typing import Any

from ..telemetry.families import SHED
from .numbers import rounded
from .rates import Rates

__all__ = ["load"]


def load(resilience: Any, rates: Rates) -> dict[str, Any]:
    """What admission and metrics know; what admission would know is null where there is none."""
    doors = list(resilience.admissions)
    requests = rates.requests
    by_class = rates.by(SHED, lambda key: not key[1].startswith("shadow_"))
    shadow = rates.by(SHED, lambda key: key[1].startswith("shadow_"))
    served = None if requests.calls is None or rates.turned_away is None else requests.calls + rates.turned_away
    return {
        **{part: sum(getattr(door, part) for door in doors) if doors else None for part in ("in_flight", "limit", "queued", "streams")},
        "lag": rounded(max(door.lag for door in doors)) if doors else None,
        "requests": rounded(served),
        "shed": None if by_class is None else rounded(sum(by_class.values())),
        "shed_by": None if by_class is None else {name: rounded(count) for name, count in by_class.items()},
        "would_shed": None if shadow is None else rounded(sum(shadow.values())),
        "p50": rounded(requests.p50),
        "p95": rounded(requests.p95),
        "p99": rounded(requests.p99),
        "brownout": _brownout(resilience.brownout),
    }


def _brownout(brownout: Any) -> dict[str, Any] | None:
    if brownout is None:
        return None
    return {
        "share": rounded(brownout.share),
        "measured": rounded(brownout.measured),
        "target": brownout.target,
        "enforce": brownout.enforce,
    }
