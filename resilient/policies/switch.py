"""The switch that the environment has: `RESILIENT_ENABLED=0` lets every call through untouched."""

from __future__ import annotations

import os

from ..core.bounds import flag

__all__ = ["switched_on"]

OFF = frozenset({"0", "false", "no", "off"})
ON = frozenset({"", "1", "true", "yes", "on"})


def switched_on(given: bool | None = None) -> bool:
    """Whether policies apply: as `given`, else as the environment says, else yes. Read once, by whoever is constructed.

    Raises:
        TypeError, ValueError: naming `enabled` or the variable.
    """
    if given is not None:
        flag("enabled", given)
        return given
    value = os.environ.get("RESILIENT_ENABLED", "").strip().lower()
    if value not in OFF | ON:
        raise ValueError(f"RESILIENT_ENABLED: expected one of {', '.join(sorted((OFF | ON) - {''}))}, got {value!r}")
    return value not in OFF
