"""Bulkheads of resilience4j and cockatiel."""

from __future__ import annotations

import asyncio
import re

import pytest

from resilient import Bulkhead, BulkheadFull, Pipeline
from resilient.runtime import drive
from resilient.testing import FakeClock

from .records import Record, records


@pytest.mark.parametrize("record", records("bulk"))
def test_record(record: Record) -> None:
    {"bulkhead.semaphore": semaphore, "bulkhead.queue.order": order}[record["feature"]](record)


def semaphore(record: Record) -> None:
    config = record["config"]
    bulkhead = Bulkhead(max_concurrent=config["max_concurrent"], queue=0, max_wait=config["max_wait"])
    pipeline = Pipeline(bulkhead)
    out, events = {}, []
    for step in record["sequence"]:
        expect = step["expect"]
        if step["op"] == "acquire":
            call = pipeline.begin(int, (), {}, sync=True)
            try:
                drive(pipeline.open(call))
                out[step["id"]] = call
                events.append("permitted")
            except BulkheadFull:
                events.append("rejected")
            assert (step["id"] in out) is expect["permitted"]
        else:
            call = out.pop(step["id"])
            pipeline.close(call, call.outcome_of(0), None)
            events.append("finished")
        if "available" in expect:
            assert bulkhead.limit - bulkhead.in_use == expect["available"]
    assert events == record["expected"]["events"]


def order(record: Record) -> None:
    clock, config = FakeClock(), record["config"]
    step = float(re.fullmatch(r"(\d+) ms \* index", config["call_duration"])[1]) / 1000  # type: ignore[index]
    pipeline = Pipeline(Bulkhead(max_concurrent=config["max_concurrent"], queue=config["queue"]), clock=clock)
    seen: list[str] = []
    rejected: list[str] = []

    async def work(index: str) -> None:
        seen.append(f"{index} enter")
        await asyncio.sleep(step * int(index))
        seen.append(f"{index} exit")

    async def one(index: str) -> None:
        try:
            await pipeline.call(work, index)
        except BulkheadFull:
            rejected.append(index)

    async def main() -> None:
        async with asyncio.TaskGroup() as group:
            for begun in record["sequence"]:
                group.create_task(one(begun["id"]))

    with asyncio.Runner(loop_factory=clock.loop) as runner:
        runner.run(main())
    assert seen == record["expected"]["order"]
    assert rejected == record["expected"]["rejected"]
