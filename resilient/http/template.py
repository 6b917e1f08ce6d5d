"""The route that a request probably belongs to: its path with the parts left out that look like somebody's id."""

from __future__ import annotations

import re

__all__ = ["template_of"]

ID = "{id}"
MOST = 8  # segments that are told apart
LONGEST = 32  # characters of a segment that is a word
# A word of a route: letters, perhaps a number of two digits after them (v2, oauth2, s3), but nothing that counts things.
WORD = re.compile(r"[A-Za-z][A-Za-z_.~-]*[0-9]{0,2}")


def template_of(path: str) -> str:
    """`/users/42/orders/9f86d081` becomes `/users/{id}/orders/{id}`.

    A segment stays as it is if it looks like a word. What lies deeper than eight segments becomes one `...`. It is a
    guess that errs by joining routes; a program that knows better says so in `extensions["resilient"]["route"]`.
    """
    segments = path.split("/")
    told = [part if not part or (len(part) <= LONGEST and WORD.fullmatch(part)) else ID for part in segments[: MOST + 1]]
    if len(segments) > MOST + 1:
        told.append("...")
    return "/".join(told)
