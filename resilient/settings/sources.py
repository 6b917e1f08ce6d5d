"""Where settings are read: a TOML file or a mapping, and over it the environment."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator, Mapping
from typing import Any

from .schema import BACKOFFS, CHECK, DEPENDENCY, DRAIN, FEATURE, KINDS, PARTS, ROOT, STORES, converted, parameters
from .values import Given, Path, SettingsError, concealed, nearest, unknown

__all__ = ["Settings", "Table"]

Table = dict[Path, Given]
PREFIX = "RESILIENT_"
TABLES = ("dependencies", "features", "checks")
SECTIONS = (*TABLES, "store", "drain")
SWITCHES = ("enabled", "chaos")  # read where they are used: they are older than settings
MAPPING = "settings="  # what errors call a mapping, as they call a file by its path


class Settings:
    """What a file and the environment say about the dependencies, features and checks of a service.

    Args:
        source: the path of a TOML file, or what such a file would hold as a mapping; None for the environment alone.
        environ: variables; by default those of the process. `RESILIENT_CATALOG__RETRY__ATTEMPTS=2` stands over the file's
            `[dependencies.catalog.retry] attempts = 2`, and that over the program.

    Raises:
        SettingsError: something in it is unknown or of the wrong kind; the message names it, its source, and what is allowed.
        TypeError: `source` is neither a path nor a mapping.
    """

    def __init__(
        self, source: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, environ: Mapping[str, str] | None = None
    ) -> None:
        if source is not None and not isinstance(source, str | os.PathLike | Mapping):
            raise TypeError(f"settings: expected the path of a TOML file, a mapping or a Settings, got {type(source).__name__}")
        self.source = source
        self._environ = environ
        self.stamp: Any = self.look()
        self.root: Table = {}
        self.store: Table = {}
        self.drain: Table = {}
        self._tables: dict[str, dict[str, Table]] = {section: {} for section in TABLES}
        # By the name as a variable has it: upper case, and an underscore for whatever is no letter and no digit.
        self._variables: dict[str, dict[str, Table]] = {section: {} for section in TABLES}
        label = MAPPING if source is None or isinstance(source, Mapping) else os.fspath(source)
        for name, value in _content(source).items():
            self._take_section(name, value, label)
        for variable, text in (os.environ if environ is None else environ).items():
            if variable.startswith(PREFIX):
                self._take_variable(variable, text)
        self._check_store()

    def __repr__(self) -> str:
        return f"<Settings from {self.origin}>"

    @property
    def origin(self) -> str:
        """Where they come from, in words."""
        # Neither values nor a mapping: both may hold secrets.
        return "a mapping" if isinstance(self.source, Mapping) else "the environment" if self.source is None else os.fspath(self.source)

    def look(self) -> tuple[int, int] | None:
        """When the file was changed last, and its size; None where there is no file."""
        if self.source is None or isinstance(self.source, Mapping):
            return None
        try:
            found = os.stat(self.source)
        except OSError:
            return None
        return found.st_mtime_ns, found.st_size

    def again(self) -> Settings:
        """The same sources, read anew."""
        return Settings(self.source, environ=self._environ)

    # -- what they say --------------------------------------------------------------------------------------------

    def dependency(self, name: str) -> Table:
        """What is said about a dependency: paths below its name, the environment over the file."""
        return self._said("dependencies", name)

    def feature(self, name: str) -> Table:
        """What is said about a feature, likewise."""
        return self._said("features", name)

    def check(self, name: str) -> Table:
        """What is said about a check, likewise."""
        return self._said("checks", name)

    def _said(self, section: str, name: str) -> Table:
        return {**self._tables[section].get(name, {}), **self._variables[section].get(slug(name), {})}

    def unused(
        self, dependencies: Mapping[str, object], features: Mapping[str, object], checks: Mapping[str, object]
    ) -> list[SettingsError]:
        """A refusal for each name that is spoken of and that nobody has declared; a misspelt one, most likely."""
        declared = zip(TABLES, (dependencies, features, checks), strict=True)
        return [error for section, named in declared for error in self._unused(section, named)]

    def _unused(self, section: str, declared: Mapping[str, object]) -> Iterator[SettingsError]:
        slugs = {slug(name): name for name in declared}
        for name, table in self._tables[section].items():
            if name not in declared:
                source = next((given.source for given in table.values()), "")
                yield unknown(f"{section}.{name}", "nothing declared is called", name, declared, source)
        for name, table in self._variables[section].items():
            if name not in slugs:
                source = next((given.source for given in table.values()), "")
                yield unknown(f"{section}.{name}", "nothing declared is called", name, slugs, source)

    # -- reading --------------------------------------------------------------------------------------------------

    def _take_section(self, name: Any, value: Any, source: str) -> None:
        if name in ROOT:
            self.root[name,] = _leaf(Given(value, source), name, ROOT[name])
            return
        if name not in SECTIONS:
            raise unknown(str(name), "no such setting or table as", str(name), (*ROOT, *SECTIONS), source)
        if not isinstance(value, Mapping):
            raise Given(value, source).refused(name, "expected a table")
        if name == "store":
            self.store.update({(str(key),): Given(one, source) for key, one in value.items()})
            return
        if name == "drain":
            for key, one in value.items():
                self._take_drain(str(key), Given(one, source))
            return
        tables = self._tables[name]
        for key, table in value.items():
            if not isinstance(key, str) or not isinstance(table, Mapping):
                raise Given(table, source).refused(f"{name}.{key}", "expected a table")
            tables[key] = dict(_flat(name, f"{name}.{key}", table, source))

    def _take_variable(self, variable: str, text: str) -> None:
        words = variable.removeprefix(PREFIX).lower().split("__")
        value = Given(_parsed(text), variable, text)
        if len(words) == 1:
            self._take_root(words[0], value)
            return
        section = words.pop(0) if words[0] in SECTIONS else "dependencies"
        if section == "store":
            self.store[".".join(words),] = value
            return
        if section == "drain":
            self._take_drain(".".join(words), value)
            return
        if len(words) == 1 and not isinstance(value.value, Mapping):
            raise value.refused(f"{section}.{words[0]}", "expected a setting of it: two more underscores and its name")
        name, path = words[0], tuple(words[1:])
        table = self._variables[section].setdefault(name, {})
        table.update(_below(section, f"{section}.{name}", path, value))

    def _take_drain(self, name: str, value: Given) -> None:
        if name not in DRAIN:
            raise unknown(f"drain.{name}", "a drain has no setting", name, DRAIN, value.source)
        self.drain[name,] = _leaf(value, f"drain.{name}", DRAIN[name])

    def _take_root(self, name: str, value: Given) -> None:
        if name in ROOT:
            if name not in SWITCHES:
                self.root[name,] = _leaf(value, name, ROOT[name])
            return
        close = nearest(name, ROOT)
        # Others have variables that begin so too (Kubernetes makes some for a service of that name); a slip of the pen is ours.
        if close is not None:
            raise unknown(name, "no such setting as", name, ROOT, value.source)

    def _check_store(self) -> None:
        if not self.store:
            return
        given = self.store.pop(("kind",), None)
        if given is None:
            one = next(iter(self.store.values()))
            raise one.refused("store.kind", f"is missing; allowed are {', '.join(STORES)}")
        if not isinstance(given.value, str) or given.value not in STORES:
            raise unknown("store.kind", "no such store as", str(given.value), STORES, given.source)
        known = parameters(STORES[given.value])
        for (name,), one in self.store.items():
            if name not in known:
                raise unknown(f"store.{name}", f"a {given.value} store has no setting", name, known, one.source)
        checked: Table = {(name,): _leaf(one, f"store.{name}", known[name]) for (name,), one in self.store.items()}
        self.store = {("kind",): given, **checked}


def slug(name: str) -> str:
    """A name as an environment variable can have it, in lower case."""
    return re.sub(r"[^a-z0-9]", "_", name.lower())


def _content(source: Any) -> Mapping[str, Any]:
    if source is None or isinstance(source, Mapping):
        return source or {}
    try:
        with open(source, "rb") as file:
            return tomllib.load(file)
    except OSError as error:
        raise SettingsError(f"settings: {os.fspath(source)} cannot be read: {error.strerror or error}", source=os.fspath(source)) from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        # The place, and none of the text: it may be the line with the password.
        told = str(error) if isinstance(error, tomllib.TOMLDecodeError) else "it isn't UTF-8"
        raise SettingsError(f"settings: {os.fspath(source)} is no TOML: {told}", source=os.fspath(source)) from None


def _parsed(text: str) -> Any:
    """What a variable's text is in TOML: a number, a switch, a list, a table; or else the text itself."""
    try:
        found = tomllib.loads(f"value = {text}")
    except (tomllib.TOMLDecodeError, ValueError, RecursionError):
        return text
    return found["value"] if len(found) == 1 else text


# -- tables as paths --------------------------------------------------------------------------------------------------


def _flat(section: str, key: str, table: Mapping[Any, Any], source: str) -> Iterator[tuple[Path, Given]]:
    for name, value in table.items():
        yield from _below(section, key, (str(name),), Given(value, source))


def _below(section: str, key: str, path: Path, given: Given) -> Iterator[tuple[Path, Given]]:
    """The settings that are said at a path: one, or those of a table."""
    if isinstance(given.value, Mapping) and _is_table(section, path):
        for name, value in given.value.items():
            yield from _below(section, key, (*path, str(name)), Given(value, given.source))
        return
    if section == "dependencies" and path == ("timeout",):
        path = ("timeout", "total")
    told = ".".join((key, *path))
    yield path, _leaf(given, told, _annotation(section, key, path, given))


def _is_table(section: str, path: Path) -> bool:
    if not path:
        return True
    if section != "dependencies" or path[0] not in KINDS:
        return False
    return len(path) == 1 or (len(path) == 2 and _part(path) != {})


def _part(path: Path) -> dict[str, str]:
    """The parameters of a part of a policy that is a table itself: a budget, a backoff."""
    annotation = parameters(KINDS[path[0]]).get(path[1], "")
    if "Backoff" in annotation:
        return {"kind": "str", **{name: one for kind in BACKOFFS.values() for name, one in parameters(kind).items()}}
    return next((parameters(kind) for name, kind in PARTS.items() if name in annotation), {})


def _annotation(section: str, key: str, path: Path, given: Given) -> str:
    told = ".".join((key, *path))
    head = path[0] if path else ""
    if section != "dependencies":
        what, known = ("feature", FEATURE) if section == "features" else ("check", CHECK)
        if len(path) != 1 or head not in known:
            raise unknown(told, f"a {what} has no setting", ".".join(path), known, given.source)
        return known[head]
    if len(path) == 1 and head in DEPENDENCY:
        return DEPENDENCY[head]
    if head not in KINDS:
        raise unknown(told, "a dependency has no setting or policy", head, {*DEPENDENCY, *KINDS}, given.source)
    kind = KINDS[head]
    known = parameters(kind)
    if len(path) == 1:
        raise given.refused(told, f"expected a table with settings of {kind.__name__}: {', '.join(sorted(known))}")
    if path[1] not in known:
        raise unknown(told, f"{kind.__name__} has no setting", path[1], known, given.source)
    part = _part(path)
    if len(path) == 2 and not part:
        return known[path[1]]
    if len(path) != 3 or path[2] not in part:
        raise unknown(told, f"{path[1]} of {kind.__name__} has no setting", ".".join(path[2:]), part or ("(none)",), given.source)
    return part[path[2]]


def _leaf(given: Given, key: str, annotation: str) -> Given:
    """The value as its parameter wants it."""
    try:
        return Given(converted(annotation, given.value, given.text), given.source, given.text)
    except TypeError as error:
        raise given.refused(key, f"{error}, got {concealed(key, given.value)}") from None
