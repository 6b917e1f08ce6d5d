"""Callers leave at every await; nothing is lost, nothing is swallowed, nobody else is hit."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import anyio
import anyio.lowlevel
import pytest

from resilient import Bulkhead, Chaos, CircuitBreaker, Dependency, Hedge, Retry, RetryBudget, Timeout
from resilient.core.backoff import Constant
from resilient.events import HedgeDecided
from resilient.testing import RecordingListener

from ..thorough import THOROUGH
from .cancelling import Fuzz

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

FUNCTIONS, HEDGED, TRANSPORTS = (10_000, 3_500, 2_500) if THOROUGH else (4_000, 1_500, 1_250)
"""Cancellations. On each of asyncio and trio: FUNCTIONS + HEDGED + TRANSPORTS for each library, hedged and not, 10,000 at least."""
WORKERS = 12


HEDGE = {"hedge": lambda: (Hedge(delay=0.0004, max_hedges=2),), "no hedge": lambda: ()}


def dependency(slots: int = 6, *extra: Chaos | Hedge, total: float = 0.02) -> Dependency:
    """Everything is scarce: slots, places in the queue, and, unless more is given, time."""
    beside = [policy for policy in extra if isinstance(policy, Hedge)]
    chaos = [policy for policy in extra if isinstance(policy, Chaos)]
    return Dependency(
        "fuzzed",
        Timeout(total=total, attempt=total / 2, min_useful=0.0),
        Retry(attempts=3, backoff=Constant(0.0005), budget=RetryBudget(ratio=1.0, reserve=1e6, saved=10**9), on=ConnectionError),
        *beside,
        Bulkhead(max_concurrent=slots, queue=20, max_wait=total),
        CircuitBreaker(outage_failures=30, outage_quiet=0.0, break_time=0.002, max_break=0.004, trials=2, lease=0.5),
        *chaos,
        chaos=True,
    )


def assert_clean(used: Dependency) -> None:
    assert used.bulkhead is not None
    assert (used.bulkhead.in_use, used.bulkhead.queued) == (0, 0)
    assert used.breaker._core.trials_out == 0  # type: ignore[union-attr]
    assert used.settle_errors == 0


async def until_cancelled(
    fuzz: Fuzz,
    enough: int,
    calls: list[Callable[[], Awaitable[Any]]],
    met: Callable[[], bool],
    expected: type[Exception] = ConnectionError,
) -> None:
    """Let workers make calls until so many were cancelled, and all has been met that they should meet."""

    async def worker() -> None:
        while fuzz.counts["cancelled"] < enough and not fuzz.faults:
            await fuzz.use(fuzz.random.choice(calls), expected)
            fuzz.counts["cancelled"] = sum(fuzz.counts[kind] for kind in CANCELLERS)

    while fuzz.counts["cancelled"] < enough:
        async with anyio.create_task_group() as group:
            for _ in range(WORKERS):
                group.start_soon(worker)
        if fuzz.faults:
            return
        if not met():
            enough += 300


CANCELLERS = ("move_on_after", "fail_after", "task group", "asyncio.timeout", "wait_for", "task.cancel", "DeadlineExceeded")


async def all_out(used: Dependency) -> None:
    """Whoever has lost a race comes to its end, and nobody waits for that."""
    assert used.bulkhead is not None
    with anyio.fail_after(5):
        while used.bulkhead.in_use:
            await anyio.sleep(0.001)


@pytest.mark.parametrize("beside", HEDGE)
async def test_ground_26_cancellation_fuzz_of_functions(anyio_backend: Any, anyio_backend_name: str, beside: str) -> None:
    slow, failing = Chaos(rate=0.2, latency=(0, 0.003), seed=1), Chaos(rate=0.1, fault=ConnectionError, latency=(0, 0.001), seed=1)
    listener = RecordingListener()
    used = dependency(6, *HEDGE[beside](), slow, failing, Chaos(rate=0.02, hang=True, seed=1))
    used.outbox.add(listener)
    fuzz = Fuzz(seed=1, backend=anyio_backend_name)

    @used
    async def stream() -> AsyncIterator[int]:
        for item in range(3):
            await fuzz.body()
            yield item

    async def read() -> None:
        items = stream()
        try:
            async for _ in items:
                await anyio.sleep(fuzz.delay() / 10)
        finally:
            with anyio.CancelScope(shield=True):
                await items.aclose()  # type: ignore[attr-defined]

    enough = FUNCTIONS if beside == "no hedge" else HEDGED

    def hedges() -> Counter[str]:
        return Counter(event.result for event in listener.of(HedgeDecided))

    def met() -> bool:
        results = hedges()
        every = all(results[result] > 10 for result in ("won", "lost", "failed", "cancelled"))
        return slow.injected > 100 and failing.injected > 100 and (every or beside != "hedge")

    with anyio.fail_after(110):
        await until_cancelled(fuzz, enough, [lambda: used.call(fuzz.body), lambda: used.call(fuzz.body), read], met)
    assert not fuzz.faults, (fuzz.faults, fuzz.counts)
    await all_out(used)
    assert_clean(used)
    assert met(), hedges()
    assert sum(fuzz.counts[kind] for kind in CANCELLERS) >= enough
    used.reset()
    used.chaos = False
    assert await used.call(fuzz.plain, anyio.lowlevel.checkpoint) is None


HARMS: list[tuple[float, dict[str, Any]]] = [
    (0.25, {"status": 503}),
    (0.1, {"truncate": 7}),
    (0.1, {"latency": (0, 0.003)}),
    (0.02, {"hang": True}),
]


class Pool:
    """An inner transport as httpcore is one: it waits, sends, and hands out a body that comes in pieces."""

    def __init__(self, fuzz: Fuzz, library: Any) -> None:
        self.fuzz = fuzz
        self.library = library
        self.open = 0

    async def handle_async_request(self, request: Any) -> Any:
        pool, library = self, self.library

        class Stream(library.AsyncByteStream):  # type: ignore[misc, name-defined]
            closed = False

            async def __aiter__(self) -> AsyncIterator[bytes]:
                for _ in range(3):
                    await pool.fuzz.body()
                    yield b"piece"

            async def aclose(self) -> None:
                if not self.closed:
                    self.closed = True
                    pool.open -= 1
                await anyio.lowlevel.checkpoint()

        await self.fuzz.body()
        self.open += 1
        return library.Response(200, stream=Stream())

    async def aclose(self) -> None:
        """Nothing is kept."""


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # trio tells of the libraries' own generators
@pytest.mark.filterwarnings("ignore:.*more than the 4 connections")  # which is the point: calls queue at the gate too
@pytest.mark.parametrize("beside", HEDGE)
async def test_ground_03_cancellation_fuzz_of_transports(anyio_backend: Any, anyio_backend_name: str, library: Any, beside: str) -> None:
    used = dependency(6, *HEDGE[beside](), *(Chaos(rate=rate, seed=2, **harm) for rate, harm in HARMS))
    fuzz = Fuzz(seed=2, backend=anyio_backend_name)
    pool = Pool(fuzz, library)
    transport = library.ours.AsyncResilientTransport(used, pool, max_connections=4)
    gate = transport._gate
    # As it is over httpx 0.28's own transport on asyncio: each exchange in a task of its own.
    transport._isolated = gate is not None

    async with library.AsyncClient(transport=transport) as client:

        async def read_in_pieces() -> None:
            async with client.stream("GET", "http://fuzzed/") as response:
                async for _ in response.aiter_bytes():
                    await anyio.sleep(fuzz.delay() / 10)

        def met() -> bool:
            return all(one.injected > 10 for one in used.policies if isinstance(one, Chaos))

        calls: list[Callable[[], Awaitable[Any]]] = [lambda: client.get("http://fuzzed/"), read_in_pieces]
        with anyio.fail_after(110):
            await until_cancelled(fuzz, TRANSPORTS, calls, met, expected=library.TransportError)
        with anyio.fail_after(5):
            while pool.open or (gate is not None and gate.slots.in_use):
                await anyio.sleep(0.001)  # exchanges that their callers left come to their end
        assert not fuzz.faults, (fuzz.faults, fuzz.counts)
        await all_out(used)
        assert_clean(used)
        assert met()
        assert gate is None or (gate.slots.in_use, gate.slots.queued) == (0, 0)


async def at_await(number: float, work: Callable[[], Awaitable[Any]]) -> int:
    """Run `work` and cancel it at its await number `number`. Returns how many awaits it came to."""
    reached = 0

    class Stepping:
        def __await__(self) -> Any:
            nonlocal reached
            inner = work().__await__()
            send: Any = None
            error: BaseException | None = None
            while True:
                try:
                    asked = inner.throw(error) if error is not None else inner.send(send)  # type: ignore[attr-defined]
                except StopIteration as stop:
                    return stop.value
                reached += 1
                if reached == number:
                    scope.cancel()
                send, error = None, None
                try:
                    send = yield asked
                except BaseException as thrown:  # noqa: BLE001 - thrown into the coroutine that is stepped through
                    error = thrown

    with anyio.CancelScope() as scope:
        await Stepping()
    return reached


@pytest.mark.parametrize("script", ["success", "retries", "queue", "trial", "hedge"])
async def test_cancellation_at_each_await_in_turn(anyio_backend: Any, script: str) -> None:
    """The queue, the attempt, the sleep before a retry, a trial: each is left once at each of its awaits."""
    number = 0
    reached = number
    while reached >= number:
        number += 1
        used = dependency(2, Hedge(delay=0, max_hedges=1), total=0.8) if script == "hedge" else dependency(slots=1, total=0.8)
        assert used.bulkhead is not None and used.breaker is not None
        failures = iter([script == "retries"] * 2 + [False])
        if script == "trial":
            used.breaker.half_open()

        async def work(failures: Any = failures) -> None:
            await anyio.sleep(0)
            if next(failures):
                raise ConnectionError("scripted")
            await anyio.sleep(0)

        async with anyio.create_task_group() as group:
            if script == "queue":
                group.start_soon(used.call, yield_often)
                while not used.bulkhead.in_use:
                    await anyio.sleep(0)
            reached = await at_await(number, lambda used=used, work=work: used.call(work))
        if reached < number:  # nobody was cancelled: whoever has lost may still be about to end
            await all_out(used)
        assert_clean(used)
        await used.call(anyio.sleep, 0)
        await all_out(used)
        assert_clean(used)
    assert number > {"success": 2, "retries": 6, "queue": 3, "trial": 2, "hedge": 1}[script]


async def yield_often() -> None:
    for _ in range(5):
        await anyio.sleep(0)
