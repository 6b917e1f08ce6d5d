"""One setting as it was given: its value, where it comes from, and how much of it may be shown."""

from __future__ import annotations

import difflib
import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

__all__ = ["MASK", "Given", "Path", "SettingsError", "concealed", "masked", "nearest", "unknown"]

Path = tuple[str, ...]
SECRET = re.compile(r"secret|password|passwd|token|credential|api_?key", re.IGNORECASE)
USERINFO = re.compile(r"(?<=://)[^\s/?#]*@")
# Parameters in the query of a URL that are no less secret: redis-py takes a password there too.
QUERY = re.compile(r"(?<=[?&])([^=&\s]*(?:secret|password|passwd|token|key)[^=&\s]*)=[^&\s#]*", re.IGNORECASE)
MASK = "***"
LONGEST = 100  # characters of a value that are shown


class SettingsError(ValueError):
    """A file or the environment says something that cannot be done. Nothing was changed then.

    Attributes:
        key: the setting, such as `dependencies.catalog.retry.attempts`; the first one, where there are several.
        source: the file or the environment variable that said so.
    """

    def __init__(self, message: str, *, key: str = "", source: str = "") -> None:
        super().__init__(message)
        self.key = key
        self.source = source

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self.args, {"key": self.key, "source": self.source}


@dataclass(frozen=True, slots=True, repr=False)
class Given:
    """A value and its source.

    Attributes:
        value: as the file had it, or as the variable's text reads in TOML.
        source: the file or the variable.
        text: the variable's text.
    """

    value: Any
    source: str
    text: str | None = None

    def __repr__(self) -> str:
        return f"<given by {self.source}>"  # never the value: nobody here knows whether it is a secret

    def refused(self, key: str, why: str) -> SettingsError:
        return SettingsError(f"{key}: {why} (given by {self.source})", key=key, source=self.source)

    def same(self, other: Given | None) -> bool:
        # True is 1, and yet it's another setting.
        return other is not None and type(self.value) is type(other.value) and repr(self.value) == repr(other.value)


def masked(text: str) -> str:
    """A text without the users and passwords of the URLs in it."""
    return QUERY.sub(rf"\1={MASK}", USERINFO.sub(f"{MASK}@", text))


def concealed(key: str, value: Any) -> str:
    """A value as it may be shown: nothing of a secret, and of a URL neither user nor password."""
    if SECRET.search(key.rpartition(".")[2]) and value is not None:
        return MASK
    told = masked(repr(value))
    return told if len(told) <= LONGEST else told[: LONGEST - 3] + "..."


def nearest(name: str, allowed: Iterable[str]) -> str | None:
    """The allowed name that was probably meant."""
    return next(iter(difflib.get_close_matches(name, list(allowed), 1)), None)


def unknown(key: str, what: str, name: str, allowed: Collection[str], source: str) -> SettingsError:
    """The refusal of a name that nobody knows."""
    close = nearest(name, allowed)
    meant = f"; did you mean {close}?" if close else "."
    return SettingsError(
        f"{key}: {what} {name!r}{meant} Allowed are {', '.join(sorted(allowed))} (given by {source})", key=key, source=source
    )
