"""Policies that do not fit each other are warned of where they are put together."""

from __future__ import annotations

import subprocess
import sys
import warnings
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

import resilient.httpx
from resilient import Bulkhead, CircuitBreaker, ConfigurationWarning, Dependency, Pipeline, Resilience, Timeout, standard


@pytest.mark.parametrize(
    ("policies", "words"),
    [
        ([CircuitBreaker(count_window=10)], "count_window=10 .* minimum_calls=20"),
        ([Timeout(total=30, attempt=10), CircuitBreaker(window=10)], "window=10 .* two attempts of 10"),
        ([Timeout(total=5), CircuitBreaker(window=9.5)], "window=9.5 .* two attempts of 5"),
        ([Timeout(total=5), CircuitBreaker(lease=5)], "lease=5 .* an attempt of 5"),
    ],
)
def test_a_known_mistake_is_warned_of(policies: list[Any], words: str) -> None:
    for make in (Pipeline, lambda *given: Dependency("shop", *given), lambda *given: Resilience().dependency("shop", *given)):
        with pytest.warns(ConfigurationWarning, match=words) as caught:
            make(*policies)
        assert len(caught) == 1 and caught[0].filename == __file__  # shown with the line that put them together
    assert str(caught[0].message).startswith("shop: ")
    assert issubclass(ConfigurationWarning, UserWarning)


@pytest.mark.parametrize("made_error", [partial(warnings.simplefilter, "error"), partial(warnings.filterwarnings, "error")])
def test_it_can_be_made_an_error(made_error: Any) -> None:
    resilience = Resilience()
    with warnings.catch_warnings():
        made_error(category=ConfigurationWarning)
        with pytest.raises(ConfigurationWarning, match="^shop: count_window=10"):
            resilience.dependency("shop", CircuitBreaker(count_window=10))
    assert "shop" not in resilience.dependencies


@pytest.mark.slow
def test_pytest_finds_it_by_its_name(tmp_path: Path) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error::resilient.ConfigurationWarning\n")
    program = tmp_path / "test_shop.py"
    program.write_text("import resilient\n\ndef test_shop():\n    resilient.Pipeline(resilient.CircuitBreaker(count_window=10))\n")
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", str(program)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert ended.returncode == 1
    assert "resilient.errors.ConfigurationWarning: count_window=10" in ended.stdout


@pytest.mark.parametrize(
    "policies",
    [
        standard(),
        standard(timeout=Timeout(total=100, attempt=60)),
        [CircuitBreaker(count_window=20)],
        [CircuitBreaker(window=1)],
        [Timeout(total=5), CircuitBreaker(window=10)],
        [Timeout(total=50, attempt=20), CircuitBreaker(count_window=100)],
        [Timeout(total=50, attempt=20), CircuitBreaker(fail_max=5)],
        [Timeout(total=float("inf"), attempt=float("inf")), CircuitBreaker(window=10)],
        [Timeout(total=5), CircuitBreaker(lease=6)],
    ],
)
def test_what_is_fine_is_not(policies: Any) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Pipeline(*policies)


def transport(target: Any, connections: int | None) -> None:
    resilient.httpx.AsyncResilientTransport(target, limits=httpx.Limits(max_connections=connections))


def test_a_bulkhead_larger_than_the_pool_below_it() -> None:
    resilience = Resilience()
    declared = resilience.dependency("shop", Bulkhead(max_concurrent=50))
    for target in (declared, resilience, Pipeline(Bulkhead(max_concurrent=50))):
        with pytest.warns(ConfigurationWarning, match="max_concurrent=50 .* the 10 connections"):
            transport(target, 10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        transport(declared, 50)
        transport(declared, None)
        transport(Dependency("default"), 10)  # nobody chose its 100
