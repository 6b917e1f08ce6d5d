"""What a setting may be. Every error names the parameter, so that it can be found in the program that gave it.

Rules of this file: a function raises for a value out of bounds, TypeError for the wrong kind of thing, ValueError for
the wrong amount, and returns nothing unless what may be given in several forms. NaN is never in bounds, infinity never
either.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

__all__ = ["exception_classes", "flag", "fraction", "not_negative", "one_of", "positive", "whole"]


def _number(name: str, value: float) -> None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise ValueError(f"{name} must be finite, not {value!r}")


def positive(name: str, value: float) -> None:
    """Require a finite number above zero."""
    _number(name, value)
    if value <= 0:
        raise ValueError(f"{name} must be above 0, not {value!r}")


def not_negative(name: str, value: float) -> None:
    """Require a finite number that is zero or more."""
    _number(name, value)
    if value < 0:
        raise ValueError(f"{name} must be 0 or more, not {value!r}")


def fraction(name: str, value: float, *, zero: bool = False) -> None:
    """Require a number in (0, 1], or in [0, 1] with `zero`."""
    _number(name, value)
    if value > 1 or value < 0 or (value == 0 and not zero):
        raise ValueError(f"{name} must be {'from 0' if zero else 'above 0'} to 1, not {value!r}")


def whole(name: str, value: int, *, least: int = 1) -> None:
    """Require a whole number of at least `least`."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    if value < least:
        raise ValueError(f"{name} must be at least {least}, not {value!r}")


def flag(name: str, value: bool) -> None:
    """Require True or False."""
    if not isinstance(value, bool):
        raise TypeError(f"{name} must be True or False, not {value!r}")


def one_of(name: str, value: str, words: tuple[str, ...]) -> None:
    """Require one of a few words."""
    if value not in words:
        raise ValueError(f"{name} must be one of {', '.join(words)}, not {value!r}")


def exception_classes(name: str, value: Any) -> tuple[type[Exception], ...]:
    """Require an exception class, or any number of them in anything that can be iterated over; once, so they are returned."""
    kinds = tuple(value) if isinstance(value, Iterable) else (value,)
    if not all(isinstance(kind, type) and issubclass(kind, Exception) for kind in kinds):
        raise TypeError(f"{name}: expected exception classes, got {value!r}")
    return kinds
