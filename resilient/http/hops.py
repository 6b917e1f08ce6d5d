"""One deadline for all that one `client.send` does: redirects and authentication call the transport several times."""

from __future__ import annotations

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


@dataclass(frozen=True, slots=True)
class Hop:
    request: weakref.ref[Any]
    status: int
    deadline: float
    answered: float


def join_hops(call: HttpCall) -> None:
    """Keep to the deadline of the hop before this one, if there was one.

    A program may also send one request object again, or copy its extensions, long after. So only what the last answer
    makes a next hop is one: another request after a redirect, the same one after a challenge; and only until its
    deadline, or at once. A chain cannot outlive that between two hops: the deadline holds for interim bodies too.
    """
    hop = call.request.extensions.get(KEY)
    if isinstance(hop, Hop) and call.runtime.now() < max(hop.deadline, hop.answered + AT_ONCE):
        same = hop.request() is call.request
        if (hop.status in CHALLENGES) if same else (300 <= hop.status < 400):
            call.lower(hop.deadline, "total")


def remember_hop(call: HttpCall, response: Any) -> bool:
    """Leave the deadline to the next hop after an answer of one of `HOPS`. Returns whether it may lead to one."""
    status = response.status_code
    if status not in CHALLENGES and "location" not in response.headers:
        return False
    call.request.extensions[KEY] = Hop(weakref.ref(call.request), status, call.deadline, call.runtime.now())
    return True
