"""Generators and coroutines that nobody ends are closed by the garbage collector, in the middle of whatever runs.

That may be code that holds a lock, on the very thread that would have to wait for it: one of ours, which guard state that
must not be looked at half-way, or the one that prometheus_client has around the files of several workers. So nothing is
settled then; word is left with the pipeline, whose next call does it.
"""

from __future__ import annotations

from types import FrameType

__all__ = ["may_hold_locks"]

# How many frames up the interrupted code is looked for: ours is at the top, or what it had called; prometheus_client
# calls the JSON module under its lock.
NEAR, FAR = 3, 8


def may_hold_locks(interrupted: FrameType | None) -> bool:
    """Whether closing what was dropped could wait for a lock that the code which runs here holds.

    A frame does not tell a collection from somebody's `close()`. Where that one comes from our own code the answer is
    true as well: what the call held comes back a little later.
    """
    for distance in range(FAR):
        if interrupted is None:
            return False
        module = str(interrupted.f_globals.get("__name__", ""))
        if module.startswith("prometheus_client.") or (distance < NEAR and module.startswith("resilient.")):
            return True
        interrupted = interrupted.f_back
    return False
