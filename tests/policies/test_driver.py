"""The harness itself: a test that could not tell a difference would prove nothing."""

from __future__ import annotations

import pytest

from resilient import Bulkhead

from .driver import Script, World, at, takes


def test_time_passes_only_virtually(world: World) -> None:
    pipeline = world.pipeline()
    assert world.call(pipeline, takes(3600)) == "ok"
    assert world.now == pytest.approx(3600)
    world.sleep(5)
    assert world.now == pytest.approx(3605)


def test_a_script_is_played_item_by_item(world: World) -> None:
    pipeline = world.pipeline()
    script = Script("first", ValueError, KeyError("k"), takes(1, lambda: "last"))
    assert world.call(pipeline, script) == "first"
    assert isinstance(world.fails(pipeline, script), ValueError)
    assert isinstance(world.fails(pipeline, script), KeyError)
    assert world.call(pipeline, script) == "last"
    assert world.call(pipeline, script) == "last"
    assert script.asked == pytest.approx([0, 0, 0, 0, 1])


def test_calls_overlap(world: World) -> None:
    seen = []
    ends = world.together(
        world.pipeline(), (0, takes(3)), (1, takes(1)), at(2.5, lambda: seen.append(world.now)), (0.5, takes(5, ValueError))
    )
    assert [end.at for end in ends] == pytest.approx([3, 2, 5.5])
    assert [end.value for end in ends] == ["ok", "ok", None]
    assert isinstance(ends[2].error, ValueError)
    assert seen == pytest.approx([2.5])


def test_a_wait_ends_when_it_is_ended(world: World) -> None:
    pipeline = world.pipeline(Bulkhead(max_concurrent=1))
    ends = world.together(pipeline, (0, takes(3)), (1, takes(1)), (1.5, takes(1)))
    assert [end.at for end in ends] == pytest.approx([3, 4, 5])
