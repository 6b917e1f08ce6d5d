"""Keys as they are pressed, where there is a terminal to press them in."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import time
from collections.abc import Callable, Iterator

try:
    import termios
    import tty
except ImportError:  # Windows: there Ctrl-C is the only key
    termios = None  # type: ignore[assignment]

__all__ = ["keys"]

NAMES = {"\x1b[A": "up", "\x1b[B": "down", "\x1b[5~": "page up", "\x1b[6~": "page down", "\x1bOA": "up", "\x1bOB": "down", "\x03": "q"}


@contextlib.contextmanager
def keys() -> Iterator[Callable[[float], str]]:
    """A function that waits so many seconds for a key, and returns its name; empty if none was pressed.

    The terminal is as it was before when the block is left.
    """
    if termios is None or not sys.stdin.isatty():
        yield _none
        return
    number = sys.stdin.fileno()
    before = termios.tcgetattr(number)
    try:
        tty.setcbreak(number)
        yield lambda seconds: _pressed(number, seconds)
    finally:
        termios.tcsetattr(number, termios.TCSADRAIN, before)


def _none(seconds: float) -> str:
    time.sleep(seconds)
    return ""


def _pressed(number: int, seconds: float) -> str:
    try:
        ready, _, _ = select.select([number], [], [], seconds)
    except InterruptedError:  # the window was resized
        return ""
    if not ready:
        return ""
    text = os.read(number, 16).decode("utf-8", "replace")
    return NAMES.get(text, text[:1] if text else "q")  # nothing to read any more: the terminal is gone
