"""The switches that the environment has: `RESILIENT_ENABLED=0` lets every call through untouched, `RESILIENT_CHAOS=1`
lets a `Chaos` act.
"""

from __future__ import annotations

import os

from ..core.bounds import flag

__all__ = ["chaos_allowed", "switched_on"]

OFF = frozenset({"0", "false", "no", "off"})
ON = frozenset({"1", "true", "yes", "on"})


def switched_on(given: bool | None = None, *, default: bool = True) -> bool:
    """Whether policies apply: as `given`, else as the environment says, else `default`. Read once, by whoever is constructed.

    Raises:
        TypeError, ValueError: naming `enabled` or the variable.
    """
    return _switch("enabled", given, "RESILIENT_ENABLED", default=default)


def chaos_allowed(given: bool | None = None, *, default: bool = False) -> bool:
    """Whether a `Chaos` may act: as `given`, else as the environment says, else `default`. Read once, likewise.

    Raises:
        TypeError, ValueError: naming `chaos` or the variable.
    """
    return _switch("chaos", given, "RESILIENT_CHAOS", default=default)


def _switch(name: str, given: bool | None, variable: str, *, default: bool) -> bool:
    if given is not None:
        flag(name, given)
        return given
    value = os.environ.get(variable, "").strip().lower()
    if value and value not in OFF | ON:
        raise ValueError(f"{variable}: expected one of {', '.join(sorted(OFF | ON))}, got {value!r}")
    return value in ON if value else default
