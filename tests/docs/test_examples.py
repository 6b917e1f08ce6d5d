"""Everything that the documentation shows is run: each file of docs/examples, and each ```python block of each page.

The blocks of a page share their names and run from top to bottom. `await` may stand in them as in `python -m asyncio`; a
block without it is run as a plain program is, with no event loop around it. One that is not to be run is marked ```py.
Tables are compared with the code, and links are followed.
"""

from __future__ import annotations

import ast
import asyncio
import inspect
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
EXAMPLES = DOCS / "examples"
FIRST = EXAMPLES / "first_program.py"
RUNNER = ROOT / "tests" / "docs" / "run_first_program.py"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]

BLOCK = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)
LINK = re.compile(r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)")


def relative(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(page: Path) -> list[tuple[int, str]]:
    """The first line number and the text of each block to run. The first program has a test of its own."""
    text = page.read_text(encoding="utf-8")
    found = [(text.count("\n", 0, match.start(1)), match[1]) for match in BLOCK.finditer(text)]
    return [(line, block) for line, block in found if block != FIRST.read_text()]


def run(page: Path) -> None:
    # A module of its own, for those who look annotations up by the module's name.
    module = type(sys)(f"page_{page.stem}")
    sys.modules[module.__name__] = module
    try:
        with asyncio.Runner() as runner:
            for line, block in blocks(page):
                code = compile("\n" * line + block, page, "exec", flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
                if code.co_flags & inspect.CO_COROUTINE:
                    runner.run(eval(code, vars(module)))
                else:
                    exec(code, vars(module))
    finally:
        del sys.modules[module.__name__]


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=relative)
def test_blocks_of_a_page(page: Path) -> None:
    run(page)


@pytest.mark.parametrize("example", [path for path in sorted(EXAMPLES.glob("*.py")) if path != FIRST], ids=relative)
def test_example(example: Path) -> None:
    runpy.run_path(str(example), run_name="__main__")


def test_first_program() -> None:
    done = subprocess.run([sys.executable, "-W", "error", RUNNER, FIRST], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert "does what the README says" in done.stdout


def test_the_readme_shows_the_first_program() -> None:
    assert FIRST.read_text() in (match[1] for match in BLOCK.finditer((ROOT / "README.md").read_text(encoding="utf-8")))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CHANGELOG.md"], ids=relative)
def test_links_lead_somewhere(page: Path) -> None:
    for target in LINK.findall(page.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path).resolve() if path else page
        assert linked.exists(), f"{relative(page)} links to {target}"
        if anchor:
            assert anchor in anchors(linked), f"{relative(page)} links to {target}"


def anchors(page: Path) -> set[str]:
    """What GitHub and MkDocs make of the headings."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
