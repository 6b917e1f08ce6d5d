"""The console script `resilient`."""

from __future__ import annotations

import sys
from importlib.util import find_spec

EXTRA = ("click", "fastapi", "h11", "rich", "uvicorn")


def main() -> None:
    """Runs the command line; without the packages of the extra `demo` it says how to get them and exits with 2."""
    missing = [name for name in EXTRA if find_spec(name) is None]
    if missing:
        sys.stderr.write(f"The command line needs {', '.join(missing)}: pip install 'resilient-asgi[demo]'\n")
        raise SystemExit(2)

    from .check.command import check
    from .demo.command import command
    from .top.command import top

    command.add_command(check)
    command.add_command(top)
    command(prog_name="resilient")


if __name__ == "__main__":
    main()
