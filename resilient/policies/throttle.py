"""AdaptiveThrottle: send a dependency that refuses requests hardly more of them than it accepts."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.bounds import flag
from ..core.outcome import Outcome
from ..core.throttle import Throttle
from ..errors import Overloaded
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner

__all__ = ["AdaptiveThrottle"]

SUCCESS = Outcome.SUCCESS
THROTTLED = Outcome.THROTTLED


class AdaptiveThrottle:
    """Reject requests in proportion to those that the dependency does not accept.

    The client-side throttling of "Site Reliability Engineering" (chapter 21): with the requests and accepts of the last
    `window` seconds, a request is rejected with probability max(0, (requests - k * accepts) / (requests + 1)). Where a
    circuit is either open or closed, this lets through a part.

    A success is an accept; a failure is none, and neither is an answer 429. What says nothing of the dependency is no
    request at all. A request counts when it is sent, as accepted until its end says otherwise, so that neither a burst
    nor a slow dependency is taken for a refusal.

    Args:
        k: requests for each that is accepted, up to which none is rejected; less protects the dependency more.
        window: seconds that are looked back on.
        min_requests: requests in the window below which none is rejected.
        max_rejection: the most that are rejected; the others find out that the dependency is back.
        enforce: False reports what would have been rejected, and sends it.
        random: a source of numbers in [0, 1).

    Raises:
        Overloaded: from the call; its policy is "throttle" and its reason "throttled".
        TypeError, ValueError: from the constructor, naming the parameter.
    """

    __slots__ = ("_acquire", "_core", "_lock", "_random", "_release", "enforce")

    def __init__(
        self,
        *,
        k: float = 2.0,
        window: float = 120.0,
        min_requests: int = 10,
        max_rejection: float = 0.99,
        enforce: bool = True,
        random: Callable[[], float] = random.random,
    ) -> None:
        flag("enforce", enforce)
        if not callable(random):
            raise TypeError(f"random: expected a function, got {random!r}")
        self._core = Throttle(k, window, min_requests, max_rejection)
        self._lock = threading.Lock()
        self._acquire, self._release = self._lock.acquire, self._lock.release
        self._random = random
        self.enforce: bool = enforce

    def __repr__(self) -> str:
        settings = {name: getattr(self._core, name) for name in ("k", "window", "min_requests", "max_rejection")}
        return shown(self, **settings, enforce=self.enforce, random=self._random)

    changeable: ClassVar[frozenset[str]] = frozenset({"k", "min_requests", "max_rejection", "enforce"})
    """Settings that `taking` can change at work."""

    def taking(self, other: AdaptiveThrottle, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`; what was counted stays."""

        def take() -> None:
            with self._lock:
                for name in names:
                    if name != "enforce":
                        setattr(self._core, name, getattr(other._core, name))
                if "enforce" in names:
                    self.enforce = other.enforce

        return take

    @property
    def requests(self) -> int:
        """Requests sent in the window, as of the last look."""
        return self._core.requests

    @property
    def accepts(self) -> int:
        """Accepted ones among them."""
        return self._core.accepts

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        core = self._core
        now = call.runtime.now()
        # A number is drawn only where it can decide anything; without the lock, for it may be somebody else's function.
        drawn = self._random() if core.doubtful else 1.0
        self._acquire()
        try:
            sent = core.admit(now, drawn)
            rejected = sent is None
            if rejected and not self.enforce:
                sent = core.send(now)
        finally:
            self._release()
        if sent is None:
            raise call.reject(Overloaded, "throttled: the dependency refuses too many requests", policy="throttle", reason="throttled")
        if rejected:
            call.report_rejection("throttle", "throttled", enforced=False)
        call.held.append((self, sent))
        return inner(call)

    def settle(self, token: Any, outcome: Outcome, now: float, error: BaseException | None) -> None:
        if outcome is SUCCESS:
            return  # as was expected of it
        with self._lock:
            if outcome.failed or outcome is THROTTLED:
                self._core.refused(token)
            else:
                self._core.unsent(token)

    def reset(self) -> None:
        """Forget all requests."""
        with self._lock:
            self._core.clear()
