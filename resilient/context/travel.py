"""Context beyond the reach of context variables: bare threads and executors, and jobs that another process runs."""

from __future__ import annotations

import functools
import inspect
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from contextvars import copy_context
from dataclasses import dataclass
from typing import Any, Literal, ParamSpec, TypeVar

from ..clock import SYSTEM_CLOCK, Clock
from .scopes import CRITICALITY, DEADLINE, LONGEST_PARTITION, PARTITION, Criticality, Deadline, criticality, deadline_scope, partition
from .trace import Trace, current_trace, is_parent, is_state, traced

__all__ = ["Loaded", "carry", "dump", "ignored_fields", "load"]

P = ParamSpec("P")
R = TypeVar("R")

VERSION = 1
YEAR = 365 * 86400.0
_ignored: dict[str, int] = {}
_counting = threading.Lock()


def carry(fn: Callable[P, R]) -> Callable[P, R]:
    """`fn` with all context variables as they are now, for threads and executors, which do not inherit them.

        await loop.run_in_executor(None, carry(work), order)
        threading.Thread(target=carry(work)).start()

    It may be called any number of times, from several threads at once; no call sees what another one sets.

    Raises:
        TypeError: `fn` is no plain function. Tasks have their context from the start and need nothing.
    """
    called = fn if inspect.isroutine(fn) or isinstance(fn, functools.partial) else type(fn).__call__ if callable(fn) else None
    if called is None or inspect.iscoroutinefunction(called) or inspect.isasyncgenfunction(called):
        raise TypeError(f"fn: expected a plain function, got {fn!r}; a task inherits its context by itself")
    context = copy_context()

    @functools.wraps(fn)
    def carried(*args: P.args, **kwargs: P.kwargs) -> R:
        # A context can be entered by one thread at a time; a copy of it costs no more than a reference.
        return context.copy().run(fn, *args, **kwargs)

    return carried


def dump(*, deadline: bool = True, trace: Trace | None = None) -> dict[str, Any]:
    """The deadline, criticality, partition and trace in force, for the payload of a job: small, and JSON can say it.

    The deadline is told in the seconds that remain, since the clocks of two machines have nothing in common.

    Args:
        deadline: False for a job that may outlive the request that sends it.
        trace: in place of `current_trace()`.
    """
    payload: dict[str, Any] = {"v": VERSION, "criticality": CRITICALITY.get().name.lower(), "sent_at": round(time.time(), 3)}
    bound = DEADLINE.get() if deadline else None
    if bound is not None and bound.at != math.inf:
        payload["remaining"] = max(round(bound.remaining, 3), 0.0)
    whose = PARTITION.get()
    if whose is not None:
        payload["partition"] = whose
    trace = current_trace() if trace is None else trace
    if trace is not None:
        payload["traceparent"] = trace.parent
        if is_state(trace.state):
            payload["tracestate"] = trace.state
    return payload


@dataclass(frozen=True, slots=True)
class Loaded:
    """What `load` found in a payload. `ignored` names the fields that could not be read."""

    deadline: Deadline | None
    criticality: Criticality | None
    trace: Trace | None
    ignored: tuple[str, ...] = ()
    partition: str | None = None


@contextmanager
def load(payload: Any, *, queue_time: Literal["wall"] | None = None, clock: Clock | None = None) -> Iterator[Loaded]:
    """Put in force what `dump` told of, around the work of a job. A deadline only ever shortens the one in force.

    What cannot be read is left out, counted by `ignored_fields` and never raised: a job is worth more than its context.

    Args:
        payload: what `dump` returned, in another process; None, for a job sent without, changes nothing.
        queue_time: "wall" counts the time that the job spent in the queue against its deadline. That is known from the
            wall clocks of two machines alone, so it is as right as they are. By default the deadline's seconds begin
            anew when the job does.
        clock: what the deadline is read against; by default that of the deadline in force, else the system's.

    Raises:
        ValueError: `queue_time` is neither None nor "wall".
    """
    if queue_time not in (None, "wall"):
        raise ValueError(f"queue_time: expected None or 'wall', got {queue_time!r}")
    read = _Reading(payload)
    remaining = read.remaining()
    if remaining is not None and queue_time == "wall":
        remaining -= read.waited(time.time())
    trace, value, whose = read.trace(), read.criticality(), read.partition()
    outer = DEADLINE.get()
    if clock is None:
        clock = SYSTEM_CLOCK if outer is None else outer.clock
    deadline = None if remaining is None else Deadline.after(max(remaining, 0.0), clock)
    read.count()
    with ExitStack() as stack:
        if deadline is not None:
            stack.enter_context(deadline_scope(deadline))
        if value is not None:
            stack.enter_context(criticality(value))
        if trace is not None:
            stack.enter_context(traced(trace))
        if whose is not None:
            stack.enter_context(partition(whose))
        yield Loaded(deadline, value, trace, tuple(read.ignored), whose)


def ignored_fields() -> dict[str, int]:
    """How many fields of payloads `load` could not read in this process, by name."""
    return dict(_ignored)


class _Reading:
    """Somebody else's payload, field by field."""

    def __init__(self, payload: Any) -> None:
        self.ignored: list[str] = []
        self._payload: Mapping[Any, Any] = {}
        if isinstance(payload, Mapping):
            version = payload.get("v")
            if isinstance(version, int) and version == VERSION:
                self._payload = payload
            else:
                self.ignored.append("v")
        elif payload is not None:
            self.ignored.append("payload")

    def count(self) -> None:
        with _counting:
            for name in self.ignored:
                _ignored[name] = _ignored.get(name, 0) + 1

    def remaining(self) -> float | None:
        return self._seconds("remaining")

    def waited(self, now_wall: float) -> float:
        sent = self._seconds("sent_at", most=math.inf)
        return 0.0 if sent is None else max(now_wall - sent, 0.0)

    def criticality(self) -> Criticality | None:
        name = self._payload.get("criticality")
        if name is None:
            return None
        try:
            return Criticality.of(name)
        except (TypeError, ValueError):
            self.ignored.append("criticality")
            return None

    def partition(self) -> str | None:
        whose = self._payload.get("partition")
        if whose is None or (isinstance(whose, str) and 0 < len(whose) <= LONGEST_PARTITION):
            return whose
        self.ignored.append("partition")
        return None

    def trace(self) -> Trace | None:
        parent, state = self._payload.get("traceparent"), self._payload.get("tracestate")
        if parent is None:
            return None
        if not is_parent(parent):
            self.ignored.append("traceparent")
            return None
        if state is not None and not is_state(state):
            self.ignored.append("tracestate")
            state = None
        return Trace(parent, state or "")

    def _seconds(self, name: str, most: float = YEAR) -> float | None:
        value = self._payload.get(name)
        if value is None:
            return None
        # An int may be too large to be a float, and NaN is no order.
        if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < 1e300:
            self.ignored.append(name)
            return None
        return min(float(value), most)
