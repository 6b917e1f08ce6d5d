"""Which errors are the failure of a dependency, and not a bug or an answer."""

from __future__ import annotations

from collections.abc import Iterator

from ..core.outcome import Outcome, outcome_of_status
from ..errors import ResilienceError

__all__ = ["blame"]

_CLIENTS = frozenset({"httpx", "httpx2"})


def blame(error: Exception, on: tuple[type[Exception], ...]) -> Exception | None:
    """The dependency's failure that `error` is, or the first of those it consists of. None for anything else."""
    failures = list(_leaves(error))
    if all(isinstance(leaf, (ResilienceError, *on)) or _is_client_failure(leaf) for leaf in failures):
        return failures[0]
    return error if on and isinstance(error, on) else None


def _leaves(error: Exception) -> Iterator[Exception]:
    if isinstance(error, ExceptionGroup):
        for part in error.exceptions:
            yield from _leaves(part)
    else:
        yield error


def _client_classes(kind: type) -> frozenset[str]:
    """Names of the classes of an HTTP client library that an exception class descends from; neither is imported."""
    return frozenset(base.__name__ for base in kind.__mro__ if base.__module__.partition(".")[0] in _CLIENTS)


def _is_client_failure(error: Exception) -> bool:
    classes = _client_classes(type(error))
    if "HTTPStatusError" in classes:
        outcome = outcome_of_status(error.response.status_code)  # type: ignore[attr-defined]
        return outcome.failed or outcome is Outcome.THROTTLED
    return "TransportError" in classes
