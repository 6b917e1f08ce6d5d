"""What one request asks for itself: `extensions={"resilient": {...}}`."""

from __future__ import annotations

from typing import Any

import pytest

from resilient import Criticality, Deadline, DeadlineExceeded, RequestOptions, Timeout, current_criticality, standard
from resilient.call import Call
from resilient.context import criticality, deadline_scope
from resilient.events import RetryDecided
from resilient.protocols import Inner
from resilient.testing import HANG, FakeClock, FaultyTransport, RecordingListener

from .conftest import Declare

pytestmark = pytest.mark.anyio


class Looking:
    """The innermost policy: remembers what the call says of itself."""

    def __init__(self) -> None:
        self.seen: list[Any] = []

    def run(self, call: Call, inner: Inner) -> Any:
        self.seen.append((call.criticality, call.partition, call.route, call.once))
        return inner(call)


def client_of(library: Any, target: Any, *script: Any) -> Any:
    return library.AsyncClient(transport=library.ours.AsyncResilientTransport(target, FaultyTransport(script)), timeout=None)


def asking(**options: Any) -> dict[str, Any]:
    return {"resilient": options}


# -- timeout ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policies", [(Timeout(total=30),), ()], ids=["shorter than the policy's", "without a policy"])
async def test_timeout_is_the_seconds_in_all(
    anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare, policies: tuple[Any, ...]
) -> None:
    class Nothing:
        def run(self, call: Call, inner: Inner) -> Any:
            return inner(call)

    began = clock.now()
    async with client_of(library, declare(*policies, Nothing()), HANG) as client:
        with pytest.raises(library.TimeoutException) as raised:
            await client.get("http://dep/", extensions=asking(timeout=2))
    assert isinstance(raised.value, DeadlineExceeded) and raised.value.reason == "total"
    assert clock.now() - began == pytest.approx(2)


async def test_timeout_never_grants_more_than_the_policy_or_the_caller(
    anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare
) -> None:
    async with client_of(library, declare(timeout=3), HANG) as client:
        for seconds, outer, ended in ((60, 99, 3), (2.5, 1, 1)):
            began = clock.now()
            with deadline_scope(Deadline.after(outer, clock)), pytest.raises(DeadlineExceeded):
                await client.post("http://dep/", extensions=asking(timeout=seconds))
            assert clock.now() - began == pytest.approx(ended)


async def test_timeout_bounds_all_attempts_together(anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare) -> None:
    began = clock.now()
    async with client_of(library, declare(*standard(timeout=Timeout(total=30, attempt=2))), HANG) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get("http://dep/", extensions=asking(timeout=3))
    assert clock.now() - began == pytest.approx(3)


async def test_timeout_holds_over_redirects(anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare) -> None:
    import anyio

    async def slowly(request: Any) -> Any:
        await anyio.sleep(2)
        return library.Response(302, headers={"location": "/again"})

    began = clock.now()
    async with client_of(library, declare(), slowly) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get("http://dep/", extensions=asking(timeout=5), follow_redirects=True)
    assert clock.now() - began == pytest.approx(5)


# -- retry ------------------------------------------------------------------------------------------------------------


async def test_retry_off_makes_one_attempt(
    anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare, listener: RecordingListener
) -> None:
    inner = FaultyTransport([library.ConnectError("refused"), 503, 429, 200])
    async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(declare(), inner)) as client:
        with pytest.raises(library.ConnectError):
            await client.get("http://dep/", extensions=asking(retry=False))
        for status in (503, 429):
            assert (await client.get("http://dep/", extensions=asking(retry=False))).status_code == status
    assert len(inner.requests) == 3
    assert [event.result for event in listener.of(RetryDecided)] == ["unrepeatable"] * 3


async def test_a_single_attempt_has_the_whole_total(anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare) -> None:
    """The attempt's own limit is there only where another attempt may follow."""
    began = clock.now()
    async with client_of(library, declare(*standard(timeout=Timeout(total=6, attempt=2))), HANG) as client:
        with pytest.raises(DeadlineExceeded):
            await client.get("http://dep/", extensions=asking(retry=False))
    assert clock.now() - began == pytest.approx(6)


async def test_retry_on_is_as_without(anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare) -> None:
    async with client_of(library, declare(), 503, 200) as client:
        assert (await client.get("http://dep/", extensions=asking(retry=True))).status_code == 200


# -- what policies are told -------------------------------------------------------------------------------------------


async def test_what_policies_are_told(anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare) -> None:
    looking = Looking()
    options: RequestOptions = {"criticality": Criticality.SHEDDABLE, "partition": "tenant-7", "route": "/orders/{id}", "retry": False}
    async with client_of(library, declare(looking), 200) as client:
        await client.get("http://dep/", extensions={"resilient": options})
        await client.get("http://dep/")
        with criticality(Criticality.CRITICAL_PLUS):
            await client.get("http://dep/", extensions=asking())
            await client.get("http://dep/", extensions=asking(criticality="sheddable_plus"))
            assert current_criticality() is Criticality.CRITICAL_PLUS
    assert looking.seen == [
        (Criticality.SHEDDABLE, "tenant-7", "/orders/{id}", True),
        (Criticality.CRITICAL, None, "/", False),
        (Criticality.CRITICAL_PLUS, None, "/", False),
        (Criticality.SHEDDABLE_PLUS, None, "/", False),
    ]


async def test_functions_are_told_the_criticality_of_their_work(anyio_backend: Any, clock: FakeClock, declare: Declare) -> None:
    looking = Looking()
    with criticality(Criticality.SHEDDABLE):
        declare(looking).call_sync(str)
    assert looking.seen == [(Criticality.SHEDDABLE, None, None, False)]


# -- mistakes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind", "message"),
    [
        ({"timout": 2}, ValueError, "there is no 'timout'; did you mean 'timeout'?"),
        ({"critical": 2}, ValueError, "there is no 'critical'; did you mean 'criticality'?"),
        ({"zzz": 2}, ValueError, "there is no 'zzz'; the keys are timeout, retry, criticality, partition, route"),
        ({7: 2}, ValueError, "there is no 7; the keys are"),
        ({"timeout": "2"}, TypeError, "['timeout'] must be a number, not '2'"),
        ({"timeout": 0}, ValueError, "['timeout'] must be above 0, not 0"),
        ({"timeout": float("inf")}, ValueError, "['timeout'] must be finite"),
        ({"retry": 0}, TypeError, "['retry'] must be True or False, not 0"),
        ({"criticality": 2}, TypeError, "['criticality']: expected a Criticality or one of sheddable, sheddable_plus, critical, c"),
        ({"criticality": "high"}, ValueError, "['criticality']: expected a Criticality or one of sheddable, sheddable_plus, criti"),
        ({"partition": 7}, TypeError, "['partition']: expected a string, got 7"),
        ({"partition": ""}, ValueError, "['partition']: expected 1 to 200 characters, got 0"),
        ({"route": "/" * 201}, ValueError, "['route']: expected 1 to 200 characters, got 201"),
        (["timeout"], TypeError, "expected a mapping with some of timeout,"),
    ],
)
@pytest.mark.parametrize("sync", [False, True], ids=["async", "sync"])
async def test_mistakes_are_told_by_the_key(
    anyio_backend: Any, library: Any, clock: FakeClock, declare: Declare, options: Any, kind: type[Exception], message: str, sync: bool
) -> None:
    dependency, inner = declare(), FaultyTransport([200])
    with pytest.raises(kind) as raised:
        if sync:
            with library.Client(transport=library.ours.ResilientTransport(dependency, inner)) as client:
                client.get("http://dep/", extensions={"resilient": options})
        else:
            async with library.AsyncClient(transport=library.ours.AsyncResilientTransport(dependency, inner)) as client:
                await client.get("http://dep/", extensions={"resilient": options})
    assert str(raised.value).startswith("extensions['resilient']") and message in str(raised.value)
    assert inner.requests == [] and dependency.bulkhead.in_use == 0
    assert sum(dependency.stats.snapshot().counts.values()) == 0
