"""Finds the `Resilience` behind `module:app`."""

from __future__ import annotations

import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from ..errors import ConfigurationWarning
from ..resilience import Resilience

__all__ = ["TargetError", "found"]

DEEPEST = 100  # middlewares around each other that are looked through


class TargetError(Exception):
    """There is nothing to be checked."""


def found(target: str) -> tuple[Resilience, Any, list[str]]:
    """The service that `target` names, its app if it is one, and what its making warned of.

    Raises:
        TargetError: it can't be imported, or has no `Resilience`; the message says why.
    """
    name, _, path = target.partition(":")
    sys.path.insert(0, os.getcwd())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always", ConfigurationWarning)
        try:
            thing: Any = importlib.import_module(name)
            for part in (path or "app").split("."):
                thing = getattr(thing, part)
        except Exception as error:
            raise TargetError(f"{target} cannot be imported: {type(error).__name__}: {error}") from error
    mistakes = [str(one.message) for one in told if issubclass(one.category, ConfigurationWarning)]
    if isinstance(thing, Resilience):
        return thing, None, mistakes
    known = {id(one): one for one in _behind(thing)}
    if len(known) != 1:
        raise TargetError(f"{target} has {len(known) or 'no'} Resilience; name one itself, as in module:resilience")
    return next(iter(known.values())), thing, mistakes


def _behind(app: Any) -> Iterator[Resilience]:
    for _ in range(DEEPEST):
        own = getattr(app, "resilience", None)
        if isinstance(own, Resilience):
            yield own
        for middleware in getattr(app, "user_middleware", ()):
            yield from (one for one in (*middleware.args, *middleware.kwargs.values()) if isinstance(one, Resilience))
        app = getattr(app, "app", None)
        if app is None:
            return
