"""How a cache in a client's transport does in the public test suite of HTTP caches (npm: http-cache-tests).

    python benchmarks/cache_suite.py [--library httpx2] [--store memory] [--only GROUP ...] [--json FILE]

Needs node with npm, and the `demo` and `httpx2` extras. The suite comes from the npm registry once, into the user's
cache folder. Its own origin server and its own client run here, with a small reverse proxy between them whose client
has the transport. Exit status: 0 if no required test failed but those that ask for the opposite of RFC 9111, 1 if one
did, 2 if it could not be run. README.md beside this file says how to read the table.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from caching import package, table
from caching.proxy import Proxy, serving
from caching.transports import CACHES, LIBRARIES, STORES, transport


def main(arguments: Sequence[str] | None = None) -> int:
    """Run it and print the table; 0 when no required test failed."""
    options = _options(arguments)
    try:
        outcome = _run(options)
    except (package.CannotRunError, ImportError) as error:
        print(f"cannot run: {error}", file=sys.stderr)
        return 2
    groups = outcome["groups"]
    subject = f"{options.cache}, {options.library}" + (f", {options.store} store" if options.cache == "resilient" else "")
    for line in table.lines(groups, outcome["peers"], subject):
        print(line)
    if options.json is not None:
        report = {"subject": subject, "suite": f"{package.PACKAGE} {package.VERSION}", "totals": table.totals(groups), **outcome}
        report["peers"] = {f"{peer['name']} {peer['version']}": table.totals(peer["groups"]) for peer in outcome["peers"]}
        options.json.write_text(json.dumps(report, indent=1) + "\n")
        print(f"\nwritten to {options.json}")
    return 1 if table.failed(groups) else 0


def _run(options: argparse.Namespace) -> dict[str, Any]:
    library = importlib.import_module(options.library)
    suite = package.installed()
    through = transport(options.cache, options.library, options.store)
    with package.origin(suite) as origin, serving(Proxy(library, through, origin)) as url:
        return package.run(suite, url, options.only, dump=options.dump)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cache", choices=CACHES, default="resilient", help="whose cache; 'none' shows what the proxy does alone")
    parser.add_argument("--library", choices=LIBRARIES, default="httpx2", help="whose client and transport (default httpx2)")
    parser.add_argument("--store", choices=STORES, default="memory", help="where our cache keeps its answers (default memory)")
    parser.add_argument("--only", action="append", default=[], metavar="GROUP", help="a group or a test by its id; may be repeated")
    parser.add_argument("--dump", action="store_true", help="tell every message on stderr, for a test or two")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write every test's result there")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
