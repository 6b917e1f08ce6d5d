"""What a forked child does with stores: locks that another thread held, and threads, do not come along."""

from __future__ import annotations

import os
from typing import Protocol
from weakref import WeakSet

__all__ = ["renewed_in_children"]


class _Renewed(Protocol):
    def renew(self) -> None:
        """Make locks and threads anew; nothing else runs in this process yet."""
        ...


_LIVING: WeakSet[_Renewed] = WeakSet()


def renewed_in_children(thing: _Renewed) -> None:
    """Have `thing.renew()` called in every child that this process forks, for as long as `thing` lives."""
    _LIVING.add(thing)


def _renew_all() -> None:
    for thing in list(_LIVING):
        thing.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
