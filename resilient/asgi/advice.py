"""What the caches of our callers are told: that they may serve an answer stale."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..core.asked import Asked
from ..core.caching import CachingRules, means_everybody, why_not_stored
from ..core.head import Head
from .protocols import Message

__all__ = ["Advice"]

# Who says so of an answer has decided about it: nothing is added that might weaken it.
DECIDED = ("no-store", "private", "no-cache", "must-revalidate", "proxy-revalidate", "s-maxage", "must-understand")


@dataclass(frozen=True, slots=True)
class Advice:
    """Directives for answers that a shared cache may keep and that do not have them.

    Attributes:
        stale_if_error, stale_while_revalidate: whole seconds, 0 for none; the second one is for answers that say themselves for
            how long they are fresh, for to others it would give a lifetime that nobody meant them to have.
        rules: by which an answer may be kept.
    """

    stale_if_error: int
    stale_while_revalidate: int
    rules: CachingRules

    def added(self, start: Message, head: Head, asked: Asked) -> Message:
        """The start of an answer with what is to be said."""
        words = self._words(head)
        if not words or not self._may_be_kept(asked, start["status"], head, words):
            return start
        fields: list[Any] = [*head.lines]
        for index, (name, value) in enumerate(fields):
            if name.lower() == b"cache-control":
                fields[index] = (name, value + b", " + words if value.strip() else words)
                break
        else:
            fields.append((b"cache-control", words))
        return {**start, "headers": fields}

    def _words(self, head: Head) -> bytes:
        directives, words = head.directives, []
        if any(word in directives for word in DECIDED):
            return b""
        if self.stale_if_error and "stale-if-error" not in directives:
            words.append(f"stale-if-error={self.stale_if_error}")
        lasts = "max-age" in directives or b"expires" in head
        if self.stale_while_revalidate and lasts and "stale-while-revalidate" not in directives:
            words.append(f"stale-while-revalidate={self.stale_while_revalidate}")
        return ", ".join(words).encode("ascii")

    def _may_be_kept(self, asked: Asked, status: int, head: Head, words: bytes) -> bool:
        """Whether others may keep it: an answer to somebody is for him, unless it says that it is for everybody."""
        if status >= 400 or (asked.partition is not None and not means_everybody(head)):
            return False
        told = Head([*head.lines, (b"cache-control", words)])
        request = Asked("GET", asked.uri, asked.fields, identity=asked.identity)
        # A 304 brings the fields of the answer that it confirms. What is unkeyed here is the other caches' business.
        return why_not_stored(request, 200 if status == 304 else status, told, self.rules) in (None, "unkeyed")
