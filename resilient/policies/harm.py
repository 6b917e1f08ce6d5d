"""What a Chaos does to a call: how time passes while nobody answers, and what its settings may be."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from ..core.bounds import flag, not_negative, whole
from ..runtime import cut_off

if TYPE_CHECKING:
    from ..call import Call

__all__ = ["ABSENT", "Harms", "carries", "check_fault", "check_header", "check_latency", "kind_of", "pass_time"]

ABSENT: Any = object()


class Harms:
    """How a call is harmed: that of a function. Another kind of call has another one of these, as `Call.harms`."""

    def begin(self, call: Call) -> float:
        """The moment at which whoever calls would give up by itself: infinity for never."""
        return math.inf

    def silence(self, call: Call) -> Exception:
        """What is raised for an answer that did not come."""
        return TimeoutError("no answer came: injected")

    def answer(self, call: Call, value: Any, kind: str) -> Any:
        """What is returned in place of an answer."""
        return value

    def truncated(self, call: Call, result: Any, size: int) -> Any:
        """The answer, its body breaking off after so many bytes; None where it has no body, as that of a function."""
        return None

    def mark(self, call: Call, result: Any, kind: str) -> Any:
        """Say on an answer what was done to it."""
        return result


async def pass_time(call: Call, harms: Harms, seconds: float, gives_up: float) -> None:
    """Let time pass as it does while a dependency is silent, up to the moment when nobody waits for it any more."""
    runtime = call.runtime
    until = runtime.now() + seconds
    if seconds == math.inf:
        gives_up = min(gives_up, call.attempt_deadline)  # a blocked thread is not cut off
    if runtime.may_wait():
        if until < gives_up:
            await runtime.sleep(seconds)
            return
        await runtime.wait(runtime.waiter(), gives_up)
        now = runtime.now()
        if now >= call.attempt_deadline - 0.001:
            raise cut_off(call, now)
    elif seconds < math.inf:
        return
    raise harms.silence(call)


def kind_of(fault: Any, status: Any, result: Any, truncate: Any, hang: Any, latency: Any) -> str:
    """The one kind of harm that is asked for."""
    flag("hang", hang)
    if status is not None:
        whole("status", status, least=200)
        if status > 599:
            raise ValueError(f"status must be from 200 to 599, not {status!r}")
    if truncate is not None:
        whole("truncate", truncate, least=0)
    asked = {
        "fault": fault is not None,
        "status": status is not None,
        "result": result is not ABSENT,
        "truncated": truncate is not None,
        "hang": hang,
    }
    kinds = [kind for kind, given in asked.items() if given]
    if len(kinds) > 1:
        raise TypeError(f"{', '.join(kinds)}: one Chaos does one kind of harm; give the pipeline several")
    if not kinds and latency is None:
        raise TypeError("fault, status, result, truncate, hang or latency: expected one of them")
    return kinds[0] if kinds else "latency"


def check_fault(fault: Any) -> Any:
    """Require an exception, a class that can be raised with a message, or a function."""
    if fault is None or isinstance(fault, Exception):
        return fault
    if isinstance(fault, type) and issubclass(fault, Exception):
        try:
            fault("injected")
        except TypeError as error:
            raise TypeError(f"fault: {fault.__name__} takes more than a message ({error}); give an instance") from None
        return fault
    if isinstance(fault, type | BaseException) or not callable(fault):
        raise TypeError(f"fault: expected an Exception, a class of them or a function of the call, got {fault!r}")
    return fault


def check_latency(latency: Any) -> tuple[float, float] | None:
    """Require seconds, or two of which the first is not the larger one."""
    if latency is None:
        return None
    low, high = latency if isinstance(latency, tuple) and len(latency) == 2 else (latency, latency)
    not_negative("latency", low)
    not_negative("latency", high)
    if low > high:
        raise ValueError(f"latency: the first of two must be the smaller one, got {latency!r}")
    return low, high


def check_header(header: Any) -> tuple[str, str | None]:
    """Require the name of a header, perhaps with a value. Returns both."""
    if not isinstance(header, str):
        raise TypeError(f"header: expected 'x-chaos' or 'x-chaos: value', got {header!r}")
    name, colon, value = header.partition(":")
    if not name.strip():
        raise ValueError(f"header: expected 'x-chaos' or 'x-chaos: value', got {header!r}")
    return name.strip(), value.strip() if colon else None


def carries(headers: Any, name: str, value: str | None) -> bool:
    """Whether a request has this header, with this value if there is one."""
    found = headers.get(name)
    return found is not None and (value is None or found == value)
