"""One HTTP request as a call: what its answers and errors mean, and whether it may be sent again."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal, Self

import anyio

from ..call import HANDLES, Call
from ..core.outcome import Outcome, outcome_of_error, outcome_of_status
from ..core.propagation import Propagation
from ..core.pushback import says_not_here
from ..core.retry import parse_retry_after
from ..errors import ResilienceError, cause_of
from .caching import HttpCaching
from .harm import HttpHarms
from .options import apply_options
from .pacing import PacedCall
from .repeating import is_replayable, refused_by_http2
from .response import answer_with, close_stream, drain
from .rewrite import rewritten
from .template import template_of
from .wire import PIECE

if TYPE_CHECKING:
    from ..policies.pipeline import Pipeline
    from ..policies.target import Target
    from ..protocols import Runtime
    from .library import Library

__all__ = ["HttpCall"]

# RFC 9110 section 9.2.2, and QUERY of RFC 10008.
IDEMPOTENT = frozenset({"GET", "HEAD", "OPTIONS", "TRACE", "PUT", "DELETE", "QUERY"})
# Those whose effect it is to answer, so that two at a time are one.
HEDGEABLE = frozenset({"GET", "HEAD", "OPTIONS", "QUERY"})
# Errors of the caller or of our own pool, by name: neither says anything of the dependency.
NEUTRAL = ("PoolTimeout", "LocalProtocolError", "UnsupportedProtocol", "InvalidURL", "StreamError")
NOTHING: dict[str, Any] = {}


class HttpCall(PacedCall):
    """A call that sends `request` and returns a response whose body is still to come."""

    harms = HttpHarms()
    caching = HttpCaching()
    headed = True
    untrusted: bool = False
    """Whether it went to a target that may not see or set what belongs to the dependency's own origin."""
    key: str | None = None
    """An Idempotency-Key that the attempts are given, the same for all of them and for the next hop."""
    numbered: bool = False
    """Whether attempts tell their number."""
    propagation: Propagation | None = None
    """In which fields the server is told how long it has and how much it matters; None where it is not told."""

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
        propagation = owner.propagation
        if propagation is not None and propagation.reaches(request.url):
            self.propagation = propagation
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

    @property
    def args(self) -> tuple[Any, ...]:
        """Itself. Kept, it would lead back to itself, and each request would be left to the garbage collector."""
        return (self,)

    @args.setter
    def args(self, args: tuple[Any, ...]) -> None:
        """A branch has its own."""

    # -- where it goes --------------------------------------------------------------------------------------------

    @property
    def origin(self) -> str:  # type: ignore[override]  # of a plain call it is a constant
        url = self.request.url
        return f"{url.scheme}://{url.netloc.decode('ascii')}"

    @property
    def route(self) -> str:
        return super().route or template_of(self.request.url.path)

    def is_timeout(self, error: BaseException) -> bool:
        return isinstance(error, self.library.module.TimeoutException)

    # -- outcomes -------------------------------------------------------------------------------------------------

    def outcome_of(self, result: Any) -> Outcome:
        if self.lost:
            return Outcome.IGNORED
        if self._late is not None:
            return self._late
        if self.degraded is not None or self.elsewhere is not None:
            return Outcome.IGNORED
        if self.classify is None:
            return outcome_of_status(result.status_code)
        return self.verdict(result, None) or outcome_of_status(result.status_code)

    def outcome_of_error(self, error: BaseException) -> Outcome:
        if self.lost or error is self._cut or isinstance(error, ResilienceError) or not isinstance(error, Exception):
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

    def unsent(self, error: Exception) -> bool:
        return self.refused(error) or self._unprocessed(error)

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

    def unwelcome(self, result: Any) -> bool:
        return says_not_here(result.headers.get)

    def retry_after(self, result: Any, error: BaseException | None) -> float | None:
        # Asked for answers that might be repeated, and of any status: there are more than 429 and 503 that say when.
        value = None if result is None else result.headers.get("retry-after")
        return None if value is None else parse_retry_after(value, time.time(), result.headers.get("date"))

    def cause_of(self, result: Any, error: BaseException | None) -> str:
        return cause_of(error) if error is not None else f"status_{result.status_code}"

    # -- branches -------------------------------------------------------------------------------------------------

    def branch(self) -> Self:
        twin = super().branch()
        twin.response = twin.probe = twin.moved = twin.read_limit = None
        twin.queues = False
        return twin

    def adopt(self, branch: Call) -> None:
        super().adopt(branch)
        # Its request's timeouts are looked up when an operation begins, those of the body's reads included.
        branch._heir = self  # type: ignore[attr-defined]

    def aim(self, target: Target, owner: Pipeline) -> None:
        if target.function is not None or target.arguments:
            raise TypeError(f"target {target.name!r} is for calls of functions, and this is a request")
        origin = getattr(owner, "origin", None)
        self.request, trusted = rewritten(self.library, self.request, target, "" if origin is None else origin.path)
        self.untrusted = not trusted
        if self.untrusted:
            self.propagation = None

    def movable(self, *, repeat: bool) -> bool:
        return self.replayable and (self.repeatable or repeat)

    def served_by(self, target: Target, result: Any) -> Any:
        result.extensions["target"] = target.name
        if self.untrusted and "set-cookie" in result.headers:
            del result.headers["set-cookie"]
        return result

    def hedgeable(self) -> bool:
        request = self.request
        # A body that is read from somewhere cannot be read by two at a time, and an upgraded connection is no answer.
        return request.method in HEDGEABLE and hasattr(request, "_content") and "upgrade" not in request.headers

    async def abandon(self, result: Any) -> None:
        response, self.response = self.response, None
        if response is None:
            return
        if self.sync:
            await close_stream(response.stream, sync=True)
            return
        with anyio.CancelScope(shield=True):
            await close_stream(response.stream, sync=False)

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
