"""What is put to the test: an async transport, by name."""

from __future__ import annotations

import atexit
import importlib
import tempfile
from pathlib import Path
from typing import Any

CACHES = ("resilient", "none", "hishel")
LIBRARIES = ("httpx2", "httpx")
STORES = ("memory",)


def transport(cache: str, library: str, store: str) -> Any:
    """The transport of the client in the middle of the proxy.

    Args:
        cache: "resilient" for `resilient.Cache`; "none" for the client library's own transport and nothing else, which
            shows what the proxy alone does; "hishel" for hishel's in RFC mode, for comparison.
        library: the client library, by the name of its module.
        store: where `resilient.Cache` keeps the answers.
    """
    module = importlib.import_module(library)
    # Some answers of the suite are longer than their Content-Length says. The rest of one would be read as the start of
    # the next answer on that connection, so that one test would spoil another; hence a connection for each request.
    limits = module.Limits(max_connections=200, max_keepalive_connections=0)
    inner = module.AsyncHTTPTransport(limits=limits, trust_env=False)
    if cache == "none":
        return inner
    if cache == "hishel":
        return _hishel(library, inner)
    return _resilient(library, store, inner)


def _resilient(library: str, store: str, inner: Any) -> Any:
    from resilient import Cache, Pipeline

    door = importlib.import_module(f"resilient.{library}")
    caches = {"memory": Cache}
    return door.AsyncResilientTransport(Pipeline(caches[store]()), inner)


def _hishel(library: str, inner: Any) -> Any:
    from hishel import AsyncSqliteStorage

    door = importlib.import_module(f"hishel.{library}")
    # In a folder of its own: where nothing is said, the database is laid into the working directory and found again.
    folder = tempfile.TemporaryDirectory(prefix="hishel-")
    atexit.register(folder.cleanup)
    return door.AsyncCacheTransport(inner, storage=AsyncSqliteStorage(database_path=Path(folder.name) / "cache.db"), rfc=True)
