"""The behaviours of other systems, as data: which of them are run here, and why the others are not.

Each record is `{id, source, feature, config, sequence, expected}`. A test takes records by the first word of their ids:

    @pytest.mark.parametrize("record", records("bulk"))

so that every record is the parameter of a test, under its own id, or has its reason in conformance_skips.toml. A record
that had to be put into our own terms stands in another folder, in a test with a parameter whose id begins with the
record's.
"""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

__all__ = ["RECORDS", "RUN", "SKIPS", "TOLD", "Record", "named", "of_word", "records"]

Record = dict[str, Any]

HERE = Path(__file__).parent
RECORDS: dict[str, Record] = {record["id"]: record for record in json.loads((HERE / "cases.json").read_text())}
SKIPS: dict[str, str] = tomllib.loads((HERE.parent / "conformance_skips.toml").read_text())

RUN = ("cb", "retry", "bulk", "config")
"""The words for which there is a test in this folder."""
TOLD: dict[str, str] = {}
"""How the records that were run in this session ended."""


_IDS = re.compile(rf"\b({'|'.join(map(re.escape, RECORDS))})\b")


def named(text: str) -> set[str]:
    """The records whose ids stand in a text."""
    return set(_IDS.findall(text))


def records(word: str) -> list[Any]:
    """The records whose ids begin with `word` and that are not skipped, as parameters of a test."""
    assert word in RUN, f"add {word!r} to RUN"
    return [pytest.param(RECORDS[name], id=name) for name in of_word(word)]


def of_word(word: str) -> list[str]:
    """The ids that begin with `word`, of records that are not skipped."""
    return [name for name in RECORDS if name.split("-")[0] == word and name not in SKIPS]
