"""Context that travels with the jobs of Celery, RQ and arq: through their own messages, without a server.

Those that are not installed are left out; what is put into a message is plain JSON and tested as such in test_travel.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Iterator
from typing import Any

import pytest

from resilient import Criticality, Deadline
from resilient.context import criticality, deadline_scope, dump, load

from .test_travel import TRACE, seen


@pytest.fixture
def in_force() -> Iterator[None]:
    """What the web request has that sends the job."""
    with deadline_scope(Deadline.after(60)), criticality(Criticality.SHEDDABLE):
        yield


def work(order: int) -> tuple[int, Any]:
    """What a job does, in a worker: tell what is in force there."""
    return order, seen()


def assert_carried(result: Any) -> None:
    order, (remaining, value, trace) = result
    assert order == 7 and 50 < remaining <= 60 and value == Criticality.SHEDDABLE and trace == TRACE


@pytest.mark.filterwarnings("ignore")  # Celery's
def test_celery(in_force: None) -> None:
    """In a header of the message; over kombu's broker in memory, to a worker of Celery's own."""
    celery = pytest.importorskip("celery")
    testing = pytest.importorskip("celery.contrib.testing.worker")
    app = celery.Celery("jobs", broker="memory://", backend="cache+memory://", set_as_current=False)
    app.conf.update(task_serializer="json", result_serializer="json", accept_content=["json"])

    class Carried(celery.Task):  # type: ignore[misc, name-defined]
        def apply_async(self, args: Any = None, kwargs: Any = None, *, headers: Any = None, **options: Any) -> Any:
            return super().apply_async(args, kwargs, headers={**(headers or {}), "resilient": dump(trace=TRACE)}, **options)

        def __call__(self, *args: Any, **kwargs: Any) -> Any:
            with load((self.request.headers or {}).get("resilient")):
                return super().__call__(*args, **kwargs)

    got: list[Any] = []

    @app.task(base=Carried, name="work")  # type: ignore[untyped-decorator]
    def job(order: int) -> None:
        got.append(work(order))

    def left_alone(**_: Any) -> None:
        """Celery configures the root logger, also for the tests after this one, unless somebody else says that he does."""

    setup_logging = pytest.importorskip("celery.signals").setup_logging
    setup_logging.connect(left_alone)
    try:
        with testing.start_worker(app, pool="solo", perform_ping_check=False, shutdown_timeout=20):
            job.delay(7).get(timeout=20)
    finally:
        setup_logging.disconnect(left_alone)
    assert_carried(got[0])


def test_rq(in_force: None) -> None:
    """In the job's meta."""
    rq = pytest.importorskip("rq")
    redis = pytest.importorskip("redis")
    connection = redis.Redis()  # it connects only when it is asked for something
    job = rq.job.Job.create(work, args=(7,), meta={"resilient": dump(trace=TRACE)}, connection=connection)
    stored = job.to_dict()

    taken = rq.job.Job("other", connection=connection)
    encode = redis.connection.Encoder("utf-8", "strict", decode_responses=False).encode
    taken.restore({encode(key): encode(value) for key, value in stored.items()})

    def worker() -> Any:
        with load(taken.meta.get("resilient")):
            return taken.func(*taken.args)

    assert_carried(contextvars.Context().run(worker))


def test_arq(in_force: None) -> None:
    """In a keyword of the job."""
    jobs = pytest.importorskip("arq.jobs")

    async def job(ctx: dict[str, Any], order: int, resilient: Any = None) -> Any:
        with load(resilient):
            return work(order)

    message = jobs.serialize_job("job", (7,), {"resilient": dump(trace=TRACE)}, 1, 0)
    name, args, kwargs, *_ = jobs.deserialize_job_raw(message)
    assert name == "job"
    assert_carried(contextvars.Context().run(asyncio.run, job({}, *args, **kwargs)))
