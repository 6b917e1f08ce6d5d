"""One of the two client libraries, as the engine sees it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .. import errors
from ..errors import ResilienceError
from .heads import Heads

if TYPE_CHECKING:
    from .request import HttpCall

__all__ = ["Library", "bound_errors", "library_of"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Library:
    """httpx or httpx2, and the classes that are bound to it.

    Attributes:
        module: the library; under `httpx2.alias_httpx()` the name `httpx` is httpx2 as well.
        door: the module of ours that users import for it.
        errors: our error classes, each with the one that is also the library's own.
        probe, async_guard, sync_guard, async_wire, sync_wire, async_taped, sync_taped: stream classes that pass the library's type checks.
        heads: of the answers that caches give out.
    """

    module: ModuleType
    door: str
    errors: Mapping[type[ResilienceError], type[ResilienceError]]
    probe: type[Any]
    async_guard: type[Any]
    sync_guard: type[Any]
    async_wire: type[Any]
    sync_wire: type[Any]
    async_taped: type[Any]
    sync_taped: type[Any]
    heads: Heads = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "heads", Heads(self.module))

    @property
    def name(self) -> str:
        return self.module.__name__

    @property
    def pool_breaks(self) -> bool:
        """Whether a cancellation can kill the connection pool for good: httpx up to 0.28 (httpcore 1.0.9)."""
        return self.name == "httpx"

    def has_pool(self, transport: Any) -> bool:
        """Whether this is the library's own transport, with httpcore's connection pool behind it."""
        return isinstance(transport, self.module.AsyncHTTPTransport | self.module.HTTPTransport)

    def check(self, request: Any) -> None:
        """Refuse a request of the other library.

        Raises:
            TypeError: it names the import to use instead.
        """
        if not isinstance(request, self.module.Request):
            raise TypeError(f"{self.door} works with {self.name} clients, not with {_origin(request)}: {_advice(request)}")

    def check_answer(self, response: Any, call: HttpCall) -> None:
        """Refuse what an inner transport returned if it is no response of this library; that is no fault of the dependency.

        Raises:
            TypeError: naming what it is.
        """
        if not isinstance(response, self.module.Response):
            error = TypeError(f"inner: expected to get a response of {self.name}, got {response!r}, which is {_origin(response)}")
            call.ignore(error)
            raise error

    def check_transport(self, inner: Any, method: str, base: str) -> None:
        """Refuse an inner transport of the other library, or of the other colour.

        Raises:
            TypeError: naming what is wrong.
        """
        if isinstance(inner, getattr(self.module, base)):
            return
        origin = library_of(inner)
        if origin is not None and origin != self.name:
            raise TypeError(f"inner: {inner!r} belongs to {origin}, and {self.door} to {self.name}: import resilient.{origin} instead")
        if isinstance(inner, type) or not callable(getattr(inner, method, None)):
            raise TypeError(f"inner: expected a transport with {method}(request), got {inner!r}")


def library_of(thing: Any) -> str | None:
    """The client library that an object's class comes from, or None."""
    for kind in type(thing).__mro__:
        package = kind.__module__.partition(".")[0]
        if package in ("httpx", "httpx2"):
            return package
    return None


def _origin(thing: Any) -> str:
    origin = library_of(thing)
    return f"{origin}'s" if origin else type(thing).__name__


def _advice(thing: Any) -> str:
    origin = library_of(thing)
    return f"import the transport from resilient.{origin}" if origin else "pass a request made by the client"


def bound_errors(names: Mapping[str, Any]) -> dict[type[ResilienceError], type[ResilienceError]]:
    """From each error class of ours to the one among `names` that is also the library's own."""
    return {ours: names[name] for name, ours in vars(errors).items() if isinstance(ours, type) and issubclass(ours, ResilienceError)}
