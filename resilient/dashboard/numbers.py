"""Numbers as they are shown."""

from __future__ import annotations

import math

__all__ = ["rounded"]


def rounded(number: float | None) -> float | None:
    """Four significant digits: what is measured is no better, and less to send. None for what is no number."""
    return None if number is None or not math.isfinite(number) else float(f"{number:.4g}")
