"""What users may rely on is in public_names.txt, so that no change of it goes unseen.

After a change that is meant: python tests/test_public_names.py, and a line in the changelog.
"""

from __future__ import annotations

import enum
import importlib
import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

LIST = Path(__file__).with_name("public_names.txt")
MODULES = (
    "resilient",
    "resilient.asgi",
    "resilient.context",
    "resilient.errors",
    "resilient.events",
    "resilient.httpx",
    "resilient.httpx2",
    "resilient.protocols",
    "resilient.stores",
    "resilient.testing",
)
# Names that acceptance programs import.
FIXED = {
    "resilient": """
        Resilience Dependency Feature Level Criticality Pipeline standard Timeout Retry RetryBudget CircuitBreaker Bulkhead
        Fallback AdaptiveConcurrency RateLimit Hedge Cache Failover AdaptiveThrottle Chaos Deadline current_deadline
        current_criticality ResilienceError Rejected CircuitOpen BulkheadFull RateLimited SpendExceeded Overloaded
        DeadlineExceeded AllTargetsFailed
    """,
    "resilient.httpx": "AsyncResilientTransport ResilientTransport CircuitOpen",
    "resilient.httpx2": "AsyncResilientTransport ResilientTransport CircuitOpen",
    "resilient.asgi": "ResilienceMiddleware DeadlineMiddleware DegradationMiddleware ErrorMiddleware MetricsMiddleware routes",
    "resilient.stores": "MemoryStore SQLiteStore RedisStore",
    "resilient.testing": "FakeClock FaultyTransport RecordingListener",
}


def public_names() -> str:
    """A line for each public name, functions and classes with their signature, and one for each public member."""
    listed: set[type] = set()
    return "".join(f"{line}\n" for module in MODULES for line in _module(module, listed))


def _module(name: str, listed: set[type]) -> Iterator[str]:
    module = importlib.import_module(name)
    for public in sorted(module.__all__):
        value = getattr(module, public)
        yield f"{name}.{public}{_signature(value)}"
        # The members of a class are told once, by whichever module comes first.
        if inspect.isclass(value) and value not in listed:
            listed.add(value)
            yield from (f"{name}.{public}.{member}" for member in _members(value))


def _members(kind: type) -> list[str]:
    owners = [base for base in kind.__mro__ if base.__module__.startswith("resilient")]
    return sorted({member for base in owners for member in vars(base) if not member.startswith("_")})


def _signature(value: Any) -> str:
    if not (inspect.isroutine(value) or inspect.isclass(value)) or (inspect.isclass(value) and issubclass(value, enum.Enum)):
        return ""
    try:
        return re.sub(r" at 0x[0-9a-fA-F]+", "", str(inspect.signature(value)))
    except ValueError:
        return ""


def test_the_public_names_are_those_that_were_agreed() -> None:
    assert public_names().splitlines() == LIST.read_text().splitlines()


@pytest.mark.parametrize(("module", "names"), FIXED.items(), ids=list(FIXED))
def test_the_fixed_names_are_there(module: str, names: str) -> None:
    assert set(names.split()) <= set(importlib.import_module(module).__all__)


if __name__ == "__main__":
    LIST.write_text(public_names())
