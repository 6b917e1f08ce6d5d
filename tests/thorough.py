"""How often chance is asked.

A run of everything asks it a third as often as `THOROUGH=1 python -m tests` does, and each run asks for something else. What
a test promises a number of is made as often in both.
"""

from __future__ import annotations

import os

THOROUGH = "THOROUGH" in os.environ


def often(times: int) -> int:
    """So many times, where nobody waits for it."""
    return times if THOROUGH else max(25, times // 3)
