"""A request as one target of a failover gets it: another origin, other fields, other members of its JSON body.

What one provider is trusted with is not for another one to see. Where a target is not trusted, every field goes that
names a credential or sounds like one, unless the target sets it itself; so do query parameters of that kind, the TLS name
of the first host, and the cookies that the target sets, which a client would send to the first host from then on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..policies.target import Target
    from .library import Library

__all__ = ["rewritten"]

PORTS = {"http": 80, "https": 443}
# Rather a field too many: one that is missing is answered by a 401 that can be seen, one too many by nobody.
SECRET = re.compile(r"auth|cookie|credential|key|passw|secret|session|signature|token", re.IGNORECASE)
# Fields of that sound that say nothing of who is asking.
HARMLESS = frozenset({"idempotency-key", "sec-websocket-key", "x-idempotency-key"})
SECRET_PARAMETERS = frozenset({
    "access_token", "api-key", "api_key", "apikey", "auth", "key", "password", "sig", "signature", "token", "x-amz-credential",
    "x-amz-security-token", "x-amz-signature",
})  # fmt: skip


def rewritten(library: Library, request: Any, target: Target, prefix: str) -> tuple[Any, bool]:
    """The request for `target`, and whether that is trusted; the original is left as it is.

    Args:
        library: whose request it is.
        request: the original.
        target: what to change.
        prefix: the beginning of the path that is the dependency's own, and that the target's takes the place of.

    Raises:
        TypeError: the body is to be changed and is not in memory, or what `json` returned is nothing that JSON can say.
    """
    url = request.url if target.url is None else _moved(library, request.url, target.url, prefix)
    away = _origin(url) != _origin(request.url)
    trusted = not away if target.trusted is None else target.trusted
    sent = object.__new__(type(request))
    sent.__dict__.update(request.__dict__)
    sent.headers = request.headers.copy()
    sent.extensions = dict(request.extensions)
    if not trusted:
        for name in {name.lower() for name in request.headers}:
            if SECRET.search(name) and name not in HARMLESS:
                del sent.headers[name]
        url = url.copy_with(username="", password="")
        for name in [name for name in dict(url.params) if name.lower() in SECRET_PARAMETERS]:
            url = url.copy_remove_param(name)
    if away:
        sent.extensions.pop("sni_hostname", None)
        sent.headers["host"] = url.netloc.decode("ascii")
    sent.url = url
    if target.json is not None:
        _change_body(library, sent, target)
    for name, value in target.headers.items():
        if value is not None:
            sent.headers[name] = value
        elif name in sent.headers:
            del sent.headers[name]
    return sent, trusted


def _moved(library: Library, url: Any, base: str, prefix: str) -> Any:
    target = library.module.URL(base)
    path, separator, query = url.raw_path.partition(b"?")
    own = prefix.encode("utf-8")
    rest = path[len(own) :] if own and (path == own or path.startswith(own + b"/")) else path
    raw_path = target.raw_path.rstrip(b"/") + rest
    return target.copy_with(raw_path=(raw_path or b"/") + separator + query, username=url.username, password=url.password)


def _origin(url: Any) -> tuple[str, str, int | None]:
    return url.scheme, url.host, url.port or PORTS.get(url.scheme)


def _change_body(library: Library, sent: Any, target: Target) -> None:
    content: bytes | None = getattr(sent, "_content", None)
    if content is None:
        raise TypeError(f"target {target.name!r} changes the JSON body, and this request's body is not in memory")
    kind = sent.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not content or not (kind == "application/json" or kind.endswith("+json")):
        return
    try:
        value = json.loads(content)
    except ValueError:
        return  # it only said that it was JSON; the target will say what it thinks of it
    value = _changed(value, target.json)
    try:
        content = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()
    except (TypeError, ValueError) as error:
        raise TypeError(f"target {target.name!r}: json made a body that JSON cannot say: {error}") from error
    sent._content = content
    sent.stream = library.module.ByteStream(content)
    if "transfer-encoding" not in sent.headers:
        sent.headers["content-length"] = str(len(content))


def _changed(value: Any, change: dict[str, Any] | Callable[[Any], Any] | None) -> Any:
    if callable(change):
        return change(value)
    return {**value, **change} if isinstance(value, dict) and change else value
