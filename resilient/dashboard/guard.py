"""Who may read the dashboard, and who may act through it."""

from __future__ import annotations

import hmac
import inspect
import logging
import re
import secrets
from collections.abc import Callable, Iterable
from typing import Any

import anyio
from starlette.exceptions import HTTPException
from starlette.requests import Request

from .answers import Refusal

__all__ = ["Ask", "Guard", "check_token", "hosts_of", "token_of"]

logger = logging.getLogger("resilient")

Ask = Callable[[Request], Any]
"""Returns the name of who may, or None; or an awaitable of that."""

TOKEN = "x-resilient-token"
TOKENS = re.compile(r"[0-9a-f]{1,16}\.[0-9a-f]{1,8}\.[0-9a-f]{64}")
LONGEST_NAME = 100
PATIENCE = 10.0  # seconds for whoever is asked
DEFAULT_PORTS = {"http": ":80", "https": ":443"}

KEY = secrets.token_bytes(32)


class Guard:
    """The guard of one dashboard.

    Args:
        authorize: says who an operator is; None: nobody is, and there are no controls.
        readers: says who may read; None: whoever reaches it.
        hosts: names that the service is reached by; None: any.
    """

    def __init__(self, authorize: Ask | None, readers: Ask | None, hosts: tuple[str, ...] | None) -> None:
        self.authorize = authorize
        self._readers = readers
        self._hosts = hosts

    # -- where a request comes from ---------------------------------------------------------------------------------

    def check_host(self, request: Request) -> str:
        """The name that the request was sent to.

        Raises:
            Refusal: it is none of those allowed.
        """
        host = request.headers.get("host", "").lower()
        if self._hosts is not None and not any(_is(host, allowed) for allowed in self._hosts):
            raise Refusal(421, "This name is none of those that the dashboard is served under.", field="Host")
        return host

    def check_source(self, request: Request, *, navigates: bool = False) -> None:
        """Let no page of another origin read or write, even where the app's own CORS settings would.

        Raises:
            Refusal: a browser says that such a page has made the request.
        """
        host = self.check_host(request)
        site = request.headers.get("sec-fetch-site")
        if navigates and request.headers.get("sec-fetch-mode") == "navigate":
            return  # a link from elsewhere; who has put it there sees nothing of the answer
        if site is not None and site != "same-origin" and not (site == "none" and request.method in ("GET", "HEAD")):
            raise Refusal(403, "Requests from pages of another origin are refused.", field="Sec-Fetch-Site")
        origin = request.headers.get("origin")
        if origin is not None and not self._is_ours(origin.lower(), host):
            raise Refusal(
                403,
                "The page that asks is not of this host. Behind a proxy that changes Host, name the public one in dashboard_hosts.",
                field="Origin",
            )

    def _is_ours(self, origin: str, host: str) -> bool:
        scheme, _, theirs = origin.partition("://")
        port = DEFAULT_PORTS.get(scheme, ":")
        theirs, host = theirs.removesuffix(port), host.removesuffix(port)
        return bool(theirs) and (theirs == host or any(_is(theirs, allowed) for allowed in self._hosts or ()))

    # -- who it comes from ------------------------------------------------------------------------------------------

    async def check_reader(self, request: Request) -> None:
        """Require somebody who may read: an operator always may.

        Raises:
            Refusal: whoever asks may not.
        """
        if self._readers is None:
            return
        try:
            if await self._ask("dashboard_readers", self._readers, request):
                return
            refusal = Refusal(403, "You may not read this.")
        except Refusal as told:
            refusal = told
        if refusal.status >= 500 or await self.operator_if_any(request) is None:
            raise refusal

    async def operator_if_any(self, request: Request) -> str | None:
        """The operator's name, if whoever reads is one. That he is asked to log in first means that he is none yet.

        Raises:
            Refusal: it could not be found out.
        """
        if self.authorize is None:
            return None
        try:
            return await self.operator(request)
        except Refusal as refusal:
            if refusal.status >= 500:
                raise
            return None

    async def operator(self, request: Request) -> str:
        """The operator's name.

        Raises:
            Refusal: whoever asks is none.
        """
        assert self.authorize is not None  # or there would be nothing to authorize
        name = await self._ask("authorize", self.authorize, request)
        if name is None or name is False:
            raise Refusal(403, "You may not do this.")
        if not isinstance(name, str) or not name:
            logger.error("authorize: expected the name of the operator, or None, got %r", type(name))
            raise Refusal(500, "Whether you may could not be found out.")
        return "".join(letter if letter.isprintable() else " " for letter in name[:LONGEST_NAME])

    async def _ask(self, parameter: str, ask: Ask, request: Request) -> Any:
        try:
            with anyio.fail_after(PATIENCE):
                said = ask(request)
                return await said if inspect.isawaitable(said) else said
        except HTTPException as error:  # what the app says to whom it does not know: 401, and how to log in
            status = error.status_code if error.status_code >= 400 else 403
            detail = error.detail if isinstance(error.detail, str) else "You may not do this."
            raise Refusal(status, detail, headers=error.headers) from error
        except Exception as error:
            logger.exception("%s, which guards the dashboard, failed", parameter)
            raise Refusal(500, "Whether you may could not be found out.") from error


def token_of(run: str, name: str) -> str:
    """What a page that an operator has loaded sends along, and no other page knows: the worker's run, and a code."""
    return f"{run}.{hmac.digest(KEY, f'{run} {name}'.encode(), 'sha256').hex()}"


def check_token(request: Request, run: str, name: str) -> None:
    """Require the token that this worker has shown to this operator.

    Raises:
        Refusal: there is none, or it is another one.
    """
    given = request.headers.get(TOKEN, "")
    if hmac.compare_digest(given.encode("latin-1", "replace"), token_of(run, name).encode()):
        return
    if TOKENS.fullmatch(given) and not given.startswith(f"{run}."):
        raise Refusal(409, "Another worker answers than the one that is shown; look again.", field="X-Resilient-Token")
    raise Refusal(403, "The token is none that this dashboard has given you; load the page again.", field="X-Resilient-Token")


def _is(host: str, allowed: str) -> bool:
    """Whether a host is the one allowed, at any port unless one is said."""
    return host == allowed or (host.startswith(f"{allowed}:") and host[len(allowed) + 1 :].isdigit())


def hosts_of(hosts: Any) -> tuple[str, ...] | None:
    """The names that are allowed.

    Raises:
        TypeError, ValueError: naming `dashboard_hosts`.
    """
    if hosts is None:
        return None
    if isinstance(hosts, str) or not isinstance(hosts, Iterable):
        raise TypeError(f"dashboard_hosts: expected names in a list, such as ['ops.example.com'], got {hosts!r}")
    found = tuple(hosts)
    for host in found:
        if not isinstance(host, str):
            raise TypeError(f"dashboard_hosts: expected names, got {host!r}")
        if not host or any(letter in host for letter in "/@ *"):
            raise ValueError(f"dashboard_hosts: expected a name such as ops.example.com or localhost:8000, got {host!r}")
    return tuple(host.lower() for host in found)
