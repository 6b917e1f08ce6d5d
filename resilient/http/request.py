"""One HTTP request as a call: what its answers and errors mean, and whether it may be sent again."""

from __future__ import annotations

import math
import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import anyio

from ..call import HANDLES, Call
from ..context import Deadline
from ..core.bounds import positive
from ..core.outcome import Outcome, outcome_of_error, outcome_of_status
from ..core.retry import parse_retry_after
from ..errors import DeadlineExceeded, ResilienceError, cause_of
from ..runtime import cut_off
from .gate import WAITED
from .harm import HttpHarms
from .options import apply_options
from .response import answer_with, drain
from .template import template_of
from .wire import PIECE

if TYPE_CHECKING:
    from ..policies.pipeline import Pipeline
    from ..protocols import Runtime
    from .library import Library

__all__ = ["HttpCall"]

# RFC 9110 section 9.2.2, and QUERY of RFC 10008.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
# Errors of the caller or of our own pool, by name: neither says anything of the dependency.
NEUTRAL = ("PoolTimeout", "LocalProtocolError", "UnsupportedProtocol", "InvalidURL", "StreamError")
NOTHING: dict[str, Any] = {}
# HTTP/2 error code of RFC 9113 section 7: the stream was refused before any processing.
REFUSED_STREAM = 7


class HttpCall(Call):
    """A call that sends `request` and returns a response whose body is still to come."""

    harms = HttpHarms()
    headed = True
    probe: Any = None
    """The request's stream of the attempt being made, where it has to be watched."""
    response: Any = None
    """The answer that is open now; whoever leaves it without handing it on has to close it."""
    read_limit: float | None = None
    """Seconds that one read may take, once it is no longer the attempt's deadline that says so."""
    inherited_limit: str = "caller"
    key: str | None = None
    """An Idempotency-Key that the attempts are given, the same for all of them and for the next hop."""
    numbered: bool = False
    """Whether attempts tell their number."""
    moved: float | None = None
    """When the body last moved, while it is being sent."""
    _due: tuple[float, str] = (math.inf, "total")

    def __init__(
        self,
        owner: Pipeline,
        runtime: Runtime,
        library: Library,
        request: Any,
        send: Callable[..., Any],
        *,
        sync: bool = False,
        pooled: bool = False,
    ) -> None:
        # As `Call.__init__` does, without its frame.
        self.owner = owner
        self.runtime = runtime
        self.fn = send
        self.args = (self,)
        self.kwargs = NOTHING
        self.held = []
        self.started = 0.0
        self.plain = self.timed = False
        self.library = library
        self.request = request
        self.sync = sync
        self.pooled = pooled
        self.error_types = library.errors
        content = getattr(request, "_content", None)
        if content is None:
            self.replayable, self.paced = is_replayable(request), True
        else:
            self.replayable, self.paced = True, len(content) > PIECE
        self.repeatable = self.replayable and (request.method in IDEMPOTENT or "idempotency-key" in request.headers)
        extensions = request.extensions
        timeout = extensions.get("timeout")
        if timeout:
            self.queue_timeout = timeout.get("pool")
        if "deadline" in extensions:
            self._ask(extensions["deadline"])
        if "resilient" in extensions:
            apply_options(self, extensions["resilient"])

    def mark(self, *, key: Literal["auto", "bare"] | None, number: bool) -> None:
        self.numbered = number
        if key is not None and self.replayable and not self.repeatable:
            made = self.key or str(uuid.uuid4())
            self.key = made if key == "bare" or made.startswith('"') else f'"{made}"'
            self.repeatable = True

    # -- time -----------------------------------------------------------------------------------------------------

    def _ask(self, limit: Any) -> None:
        """Keep to the limit that the request itself asks for: seconds in all, or a moment."""
        if isinstance(limit, Deadline):
            self.inherit(limit)
        elif limit is not None:
            positive("extensions['deadline']", limit)
            self.lower(self.runtime.now() + limit, "total")

    def inherit(self, deadline: Deadline) -> None:
        earlier = self.inherited
        super().inherit(deadline)
        if earlier <= self.inherited:
            self.inherited = earlier
        else:
            self.inherited_limit = "inbound" if deadline.inbound else "caller"

    def sending(self) -> None:
        """A piece of a long body is about to be sent: the total stands still, and the piece may take `idle` seconds.

        A deadline from outside does not stand still.
        """
        now = self.runtime.now()
        if self.moved is None:
            self._due = self.attempt_deadline, self.attempt_reason
        elif now >= self.attempt_deadline:
            raise cut_off(self, now)  # nothing interrupts a synchronous call
        else:
            self._stand_still(now - self.moved)
        self.moved = self.attempt_started = now
        self._end_at(*min((now + self._idle, "idle"), (self.inherited, self.inherited_limit)), now)

    def sent(self) -> None:
        """The body is out: the total goes on from where it stood."""
        now = self.runtime.now()
        if self.moved is not None:
            self._stand_still(now - self.moved)
            self.moved = None
            self._end_at(*self._due, now)

    def _stand_still(self, seconds: float) -> None:
        self.deadline, self.limit = self._later(self.deadline, self.limit, seconds)
        self._due = self._later(*self._due, seconds)

    def _later(self, deadline: float, limit: str, seconds: float) -> tuple[float, str]:
        if deadline + seconds <= self.inherited:
            return deadline + seconds, limit
        return self.inherited, self.inherited_limit

    def _end_at(self, deadline: float, reason: str, now: float) -> None:
        self.attempt_deadline, self.attempt_reason = deadline, reason
        if self.scope is not None:
            self.scope.deadline = anyio.current_time() + deadline - now

    @property
    def _idle(self) -> float:
        return math.inf if self.timeout is None else self.timeout.chunk_limit(first=False, silent=False)

    def time_for(self, operation: str) -> float:
        """Seconds that an operation on the connection which begins now may take."""
        now = self.runtime.now()
        if operation == "pool" or self.queues:
            self.queueing(now, begins=operation == "pool")
        if operation == "write" and self.paced:
            return min(self._idle, self.inherited - now)
        return self.attempt_deadline - now if self.read_limit is None else self.read_limit

    def queueing(self, now: float, *, begins: bool) -> None:
        """The wait for a connection of our own pool begins or is over."""
        self.queues = begins
        self.attempt_started = now

    @property
    def origin(self) -> str:  # type: ignore[override]  # of a plain call it is a constant
        url = self.request.url
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    @property
    def route(self) -> str:
        return super().route or template_of(self.request.url.path)

    def cut(self, message: str, *, policy: str, reason: str, outcome: Outcome) -> DeadlineExceeded:
        if self.queues:
            message, policy, outcome = WAITED, "pool", Outcome.IGNORED
        elif self.probe is not None and self.probe.starved:
            outcome = Outcome.IGNORED  # the caller's own generator was making the next piece of the body
        return super().cut(message, policy=policy, reason=reason, outcome=outcome)

    def is_timeout(self, error: BaseException) -> bool:
        return isinstance(error, self.library.module.TimeoutException)

    # -- outcomes -------------------------------------------------------------------------------------------------

    def outcome_of(self, result: Any) -> Outcome:
        if self._late is not None:
            return self._late
        if self.degraded is not None:
            return Outcome.IGNORED
        if self.classify is None:
            return outcome_of_status(result.status_code)
        return self.verdict(result, None) or outcome_of_status(result.status_code)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        if error is self._cut or isinstance(error, ResilienceError) or not isinstance(error, Exception):
            return super().outcome_of_error(error)
        verdict = self.verdict(None, error)
        if verdict is not None:
            return verdict
        module = self.library.module
        if isinstance(error, tuple(kind for name in NEUTRAL if (kind := getattr(module, name, None)))):
            return Outcome.IGNORED
        if isinstance(error, module.TransportError):
            return Outcome.OUTAGE
        # ssl.SSLError and anyio.EndOfStream have been seen to escape: the network's doing, not a bug of the caller.
        return outcome_of_error(error)

    def refused(self, error: Exception) -> bool:
        # The queue for a connection is ours, too.
        return super().refused(error) or isinstance(error, self.library.module.PoolTimeout) or getattr(error, "policy", None) == "pool"

    def retryable(self, outcome: Outcome, error: BaseException | None) -> bool:
        if error is None:
            if self.late:
                return False  # an answer that came late is still one
            # 429 is refused before anything is done about it; what else fails may have been acted upon.
            return self.replayable if outcome is Outcome.THROTTLED else self.repeatable and outcome.failed
        if not self.replayable or not outcome.failed:
            return False
        return self.repeatable or self._unprocessed(error)

    def _unprocessed(self, error: BaseException) -> bool:
        """Whether the server cannot have acted on the request: nothing was sent, or it says so itself."""
        module = self.library.module
        if isinstance(error, module.ConnectError | module.ConnectTimeout):
            return True
        # Another transport than the library's own may take the body by another way than its stream.
        unasked = self.pooled and self.probe is not None and not self.probe.started
        if unasked and error is not self._cut and not isinstance(error, module.ReadTimeout):
            return True
        return refused_by_http2(error)

    def busy(self, result: Any) -> bool:
        # draft-ietf-httpapi-idempotency-key-header: the first request with this key has not ended yet.
        keyed = self.key is not None or "idempotency-key" in self.request.headers
        return result.status_code == 409 and keyed and self.attempts > 1

    def retry_after(self, result: Any, error: BaseException | None) -> float | None:
        if result is None or result.status_code not in (429, 503):
            return None
        value = result.headers.get("retry-after")
        return None if value is None else parse_retry_after(value, time.time(), result.headers.get("date"))

    def cause_of(self, result: Any, error: BaseException | None) -> str:
        return cause_of(error) if error is not None else f"status_{result.status_code}"

    # -- answers --------------------------------------------------------------------------------------------------

    async def keep(self, result: Any) -> bool:
        return await drain(self, result)

    async def discard(self, result: Any) -> None:
        await drain(self, result)

    def failure_of(self, result: Any) -> Exception:
        module = self.library.module
        return module.HTTPStatusError(  # type: ignore[no-any-return]
            f"{result.status_code} {result.reason_phrase}", request=self.request, response=result
        )

    def attach(self, result: Any, policy: Any, handle: Any) -> None:
        result.extensions.setdefault(HANDLES, {})[policy] = handle

    def degradable(self, error: Exception) -> bool:
        return isinstance(error, self.library.module.TransportError)

    def arguments(self) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return (self.request,), {}

    def replacement(self, value: Any) -> Any:
        return answer_with(self.library, value, self)


def is_replayable(request: Any) -> bool:
    """Whether the body can be sent twice: not a generator or an open file, which are gone once they were read."""
    # Bytes, JSON and forms are buffered by both libraries; only a streamed body has no content yet.
    if hasattr(request, "_content"):
        return True
    stream = request.stream
    fields = getattr(stream, "fields", None)
    if fields is not None:  # multipart: each part is bytes, or a file that is rewound if it can be
        files = [field.file for field in fields if hasattr(field, "file")]
        return all(isinstance(file, str | bytes) or (hasattr(file, "seekable") and file.seekable()) for file in files)
    if type(stream).__module__.partition(".")[0] not in ("httpx", "httpx2"):
        return False  # a stream of somebody's own is not known to begin anew
    source = getattr(stream, "_stream", stream)
    return not any(hasattr(source, name) for name in ("__anext__", "__next__", "read", "aread"))


def refused_by_http2(error: BaseException) -> bool:
    """HTTP/2 says that the request was not processed: REFUSED_STREAM, or a GOAWAY that covers no stream at all.

    Both arrive as a protocol error whose cause carries the h2 event. Read with care: neither library documents it.
    """
    cause: BaseException | None = error
    for _ in range(4):
        if cause is None:
            return False
        event = cause.args[0] if cause.args else None
        if getattr(event, "last_stream_id", None) == 0:
            return True
        if getattr(event, "error_code", None) == REFUSED_STREAM:
            return True
        cause = cause.__cause__
    return False
