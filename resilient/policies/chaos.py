"""Chaos: faults on purpose, to see that the policies around them do what they are there for."""

from __future__ import annotations

import copy
import inspect
import logging
import math
import random
import threading
from collections.abc import Awaitable, Callable, Collection
from typing import TYPE_CHECKING, Any, ClassVar

from ..core.bounds import flag, fraction
from ..core.route import Route
from ..events import FaultInjected
from ..runtime import drive
from ..substitute import Substitute
from .harm import ABSENT, Harms, carries, check_fault, check_header, check_latency, kind_of, pass_time
from .shown import shown

if TYPE_CHECKING:
    from ..call import Call
    from ..protocols import Inner
    from .pipeline import Pipeline

__all__ = ["Chaos"]

logger = logging.getLogger("resilient")
HTTP_ALONE = ("status", "truncated")
FUNCTIONS = Harms()

Fault = Exception | type[Exception] | Callable[["Call"], "Exception | type[Exception] | None"]


class Chaos:
    """Harm a share of the calls, innermost, where the dependency would.

    It does nothing until the settings allow it: `Resilience(chaos=True)`, `Dependency(..., chaos=True)` or
    `RESILIENT_CHAOS=1`. One `Chaos` does one kind of harm, with or without a delay before it; several may stand in a
    pipeline. What it does is seen by every policy around it as if the dependency had done it: a hang ends where a real
    one would, by the attempt's timeout or the HTTP client's own.

    Args:
        rate: the share of the calls (of those that are meant) that are harmed, from 0 to 1. Each attempt is one.
        fault: an exception, a class of them, or a function of the call that returns one (or None, and nothing is
            raised). An instance is copied for each use.
        status: the status of an empty HTTP answer.
        result: what to return without asking the dependency: a value, or a function that makes one, as for `Fallback`.
            For HTTP a response of the client library, such as a 429 with its `Retry-After`.
        truncate: bytes after which the body of an HTTP answer breaks off.
        hang: whether no answer comes.
        latency: seconds before the harm, or before the call where there is no other: a number, or two to choose between.
        match: HTTP requests that are meant: `"POST https://api.example.com/orders/{id}"`, any part of which may be
            left out. By default all calls, those of functions included.
        header: HTTP requests with this header are meant, `"x-chaos"`, or with this value of it, `"x-chaos: orders"`.
        when: `when(call)` says whether a call is meant; `call.request` is the HTTP request, `call.args` what a function
            is called with. It may ask a feature flag. One that raises means no.
        seed: makes the choices the same in every run.
        enabled: whether it acts; may be set later.
        enforce: False only reports what would have been harmed.

    Attributes:
        injected: how many calls were harmed.

    Raises:
        TypeError, ValueError: from the constructor, naming the parameter.
    """

    __slots__ = (
        "_answer",
        "_choosy",
        "_enabled",
        "_fault",
        "_given",
        "_header",
        "_late",
        "_latency",
        "_lock",
        "_random",
        "_route",
        "_said",
        "_seed",
        "_when",
        "enforce",
        "injected",
        "kind",
        "rate",
        "truncate",
    )

    def __init__(
        self,
        *,
        rate: float,
        fault: Fault | None = None,
        status: int | None = None,
        result: Any = ABSENT,
        truncate: int | None = None,
        hang: bool = False,
        latency: float | tuple[float, float] | None = None,
        match: str | None = None,
        header: str | None = None,
        when: Callable[[Call], bool] | None = None,
        seed: int | None = None,
        enabled: bool = True,
        enforce: bool = True,
    ) -> None:
        fraction("rate", rate, zero=True)
        flag("enforce", enforce)
        if when is not None and not callable(when):
            raise TypeError(f"when: expected a function of the call, got {when!r}")
        if seed is not None and (isinstance(seed, bool) or not isinstance(seed, int)):
            raise TypeError(f"seed: expected a whole number, got {seed!r}")
        self.rate: float = rate
        self.enforce: bool = enforce
        self.enabled = enabled
        self.injected: int = 0
        self._given = {"fault": fault, "status": status, "result": result, "truncate": truncate, "hang": hang, "latency": latency}
        self._given |= {"match": match, "header": header, "when": when, "seed": seed}
        self._fault = check_fault(fault)
        self._latency = check_latency(latency)
        self.truncate: int | None = truncate
        self.kind: str = kind_of(fault, status, result, truncate, hang, latency)
        """What it does: fault, status, result, truncated, hang or latency."""
        # Whether there is anything to tell of is known only once the answer is there: it may have no body.
        self._late = self.kind == "truncated" and latency is None
        # A status is made into an answer by the call, which knows the library.
        self._answer = Substitute(status if status is not None else None if result is ABSENT else result)
        self._route = None if match is None else Route(match, name="match")
        self._header = None if header is None else check_header(header)
        self._when = when
        self._choosy = match is not None or header is not None or when is not None or self.kind in HTTP_ALONE
        self._seed = seed
        self._random = random.Random(seed)
        self._said: set[str] = set()
        self._lock = threading.Lock()

    def __repr__(self) -> str:
        return shown(self, rate=self.rate, **self._given, enabled=self._enabled, enforce=self.enforce)

    changeable: ClassVar[frozenset[str]] = frozenset({"rate", "enabled", "enforce"})
    """Settings that `taking` can change at work."""

    def taking(self, other: Chaos, names: Collection[str]) -> Callable[[], None]:
        """What takes the settings named over from `other`."""

        def take() -> None:
            for name in names:
                setattr(self, name, getattr(other, name))

        return take

    @property
    def enabled(self) -> bool:
        """Whether it acts, where it is allowed to (`Pipeline.chaos`). Setting it takes effect with the next call."""
        return self._enabled

    @enabled.setter
    def enabled(self, value: bool) -> None:
        flag("enabled", value)
        self._enabled = value

    def join(self, owner: Pipeline) -> None:
        """Say once what may happen in `owner`, or why nothing will."""
        if owner.chaos:
            told = "%s: chaos is allowed: %r harms its calls"
        else:
            told = "%s: %r does nothing, for chaos is not allowed; Resilience(chaos=True) or RESILIENT_CHAOS=1 allows it"
        self._say(told, owner.name or "a pipeline", self)

    def run(self, call: Call, inner: Inner) -> Awaitable[Any]:
        return self.link(inner)(call)

    def link(self, inner: Inner) -> Inner:
        """`run` for one place in one pipeline."""

        def step(call: Call) -> Awaitable[Any]:
            if not self._enabled or not call.owner.chaos or not self._strikes(call):
                return inner(call)
            if self.enforce:
                return self._harm(call, inner)
            self._tell(call)
            return inner(call)

        return step

    def reset(self) -> None:
        """Count from 0, and with a `seed` choose as at first."""
        with self._lock:
            self.injected = 0
            self._random = random.Random(self._seed)

    # -- which calls ----------------------------------------------------------------------------------------------

    def _strikes(self, call: Call) -> bool:
        if self._choosy and not self._means(call):
            return False
        return self._random.random() < self.rate

    def _means(self, call: Call) -> bool:
        request = call.request
        if request is None:
            if self.kind in HTTP_ALONE:
                self._say("%r does nothing to functions, only to HTTP answers", self)
                return False
            if self._route is not None or self._header is not None:
                return False
        else:
            if self._route is not None and not self._route.matches(request.method, request.url, request.url.path):
                return False
            if self._header is not None and not carries(request.headers, *self._header):
                return False
        if self._when is None:
            return True
        try:
            return bool(self._when(call))
        except Exception as error:  # noqa: BLE001 - logged; what cannot tell whether to harm must not harm
            self._say("when, given to %r, failed; it means no", self, error=error)
            return False

    def _say(self, told: str, *args: object, error: Exception | None = None) -> None:
        """Log something once."""
        with self._lock:
            known = told in self._said
            self._said.add(told)
        if not known:
            logger.warning(told, *args, exc_info=error)

    # -- what happens to them -------------------------------------------------------------------------------------

    async def _harm(self, call: Call, inner: Inner) -> Any:
        # In place of the function, not around the attempt: so that the attempt's timeout and all else hold for it.
        fn, call.fn = call.fn, self._harmed(call)
        try:
            return await inner(call)
        finally:
            call.fn = fn

    def _harmed(self, call: Call) -> Callable[..., Any]:
        fn = call.fn

        async def awaited(*args: Any, **kwargs: Any) -> Any:
            return await self._play(call, fn, args, kwargs)

        def called(*args: Any, **kwargs: Any) -> Any:
            return drive(self._play(call, fn, args, kwargs, sync=True))

        return called if call.runtime.sync else awaited

    async def _play(self, call: Call, fn: Callable[..., Any], args: Any, kwargs: Any, *, sync: bool = False) -> Any:
        harms: Harms = call.harms or FUNCTIONS
        error = self._error(call) if self.kind == "fault" else None
        try:
            if self.kind == "fault" and error is None:
                return fn(*args, **kwargs) if sync else await fn(*args, **kwargs)
            if not self._late:
                self._tell(call)
            gives_up = harms.begin(call)
            if self._latency is not None:
                await pass_time(call, harms, self._seconds(*self._latency), gives_up)
            if error is not None:
                raise error
        finally:
            del error  # an error in a local of a frame of its own traceback would keep them all
        if self.kind == "hang":
            await pass_time(call, harms, math.inf, gives_up)
        if self.kind in ("status", "result"):
            result = self._answer.make(*call.arguments())
            return harms.answer(call, result if sync or not inspect.isawaitable(result) else await result, self.kind)
        result = fn(*args, **kwargs) if sync else await fn(*args, **kwargs)
        if self.truncate is not None:
            broken = harms.truncated(call, result, self.truncate)
            if broken is None:
                return result
            if self._late:
                self._tell(call)
            result = broken
        return harms.mark(call, result, self.kind)

    def _seconds(self, low: float, high: float) -> float:
        return low if low == high else low + (high - low) * self._random.random()

    def _error(self, call: Call) -> Exception | None:
        fault = self._fault
        if fault is not None and not isinstance(fault, Exception | type):
            fault = fault(call)
        if fault is None:
            return None
        error: Exception = fault("injected") if isinstance(fault, type) else copy.copy(fault)
        error.add_note(f"injected by a Chaos of {call.owner.name or 'a pipeline'}")
        return error

    def _tell(self, call: Call) -> None:
        owner = call.owner
        if self.enforce:
            with self._lock:
                self.injected += 1
        owner.post(FaultInjected(at=call.runtime.now(), dependency=owner.name, kind=self.kind, enforced=self.enforce))
