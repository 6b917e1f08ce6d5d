"""All of the inbound side in one middleware."""

from __future__ import annotations

from collections.abc import Iterable

from ..core.bounds import flag
from .admission import Admission
from .deadline import DEADLINE_HEADERS, InboundDeadlines, Trusted
from .degradation import DegradationHeader
from .disconnect import Disconnects
from .drain import Drain
from .errors import ErrorMapping
from .exposure import exposure
from .inbound import Inbound
from .metrics import RequestMetrics
from .protocols import ASGIApp, Measured
from .stale import StaleResponses
from .writes import WriteGate

__all__ = ["ResilienceMiddleware", "drain_of"]


class ResilienceMiddleware(Inbound):
    """Deadlines, drain, admission, error mapping, the degradation record and its header, request metrics: for any ASGI app.

    It does what `MetricsMiddleware`, `DeadlineMiddleware`, `DrainMiddleware`, `AdmissionMiddleware`, `DegradationMiddleware` and
    `ErrorMiddleware` do around each other, in that order, at the cost of one; and what `StaleResponseMiddleware` does, if
    asked to. WebSockets pass through once they are let in, and so does the lifespan, with which begins and ends what the
    `Resilience` does besides.

    Args:
        app: the ASGI application.
        resilience: the `Resilience` that the application belongs to.
        timeout: seconds up to the start of the response; None for no limit but a caller's.
        body: whether the limit covers the body, to its last chunk.
        hard: whether the 504 is sent in time even when the app cannot be cancelled (asyncio).
        min_useful: a request that arrives with fewer seconds left is answered 504 before any work.
        max_expired: the largest share of all requests that is refused so; the others have the limit of our own.
        enforce_deadlines: False refuses and cuts no request for its deadline, and only tells.
        cancel_on_disconnect: which requests are cancelled once their client has gone: patterns (`["/search", "POST /render"]`),
            True for all whose method is safe, or a `Disconnects`. By default none.
        expose_causes: tell clients causes, dependencies and ages, in the header and in problem details.
        degraded_header: the name of the field that says what was degraded.
        trusted: whose deadline and criticality headers are believed, and who is told causes in any case: a list of addresses and
            networks of peers, or a function of the ASGI scope. By default nobody.
        deadline_headers: names of the headers to believe.
        count_requests: whether requests and their time go into the metrics.
        stale: which of the app's own answers are kept and stand in for errors, as `StaleResponseMiddleware` has it; `trusted`
            peers are told `Cache-Status` too. By default none.
        refuse_writes: whether requests that are not safe are refused in read-only mode (`Resilience.read_only`).
        exempt_writes: patterns of those that are served all the same: "POST /login".
        admission: which requests are let in, as `AdmissionMiddleware` has it; True for its defaults, False for all of them.
        drain: how the service takes leave, as `DrainMiddleware` has it; True for its defaults, with which SIGTERM begins a drain.
            By default no signal does: `Resilience.drain` and the end of the lifespan alone. False for nothing of it.
    """

    def __init__(
        self,
        app: ASGIApp,
        resilience: Measured,
        *,
        timeout: float | None = 30.0,
        body: bool = False,
        hard: bool = True,
        min_useful: float = 0.01,
        max_expired: float = 0.2,
        enforce_deadlines: bool = True,
        cancel_on_disconnect: Disconnects | bool | Iterable[str] = False,
        expose_causes: bool = False,
        degraded_header: str = "Degraded",
        trusted: Trusted = (),
        deadline_headers: Iterable[str] = DEADLINE_HEADERS,
        count_requests: bool = True,
        stale: StaleResponses | None = None,
        refuse_writes: bool = True,
        exempt_writes: Iterable[str] = (),
        admission: Admission | bool = True,
        drain: Drain | bool | None = None,
    ) -> None:
        super().__init__(app, resilience)
        flag("enforce_deadlines", enforce_deadlines)
        self.deadlines: InboundDeadlines | None = InboundDeadlines(
            timeout,
            body=body,
            hard=hard,
            min_useful=min_useful,
            max_expired=max_expired,
            trusted=trusted,
            headers=deadline_headers,
            enforce=enforce_deadlines,
        )
        self.disconnects: Disconnects | None = Disconnects.of(cancel_on_disconnect)
        self.degradation: DegradationHeader | None = DegradationHeader(degraded_header)
        self.errors: ErrorMapping | None = ErrorMapping()
        if stale is not None and not isinstance(stale, StaleResponses):
            raise TypeError(f"stale: expected StaleResponses(...), got {stale!r}")
        self.stale: StaleResponses | None = stale
        self._exposes = exposure(expose_causes, trusted)
        flag("refuse_writes", refuse_writes)
        gate = WriteGate(exempt_writes, mode=getattr(resilience, "writes", None))
        self.writes: WriteGate | None = gate if refuse_writes and hasattr(resilience, "writes") else None
        if not isinstance(admission, Admission | bool):
            raise TypeError(f"admission: expected True, False or Admission(...), got {admission!r}")
        if admission is not False:
            self.take_on(Admission() if admission is True else admission, resilience, trusted)
        if not isinstance(drain, Drain | bool | None):
            raise TypeError(f"drain: expected True, False, Drain(...) or None, got {drain!r}")
        if drain is not False:
            self.leave_by(drain_of(drain), resilience)
        flag("count_requests", count_requests)
        if count_requests:
            self.requests: RequestMetrics | None = RequestMetrics(resilience.metrics)


def drain_of(given: Drain | bool | None) -> Drain:
    """The settings that are meant. To take a signal from whoever has it is for the program to ask for."""
    return given if isinstance(given, Drain) else Drain() if given else Drain(signals=())
