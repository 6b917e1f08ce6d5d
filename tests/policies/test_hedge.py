"""Hedge: when the second attempt is sent, whose answer is taken, and what becomes of the others. Decisions: tests/core."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable
from typing import Any

import anyio
import pytest

from resilient import (
    Bulkhead,
    BulkheadFull,
    CircuitBreaker,
    DeadlineExceeded,
    Dependency,
    Hedge,
    Outcome,
    Pipeline,
    Retry,
    RetryBudget,
    Timeout,
    standard,
)
from resilient.call import Call
from resilient.core.backoff import Constant
from resilient.events import HedgeDecided
from resilient.protocols import Inner
from resilient.testing import FakeClock, RecordingListener

from .driver import Script, World, at, only_awaited, only_in_threads, takes


def results(world: World) -> list[str]:
    return [event.result for event in world.listener.of(HedgeDecided)]


def counts(pipeline: Pipeline) -> dict[str, int]:
    return {word: count for word, count in pipeline.stats.snapshot().counts.items() if count}


# -- when -------------------------------------------------------------------------------------------------------------


def test_a_quick_call_is_made_once(world: World) -> None:
    script = Script(takes(0.09, "quick"))
    pipeline = world.pipeline(Hedge(delay=0.1))
    assert world.call(pipeline, script) == "quick"
    assert script.asked == [0.0] and results(world) == [] and world.now == pytest.approx(0.09)


def test_a_slow_call_is_made_twice_and_the_quicker_one_answers(world: World) -> None:
    script = Script(takes(3, "slow"), takes(0.2, "quick"))
    (ended,) = world.together(world.pipeline(Hedge(delay=0.1)), (0, *[script]) if False else (0, takes(3)))  # warm, one script below
    assert ended.at == pytest.approx(3)
    started = world.now
    assert world.call(world.pipeline(Hedge(delay=0.1)), script) == "quick"
    assert [moment - started for moment in script.asked] == pytest.approx([0, 0.1])
    assert results(world)[-1] == "won"
