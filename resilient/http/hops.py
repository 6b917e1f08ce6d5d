"""One deadline for all that one `client.send` does: redirects and authentication call the transport several times."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .request import HttpCall

__all__ = ["join_hops", "remember_hop"]

# Both libraries copy a request's extensions to the next hop.
KEY = "resilient.hop"


@dataclass(frozen=True, slots=True)
class Hop:
    request: weakref.ref[Any]
    status: int
    deadline: float


def join_hops(call: HttpCall) -> None:
    """Keep to the deadline of the hop before this one, if there was one.

    A program may also send one request object again, or copy its extensions, long after. So only what the last answer
    makes a next hop is one: another request after a redirect, the same one after a challenge.
    """
    hop = call.request.extensions.get(KEY)
    if isinstance(hop, Hop):
        same = hop.request() is call.request
        if (hop.status in (401, 407)) if same else (300 <= hop.status < 400):
            call.lower(hop.deadline, "total")


def remember_hop(call: HttpCall, response: Any) -> None:
    """Leave the deadline to the next hop, where the answer may lead to one."""
    status = response.status_code
    if 300 <= status < 400 or status in (401, 407):
        call.request.extensions[KEY] = Hop(weakref.ref(call.request), status, call.deadline)
