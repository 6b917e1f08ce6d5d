from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest

from resilient.core.bounds import exception_classes, flag, fraction, not_negative, one_of, positive, whole


@pytest.mark.parametrize(
    ("check", "value"),
    [
        (positive, 1),
        (positive, 0.001),
        (not_negative, 0),
        (not_negative, 0.0),
        (fraction, 1),
        (fraction, 0.001),
        (whole, 1),
        (whole, 10**9),
    ],
)
def test_in_bounds(check: Callable[[str, Any], None], value: float) -> None:
    check("setting", value)


@pytest.mark.parametrize(
    ("check", "value", "error"),
    [
        (positive, 0, ValueError),
        (positive, -1, ValueError),
        (positive, math.inf, ValueError),
        (positive, math.nan, ValueError),
        (positive, "1", TypeError),
        (positive, True, TypeError),
        (positive, None, TypeError),
        (not_negative, -0.1, ValueError),
        (not_negative, math.nan, ValueError),
        (fraction, 0, ValueError),
        (fraction, 1.1, ValueError),
        (fraction, -0.1, ValueError),
        (fraction, math.nan, ValueError),
        (fraction, "0.5", TypeError),
        (whole, 0, ValueError),
        (whole, 1.0, TypeError),
        (whole, True, TypeError),
    ],
)
def test_out_of_bounds_names_the_parameter(check: Callable[[str, Any], None], value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=r"^setting must be .*, not "):
        check("setting", value)


def test_zero_is_a_fraction_where_it_is_allowed() -> None:
    fraction("jitter", 0, zero=True)
    with pytest.raises(ValueError, match="^jitter must be from 0 to 1, not -0.1$"):
        fraction("jitter", -0.1, zero=True)
    with pytest.raises(ValueError, match="^jitter must be above 0 to 1, not 0$"):
        fraction("jitter", 0)


def test_a_whole_number_has_its_own_least() -> None:
    whole("queue", 0, least=0)
    with pytest.raises(ValueError, match="queue must be at least 0, not -1"):
        whole("queue", -1, least=0)


def test_a_flag_is_no_number() -> None:
    flag("enforce", False)
    with pytest.raises(TypeError, match="enforce must be True or False, not 1"):
        flag("enforce", 1)  # type: ignore[arg-type]


def test_one_of() -> None:
    one_of("jitter", "full", ("full", "none"))
    with pytest.raises(ValueError, match="jitter must be one of full, none, not 'some'"):
        one_of("jitter", "some", ("full", "none"))


@pytest.mark.parametrize(
    ("value", "expected"),
    [(OSError, (OSError,)), ((OSError, KeyError), (OSError, KeyError)), ({OSError: None}, (OSError,)), ([], ())],
)
def test_exception_classes(value: Any, expected: tuple[type[Exception], ...]) -> None:
    assert exception_classes("on", value) == expected


@pytest.mark.parametrize("value", [KeyboardInterrupt, OSError("x"), "OSError", None, (OSError, int), (OSError, 5)])
def test_what_is_no_exception_class(value: Any) -> None:
    with pytest.raises(TypeError) as caught:
        exception_classes("on", value)
    assert str(caught.value) == f"on: expected exception classes, got {value!r}"
