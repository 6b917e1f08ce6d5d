"""Several workers' files have one lock in a process, which is not re-entrant: a collection may come while it is held."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client import Counter, Histogram

from resilient import Bulkhead, CircuitBreaker, Dependency, Resilience

from ..collecting import Cycle, collect, entering

pytestmark = pytest.mark.usefixtures("by_hand_alone")
SUCCESSES = ("resilient_calls_total", (("dependency", "catalog"), ("outcome", "success")))
IGNORED = ("resilient_calls_total", (("dependency", "catalog"), ("outcome", "ignored")))


def read(catalog: Dependency) -> None:
    """A generator that was left in the middle."""

    @catalog
    def items() -> Iterator[int]:
        yield from (1, 2)

    generator = items()
    next(generator)
    Cycle(generator)


def wait(catalog: Dependency) -> None:
    """A coroutine that was left waiting, as by an event loop that was closed."""

    class Never:
        def __await__(self) -> Generator[None]:
            yield

    async def never() -> None:
        await Never()

    waiting = catalog.call(never)
    waiting.send(None)
    Cycle(waiting)


@pytest.mark.parametrize(("dropped", "counted"), [(read, SUCCESSES), (wait, IGNORED)], ids=["generator", "coroutine"])
@pytest.mark.parametrize(
    ("whose", "module", "function"),
    [
        ("the program's counter", "prometheus_client.values", "__check_for_pid_change"),
        ("the program's counter", "prometheus_client.mmap_dict", "write_value"),
        ("the program's new series", "prometheus_client.mmap_dict", "mmap_key"),
        ("the program's new series", "json.encoder", "iterencode"),
        ("our counter", "prometheus_client.mmap_dict", "write_value"),
        ("our histogram", "prometheus_client.mmap_dict", "write_value"),
    ],
)
def test_a_call_that_is_collected_under_prometheus_clients_lock(
    worker_files: Path,
    samples: Callable[[Any], dict[Any, float]],
    whose: str,
    dropped: Callable[[Dependency], None],
    counted: Any,
    module: str,
    function: str,
) -> None:
    resilience = Resilience()
    catalog = resilience.dependency("catalog", Bulkhead(max_concurrent=5), CircuitBreaker())
    orders = Counter("orders", "Orders.", registry=None)
    by_kind = Histogram("seconds", "Seconds.", ["kind"], registry=None)
    dropped(catalog)
    work = {
        "the program's counter": orders.inc,
        "the program's new series": lambda: by_kind.labels("new"),
        "our counter": lambda: catalog.call_sync(int),
        "our histogram": lambda: resilience.metrics.count_request("/", "GET", "2xx", 0.1),
    }[whose]
    collect(work, entering(module, function))
    assert catalog.bulkhead is not None and catalog.bulkhead.in_use == 1
    catalog.call_sync(int)
    assert catalog.bulkhead.in_use == 0
    page = samples(resilience.metrics)
    calls = 1 + (whose == "our counter")
    assert page[SUCCESSES] + page[IGNORED] == calls + 1
    assert page[counted] == (calls + 1 if counted is SUCCESSES else 1)
