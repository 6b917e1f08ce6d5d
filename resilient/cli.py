"""The console script `resilient`."""

from __future__ import annotations

import sys

_EXTRA = {"click", "fastapi", "h11", "rich", "uvicorn"}


def main() -> None:
    """Runs the command line; without the packages of the extra `demo` it says how to get them and exits with 2."""
    try:
        from .demo.command import command
    except ModuleNotFoundError as missing:
        if (missing.name or "").partition(".")[0] not in _EXTRA:
            raise
        print(f"This command needs {missing.name}: pip install 'resilient-asgi[demo]'", file=sys.stderr)
        raise SystemExit(2) from None
    command(prog_name="resilient")


if __name__ == "__main__":
    main()
