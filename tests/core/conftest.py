"""What `python -m tests mutants` asks of the tests: the same examples each time, and soon an answer."""

from __future__ import annotations

import os
import sys

import pytest
from hypothesis import Phase, settings

MUTANTS = "mutants"

# Whether a test fails is asked, not which example is the smallest that it fails with.
settings.register_profile(MUTANTS, database=None, deadline=None, derandomize=True, phases=[Phase.explicit, Phase.generate])


def forget() -> None:
    """What was remembered of calls before the change is no answer of the mutant's."""
    for name in [name for name in sys.modules if name.startswith("resilient.core.")]:
        for kept in vars(sys.modules[name]).values():
            if hasattr(kept, "cache_clear"):
                kept.cache_clear()


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The first failure ends the run: a module's own tests come first, and those of many examples last."""
    if config.getoption("--hypothesis-profile", default=None) == MUTANTS:
        forget()
        # resilient.core.window.x_name__mutmut_1 is tested by test_window.py.
        own = f"test_{os.environ.get('MUTANT_UNDER_TEST', '').rpartition('.')[0].rpartition('.')[2]}"
        items.sort(key=lambda item: (item.get_closest_marker("hypothesis") is not None, item.path.stem != own))
