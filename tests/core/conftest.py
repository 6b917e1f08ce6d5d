"""What `python -m tests mutants` asks of the tests: the same examples each time, and soon an answer."""

from __future__ import annotations

import pytest
from hypothesis import Phase, settings

MUTANTS = "mutants"

# Whether a test fails is asked, not which example is the smallest that it fails with.
settings.register_profile(MUTANTS, database=None, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Tests of many examples come last, for the first failure ends the run."""
    if config.getoption("--hypothesis-profile", default=None) == MUTANTS:
        items.sort(key=lambda item: item.get_closest_marker("hypothesis") is not None)
