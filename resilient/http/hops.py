"""One deadline for all that one `client.send` does: redirects and authentication call the transport several times."""

from __future__ import annotations

import sys
import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .request import HttpCall

__all__ = ["HOPS", "KEY", "join_hops", "remember_hop"]

# Both libraries copy a request's extensions to the next hop.
KEY = "resilient.hop"
CHALLENGES = frozenset({401, 407})
HOPS = CHALLENGES | frozenset(range(300, 400))
AT_ONCE = 1.0  # seconds within which a client goes on to the next hop
# The method, of both clients of both libraries, that sends one hop after another; `history` is what they were answered.
SENDER, HISTORY = "_send_handling_redirects", "history"


@dataclass(frozen=True, slots=True)
class Hop:
    request: weakref.ref[Any]
    status: int
    deadline: float
    answered: float
    key: str | None


def join_hops(call: HttpCall) -> None:
    """Keep to the deadline of the hop before this one, if there was one.

    A program may also send one request object again, or follow a redirect by hand: a call of its own, with a deadline of
    its own. Requests do not tell the two apart, and neither does time; the client's own record of what it has been
    through for this call does. A chain cannot outlive its deadline between two hops: it holds for interim bodies too.
    """
    extensions: dict[str, Any] = call.request.extensions
    history = _history(call.library.name)
    if history is None:
        hop = extensions[KEY] if _looks_like_one(call, extensions[KEY]) else None
    else:
        hop = next((one for response in reversed(history) if (one := response.request.extensions.get(KEY)) is not None), None)
    del extensions[KEY]  # of an earlier send perhaps: what is found in a history is of this one
    if hop is not None:
        call.lower(hop.deadline, "total")
        if not call.repeatable:  # a 303 goes on with a GET: another operation than the one that the key is for
            call.key = hop.key


def _history(library: str) -> list[Any] | None:
    """What was answered so far to the client that is sending now; None where there is no client to be seen."""
    frame = sys._getframe(2)
    while frame is not None:
        if frame.f_code.co_name == SENDER and str(frame.f_globals.get("__name__", "")).startswith(library + "."):
            history = frame.f_locals.get(HISTORY)
            return history if isinstance(history, list) else None
        frame = frame.f_back  # type: ignore[assignment]
    return None


def _looks_like_one(call: HttpCall, hop: Hop) -> bool:
    """Whether the last answer makes this request its next hop: another one after a redirect, the same after a challenge.

    What there is to go by below a transport that runs ours in a task or thread of its own: that, and the time.
    """
    if call.runtime.now() >= max(hop.deadline, hop.answered + AT_ONCE):
        return False
    return hop.status in CHALLENGES if hop.request() is call.request else 300 <= hop.status < 400


def remember_hop(call: HttpCall, response: Any) -> bool:
    """Leave the deadline to the next hop after an answer of one of `HOPS`. Returns whether it may lead to one."""
    status = response.status_code
    if status not in CHALLENGES and "location" not in response.headers:
        return False
    call.request.extensions[KEY] = Hop(weakref.ref(call.request), status, call.deadline, call.runtime.now(), call.key)
    return True
