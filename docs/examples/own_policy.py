"""A policy of one's own: anything with `run(call, inner)`, and with `settle` if it holds something for the length of a call."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

from resilient import Dependency, Outcome, standard
from resilient.protocols import Inner


class UnderWay:
    """Tells which functions are running, and what became of each call."""

    def __init__(self) -> None:
        self.running: list[str] = []
        self.ended: list[str] = []

    def run(self, call: Any, inner: Inner) -> Awaitable[Any]:
        """Note the call and hold it; whoever runs calls gives it back with `settle`, exactly once."""
        name = call.fn.__name__
        self.running.append(name)
        call.held.append((self, name))
        return inner(call)

    def settle(self, token: str, outcome: Outcome, now: float, error: BaseException | None) -> None:
        """The call is over: a streamed one with its last chunk."""
        self.running.remove(token)
        self.ended.append(f"{token}: {outcome.label}")


under_way = UnderWay()
stock = Dependency("stock", under_way, *standard())


@stock
def count(product: str) -> int:
    """The call sees itself running."""
    assert under_way.running == ["count"]
    return 3


assert count("7") == 3
assert under_way.running == []
assert under_way.ended == ["count: success"]
