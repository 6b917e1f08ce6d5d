"""The files of the page, as they are in the package."""

from __future__ import annotations

from hashlib import blake2b
from importlib.resources import files
from typing import NamedTuple

__all__ = ["Asset", "assets"]

MEDIA_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
}


class Asset(NamedTuple):
    """One file, and what its content is known by."""

    content: bytes
    media_type: str
    etag: str


def assets() -> dict[str, Asset]:
    """All of them by name, read once."""
    found = {}
    for file in files(__package__).joinpath("page").iterdir():
        media_type = MEDIA_TYPES.get("." + file.name.rpartition(".")[2])
        if media_type is not None:
            content = file.read_bytes()
            found[file.name] = Asset(content, media_type, f'"{blake2b(content, digest_size=12).hexdigest()}"')
    return found
