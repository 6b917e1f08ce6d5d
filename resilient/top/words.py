"""Numbers as people read them, and text from outside in a form that a terminal can do nothing with but show it."""

from __future__ import annotations

import math
import time
from typing import Any

__all__ = ["UNKNOWN", "clean", "clock", "latency", "members", "number", "rate", "share", "span", "whole"]

UNKNOWN = "–"
LONGEST = 300  # characters of a text


def clean(text: Any, most: int = LONGEST) -> str:
    """Text without anything that is no character: a name may hold escape sequences, or turn the direction of writing round."""
    shown = "" if text is None else str(text)[: most + 1]
    shown = "".join(letter if letter.isprintable() else "�" for letter in shown)
    return shown if len(shown) <= most else shown[: most - 1] + "…"


def number(value: Any) -> float | None:
    """A finite number, or None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def members(value: Any) -> list[dict[str, Any]]:
    """The objects in a list, and nothing of anything else."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


def rate(value: Any) -> str:
    """Events per second."""
    known = number(value)
    if known is None:
        return UNKNOWN
    if 0 < known < 0.05:
        return "<0.1"
    if known == 0 or 9.95 <= known < 9999.5:
        return f"{known:.0f}"
    return f"{known:.1f}" if known < 9.95 else f"{known / 1000:.1f}k"


def whole(value: Any) -> str:
    """A count."""
    known = number(value)
    return UNKNOWN if known is None else f"{known:.0f}"


def share(value: Any) -> str:
    """A share of 1, as per cent."""
    known = number(value)
    if known is None:
        return UNKNOWN
    percent = known * 100
    return "<1%" if 0 < percent < 0.95 else ">99%" if 99 < percent < 100 else f"{percent:.0f}%"


def latency(value: Any) -> str:
    """How long something took."""
    known = number(value)
    if known is None:
        return UNKNOWN
    milliseconds = known * 1000
    if milliseconds < 9.95:
        return f"{milliseconds:.1f} ms"
    if milliseconds < 999.5:
        return f"{milliseconds:.0f} ms"
    return f"{known:.1f} s" if known < 9.95 else f"{known:.0f} s"


def span(value: Any) -> str:
    """How long ago something was."""
    known = number(value)
    if known is None:
        return UNKNOWN
    rest = max(int(known), 0)
    if rest < 60:
        return f"{rest} s"
    if rest < 3600:
        return f"{rest // 60} min"
    if rest < 86400:
        return f"{rest // 3600} h {rest % 3600 // 60} min"
    return f"{rest // 86400} d {rest % 86400 // 3600} h"


def clock(value: Any) -> str:
    """The time of day, in the reader's zone, of seconds since 1970."""
    known = number(value)
    if known is None:
        return UNKNOWN
    try:
        return time.strftime("%H:%M:%S", time.localtime(known))
    except (OverflowError, ValueError, OSError):
        return UNKNOWN
