"""One HTTP request as a call: what its answers and errors mean, and whether it may be sent again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..call import Call
from ..core.outcome import Outcome, outcome_of_error, outcome_of_status
from ..core.retry import parse_retry_after
from ..errors import ResilienceError, cause_of
from .response import answer_with, drain
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
# HTTP/2 error code of RFC 9113 section 7: the stream was refused before any processing.
REFUSED_STREAM = 7


class HttpCall(Call):
    """A call that sends `request` and returns a response whose body is still to come."""

    def __init__(self, owner: Pipeline, runtime: Runtime, library: Library, request: Any, send: Callable[..., Any]) -> None:
        super().__init__(owner, runtime, send, (self,), {})
        self.plain = False
        self.library = library
        self.request = request
        self.error_types = library.errors
        self.replayable = is_replayable(request)
        self.repeatable = self.replayable and (request.method in IDEMPOTENT or "idempotency-key" in request.headers)
        self.paced = not self.replayable or len(getattr(request, "_content", b"")) > PIECE
        self.probe: Any = None
        self.timeouts: dict[str, Any] | None = None
        """The per-operation timeouts of the attempt, clamped to what was left; `own_timeouts` are the client's."""
        self.own_timeouts: dict[str, Any] = {}
        timeout = request.extensions.get("timeout")
        self.queue_timeout = timeout.get("pool") if timeout else None

    # -- outcomes -------------------------------------------------------------------------------------------------

    def outcome_of(self, result: Any) -> Outcome:
        if self._late:
            return Outcome.OUTAGE
        if self.degraded is not None:
            return Outcome.IGNORED
        if self.classify is not None:
            verdict = self.classify(result, None)
            if verdict is not None:
                return verdict
        return outcome_of_status(result.status_code)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        if error is self._cut or isinstance(error, ResilienceError) or not isinstance(error, Exception):
            return super().outcome_of_error(error)
        if self.classify is not None:
            verdict = self.classify(None, error)
            if verdict is not None:
                return verdict
        module = self.library.module
        if isinstance(error, tuple(kind for name in NEUTRAL if (kind := getattr(module, name, None)))):
            return Outcome.IGNORED
        if isinstance(error, module.TransportError):
            return Outcome.OUTAGE
        # ssl.SSLError and anyio.EndOfStream have been seen to escape: the network's doing, not a bug of the caller.
        return outcome_of_error(error)

    def retryable(self, outcome: Outcome, error: BaseException | None) -> bool:
        if error is None:
            return self.repeatable and (outcome.failed or outcome is Outcome.THROTTLED)
        if not self.replayable or not outcome.failed:
            return False
        return self.repeatable or self._unprocessed(error)

    def _unprocessed(self, error: BaseException) -> bool:
        """Whether the server cannot have acted on the request: nothing was sent, or it says so itself."""
        module = self.library.module
        if isinstance(error, module.ConnectError | module.ConnectTimeout):
            return True
        if self.probe is not None and not self.probe.started and error is not self._cut:
            return True
        return refused_by_http2(error)

    def retry_after(self, result: Any, error: BaseException | None) -> float | None:
        if result is None or result.status_code not in (429, 503):
            return None
        value = result.headers.get("retry-after")
        return None if value is None else parse_retry_after(value, time.time(), result.headers.get("date"))

    def cause_of(self, result: Any, error: BaseException | None) -> str:
        return cause_of(error) if error is not None else f"status_{result.status_code}"

    # -- answers --------------------------------------------------------------------------------------------------

    async def keep(self, result: Any) -> bool:
        return await drain(self.runtime, self.library, result)

    async def discard(self, result: Any) -> None:
        await drain(self.runtime, self.library, result)

    def failure_of(self, result: Any) -> Exception:
        module = self.library.module
        return module.HTTPStatusError(  # type: ignore[no-any-return]
            f"{result.status_code} {result.reason_phrase}", request=self.request, response=result
        )

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
