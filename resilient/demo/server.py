"""The child's side of a demo process: serve an app on a free loopback port for as long as the parent lives."""

from __future__ import annotations

import os
import socket
import sys
import threading
from typing import TYPE_CHECKING

import uvicorn

if TYPE_CHECKING:
    from starlette.types import ASGIApp

# Longer than any pause between two calls of the demo: a connection that the server has just closed would be
# counted as a failure of the app that reused it.
KEEP_ALIVE = 75


def serve(app: ASGIApp) -> None:
    """Serves `app`, tells its port on stdout and ends when stdin does.

    The port is bound here and only then told, so no other process can take it in between. Stdin is the lifeline: the
    system closes it however the parent ends (Ctrl-C, SIGTERM, SIGKILL, a crash), so no child can outlive it.
    """
    # The protocol is named because asyncio turns Nagle's algorithm off only where it is: without, each answer takes 40 ms.
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listener.bind(("127.0.0.1", 0))
    listener.listen(2048)
    threading.Thread(target=_end_with_parent, name="lifeline", daemon=True).start()
    sys.stdout.write(f"{listener.getsockname()[1]}\n")
    sys.stdout.flush()
    config = uvicorn.Config(app, access_log=False, log_level="critical", timeout_keep_alive=KEEP_ALIVE)
    uvicorn.Server(config).run(sockets=[listener])


def _end_with_parent() -> None:
    sys.stdin.buffer.read()
    # Nothing here is worth a graceful end, and a shop with hundreds of hung requests would never come to one.
    os._exit(0)
