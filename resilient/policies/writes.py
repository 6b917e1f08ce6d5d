"""Writes: a dependency that changes something is left alone in read-only mode."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import TYPE_CHECKING, Any

from ..core.outcome import Outcome
from ..core.writes import SAFE_METHODS, WriteMode
from ..errors import Rejected
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["Writes"]


class Writes:
    """Refuse calls while the service is read-only: all calls of functions, and HTTP requests that are not safe.

    `Dependency(writes=True)` has one, outermost, and `Resilience.read_only` switches it.

    Attributes:
        mode: what says whether writes are taken; a dependency outside a `Resilience` takes them always.

    Raises:
        Rejected: from the call; its policy and its reason are "read_only".
    """

    __slots__ = ("mode",)

    def __init__(self) -> None:
        self.mode = WriteMode()

    def __repr__(self) -> str:
        return shown(self)

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        if self.mode.stop is not None and (call.request is None or call.request.method not in SAFE_METHODS):
            now = call.runtime.now()
            stop = self.mode.refuses(now)
            if stop is not None:
                if stop.enforce:
                    message = "the service is read-only"
                    raise call.reject(Rejected, message, policy="read_only", reason="read_only", retry_after=stop.wait(now))
                call.report_rejection("read_only", "read_only", enforced=False)
        return inner(call)

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> None:
        """It holds nothing."""
