"""Who may be told what is behind: names of dependencies, causes, ages."""

from __future__ import annotations

from collections.abc import Callable

from ..core.bounds import flag
from .deadline import Trusted, trust
from .protocols import Scope

__all__ = ["exposure"]


def exposure(expose_causes: bool, trusted: Trusted = ()) -> Callable[[Scope], bool] | None:
    """The question whether the caller of a request is told; None for nobody."""
    flag("expose_causes", expose_causes)
    trusts = trust(trusted)
    return (lambda scope: True) if expose_causes else trusts
