"""Each recipe's page shows the program that the tests run, and all of it."""

from __future__ import annotations

from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize(
    ("page", "program"),
    [("llm", "llm"), ("redis", "redis_cache"), ("sql", "sql"), ("grpc", "grpc_calls"), ("flask", "flask_app"), ("django", "django_app")],
)
def test_the_page_shows_the_program(page: str, program: str) -> None:
    shown = (DOCS / "examples" / f"{program}.py").read_text(encoding="utf-8")
    assert f"```python\n{shown}```\n" in (DOCS / "recipes" / f"{page}.md").read_text(encoding="utf-8")
