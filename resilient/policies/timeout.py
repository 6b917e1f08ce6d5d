"""Timeout: how long a call, one attempt of it, and the reading of its body may take."""

from __future__ import annotations

import functools
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from ..core.bounds import flag, not_negative, one_of, positive
from ..events import DeadlinePassed
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["Timeout"]


@dataclass(frozen=True, kw_only=True, repr=False)
class Timeout:
    """Bound a call in time.

    It arms nothing itself: it lowers the call's deadline, which the attempt, every wait in a queue and every chunk of
    the body then keep to. A deadline inherited from the inbound request or from an outer call only ever shortens it.

    Args:
        total: seconds for everything up to the response headers, or up to the return of a function, retries and
            waits included.
        attempt: seconds for one attempt, in force only while another attempt could follow. At most `total`;
            by default min(10, total).
        first_byte: seconds until the first chunk of the body; `idle` by default.
        idle: seconds between two chunks of the body. By default 10, but no limit for event streams and upgraded
            connections, which fall silent by design.
        body: "idle" limits the pauses of the body alone; "total" puts the whole body under `total` too.
        min_useful: an attempt is not started with fewer seconds left; by default 0.01, or a tenth of a `total` below 0.1.
        enforce: False cuts nothing: calls longer than `total` and attempts longer than `attempt` are reported when they
            have ended (bodies are not looked at). A deadline from outside holds all the same.

    Raises:
        DeadlineExceeded: from the call; its `reason` names the limit.
        TypeError, ValueError: from the constructor, naming the parameter.
    """

    total: float = 30.0
    attempt: float | None = None
    first_byte: float | None = None
    idle: float | None = None
    body: Literal["idle", "total"] = "idle"
    min_useful: float | None = None
    enforce: bool = True

    def __post_init__(self) -> None:
        one_of("body", self.body, ("idle", "total"))
        flag("enforce", self.enforce)
        for name in ("total", "attempt", "first_byte", "idle"):
            value = getattr(self, name)
            # Infinity stands for: no limit.
            if value != math.inf and (value is not None or name == "total"):
                positive(name, value)
        if self.attempt is None:
            object.__setattr__(self, "attempt", min(10.0, self.total))
        elif self.attempt > self.total:
            raise ValueError(f"attempt: {self.attempt} s is longer than total, {self.total} s")
        if self.min_useful is None:
            object.__setattr__(self, "min_useful", min(0.01, self.total / 10))
            return
        not_negative("min_useful", self.min_useful)
        if self.min_useful >= self.total:
            raise ValueError(f"min_useful: with {self.min_useful} s out of {self.total} s in total no attempt would ever start")

    def __repr__(self) -> str:
        given = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.attempt == min(10.0, self.total):
            del given["attempt"]
        if self.min_useful == min(0.01, self.total / 10):
            del given["min_useful"]
        return shown(self, **given)

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        if not self.enforce:
            return self._watch(call, inner)
        call.lower(call.runtime.now() + self.total, "total")
        if self.attempt != math.inf:
            call.timed = True
        call.attempt_timeout = self.attempt  # type: ignore[assignment]  # __post_init__ has put a number there
        call.min_useful = self.min_useful  # type: ignore[assignment]  # likewise
        call.timeout = self
        return inner(call)

    async def _watch(self, call: Call, inner: Inner) -> Any:
        """Shadow mode: look at the time afterwards."""
        began = call.runtime.now()
        call.fn = _watched(call, self.attempt or math.inf)
        try:
            return await inner(call)
        finally:
            if call.runtime.now() - began >= self.total:
                _report(call, "total")

    def chunk_limit(self, *, first: bool, silent: bool) -> float:
        """Seconds that one chunk of a body may take; `silent` for streams that may pause as they like."""
        limit = self.first_byte if first and self.first_byte is not None else self.idle
        if limit is None:
            return math.inf if silent else 10.0
        return limit


def _watched(call: Call, limit: float) -> Callable[..., Any]:
    """The call's function, reporting when it took too long for an attempt that another could have followed."""
    fn, runtime = call.fn, call.runtime

    def look(began: float) -> None:
        if runtime.now() - began >= limit and any(
            policy.may_follow(call) for policy in call.owner.policies if hasattr(policy, "may_follow")
        ):
            _report(call, "attempt")

    @functools.wraps(fn)
    def called(*args: Any, **kwargs: Any) -> Any:
        began = runtime.now()
        try:
            return fn(*args, **kwargs)
        finally:
            look(began)

    @functools.wraps(fn)
    async def awaited(*args: Any, **kwargs: Any) -> Any:
        began = runtime.now()
        try:
            return await fn(*args, **kwargs)
        finally:
            look(began)

    return called if runtime.sync else awaited


def _report(call: Call, limit: str) -> None:
    owner = call.owner
    owner.post(DeadlinePassed(at=call.runtime.now(), dependency=owner.name, side="outbound", limit=limit, enforced=False))
