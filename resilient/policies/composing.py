"""Policies around a call, made one function of it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner, Policy

__all__ = ["compose"]


def compose(policies: tuple[Policy, ...], attempt: Inner) -> Inner:
    """One function of a call: the policies, outermost first, around `attempt`."""
    inner = attempt
    for policy in reversed(policies):
        link = getattr(policy, "link", None)
        inner = _link(policy.run, inner) if link is None else link(inner)
    return inner


def _link(run: Callable[[Call, Inner], Awaitable[Any]], inner: Inner) -> Inner:
    def step(call: Call) -> Awaitable[Any]:
        return run(call, inner)

    return step
