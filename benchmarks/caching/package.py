"""The suite as npm has it, and the two node processes that run it: its origin server and its client."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PACKAGE, VERSION = "http-cache-tests", "0.4.5"
SHA512 = "DjuwN9nUZXLTW+wav1LRESCZNVxl8SshwOy4z1pxuWbWt5/ay6sM9QQ1lebBaDO6P1IMBoK6mdf+PuVP/QNL8A=="
# All that the suite's client imports. Its package asks for npm 6 and a template language too, for its web pages.
NODE_FETCH = "node-fetch@2.7.0"

HERE = Path(__file__).parent
LONGEST = 600.0
"""Seconds after which a run has hung; a whole one takes about one minute."""


class CannotRunError(Exception):
    """What is missing, or what went wrong outside of the tests."""


def folder_of_suite() -> Path:
    """Where it is kept: in the user's cache folder, never below the repository."""
    caches = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return caches / "resilient-benchmarks" / f"{PACKAGE}-{VERSION}"


def installed() -> Path:
    """The suite itself, fetched from the npm registry the first time."""
    folder = folder_of_suite()
    if not folder.exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent) as parts:
            _fetch(Path(parts))
            # At once and whole: an interrupted run leaves nothing that looks installed.
            (Path(parts) / "whole").rename(folder)
    return folder / "package"


def _fetch(parts: Path) -> None:
    (parts / "whole").mkdir()
    _npm("pack", f"{PACKAGE}@{VERSION}", "--silent", "--pack-destination", str(parts), cwd=parts)
    tarball = parts / f"{PACKAGE}-{VERSION}.tgz"
    if base64.b64encode(hashlib.sha512(tarball.read_bytes()).digest()).decode() != SHA512:
        raise CannotRunError(f"{tarball.name} from the npm registry is not the file that this was written for")
    with tarfile.open(tarball) as archive:
        archive.extractall(parts / "whole", filter="data")
    # Beside the suite's folder, where node looks after its own.
    _npm("install", "--prefix", str(parts / "whole"), "--silent", "--no-audit", "--no-fund", "--ignore-scripts", NODE_FETCH, cwd=parts)


def _npm(*arguments: str, cwd: Path) -> None:
    done = subprocess.run([_program("npm"), *arguments], cwd=cwd, capture_output=True, text=True, timeout=LONGEST, check=False)
    if done.returncode:
        raise CannotRunError(f"npm {' '.join(arguments)}:\n{done.stderr.strip() or done.stdout.strip()}")


def _program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        raise CannotRunError(f"{name} is needed and not on the PATH (node 20 or newer, which brings npm)")
    return found


@contextmanager
def origin(suite: Path) -> Iterator[str]:
    """The suite's origin server; gives its URL. It ends with this block, and with this process in any case."""
    command = [_program("node"), str(HERE / "origin.mjs"), str(suite)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as node:
        assert node.stdin is not None and node.stdout is not None
        port = node.stdout.readline().strip()
        if not port:
            raise CannotRunError("the origin server did not start")
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            node.stdin.close()  # its lifeline


def run(suite: Path, url: str, only: Sequence[str], *, dump: bool) -> dict[str, Any]:
    """Run the tests against the proxy at `url`: the groups with each test's result, the raw results, those of the peers."""
    command = [_program("node"), "--no-warnings", str(HERE / "run.mjs"), str(suite), url, ",".join(only), "1" if dump else "0"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=LONGEST, check=False)
    except subprocess.TimeoutExpired as error:
        raise CannotRunError(f"the suite has not ended after {LONGEST:g} s") from error
    if done.returncode:
        raise CannotRunError(f"the suite's client failed:\n{done.stderr.strip()}")
    sys.stderr.write(done.stderr)
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome
