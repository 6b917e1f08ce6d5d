"""Two levels: what this process knows, over a store that takes input and output."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from ..clock import SYSTEM_CLOCK, Clock
from ..core.bounds import not_negative, whole
from ..core.entry import Entry, Mark, Record
from ..protocols import Store
from .behind import Behind
from .guarded import Guarded
from .near import Near

__all__ = ["LayeredStore"]

_PARTING = 1.0


class LayeredStore:
    """A first level in memory over any store that waits for input and output, which may also fail.

    - What was read or written here is believed for `trust` seconds without being asked for again, then the store is asked.
      So a mark or an entry that another process writes is seen that much later; what this one writes is seen at once.
    - While the store cannot be reached, the first level goes on alone. The store has a circuit of its own, so that asking one
      that is gone costs next to nothing.
    - Entries are written behind by a daemon thread, from a bounded queue: `save` waits for nothing but marks. Marks and
      removals are written at once; if they cannot be, they are owed, tried again every half a second, and nothing is read
      from the store until they are written.

    Args:
        store: the second level. What it raises is counted and told in the log, and no further. It may have `check(record)`,
            which raises TypeError for a record that it cannot keep, and `clear()`.
        l1_bytes: bytes for the first level; 0 for none.
        trust: seconds; 0 asks the store each time, and leaves the first level for when it cannot be reached.
        queue: records that may wait to be written.
        queue_bytes: bytes of them.
        name: what the log calls it.
        clock: the source of monotonic time.
        wall: the source of wall time.

    Attributes:
        blocking: True.
        refused: records that the store cannot keep.
    """

    blocking = True

    def __init__(
        self,
        store: Store,
        *,
        l1_bytes: int = 16 * 2**20,
        trust: float = 1.0,
        queue: int = 1000,
        queue_bytes: int = 8 * 2**20,
        name: str | None = None,
        clock: Clock = SYSTEM_CLOCK,
        wall: Callable[[], float] = time.time,
    ) -> None:
        if not isinstance(store, Store):
            raise TypeError(f"store: expected one with load, save, remove and close, got {store!r}")
        whole("l1_bytes", l1_bytes, least=0)
        not_negative("trust", trust)
        whole("queue", queue)
        whole("queue_bytes", queue_bytes)
        self.store = store
        self._clock = clock
        self._wall = wall
        self._near = Near(l1_bytes, trust)
        self._far = far = Guarded(store, name or type(self).__name__, clock)
        self._behind = Behind(far.save, far.owe, far.settle, lambda: far.owing, records=queue, size=queue_bytes)
        self._emptied_at = 0.0
        self._closed = False

    @property
    def peek(self) -> Callable[[Sequence[str]], list[Record | None] | None] | None:
        """What tells what is kept under each key, if that is known without input or output, else None; None without a first level."""
        return self._peek if self._near.limit else None

    def _peek(self, keys: Sequence[str]) -> list[Record | None] | None:
        answers, unknown = self._near.look(keys, self._clock.now())
        return None if unknown else answers

    def load(self, keys: Sequence[str]) -> list[Record | None]:
        """What is kept under each key, None for nothing."""
        now = self._clock.now()
        if not self._near.limit and self._behind.idle and not self._closed:  # nobody but the store knows anything
            found = self._far.load(keys)
            return [None] * len(keys) if found is None else self._placed(found, now)
        answers, unknown = self._near.look(keys, now)
        if not unknown:
            return answers
        # What waits to be written is the newest there is.
        asked = keys if len(unknown) == len(keys) else [keys[place] for place in unknown]
        waiting = self._behind.look(asked)
        if waiting:
            asked = [key for key in asked if key not in waiting]
        believed: dict[str, Record | None] = {}
        if asked:
            since = self._near.number
            found = None if self._closed else self._far.load(asked)
            if found is None:
                return self._near.alone(keys, now)
            believed = self._near.learn(dict(zip(asked, self._placed(found, now), strict=True)), since, now)
        for place in unknown:
            key = keys[place]
            answers[place] = waiting[key] if key in waiting else believed[key]
        return answers

    def _placed(self, found: Sequence[Record | None], now: float) -> list[Record | None]:
        for record in found:
            if type(record) is Entry and record.arrived != record.arrived:  # NaN: it comes from another process
                record.place(now, self._wall())
        return found if type(found) is list else [*found]

    def save(self, records: Mapping[str, tuple[Record, float]]) -> None:
        """Keep records, each for so many seconds; entries are written behind.

        Raises:
            TypeError: an entry's value cannot be kept in this store.
        """
        check = getattr(self.store, "check", None)
        if check is not None:
            for record, _ in records.values():
                check(record)
        if self._closed:
            return
        now = self._clock.now()
        late = [key for key, (record, _) in records.items() if isinstance(record, Entry) and record.requested_at < self._emptied_at]
        if late:  # asked for before everything was thrown away
            records = {key: kept for key, kept in records.items() if key not in late}
        marks: dict[str, tuple[Mark | None, float]] = {
            key: (record, keep) for key, (record, keep) in records.items() if isinstance(record, Mark) and not record.first
        }
        firsts = [key for key, (record, _) in records.items() if isinstance(record, Mark) and record.first]
        self._near.keep({key: kept for key, kept in records.items() if key not in firsts}, now)
        if firsts:  # whether they are is not known here
            self._near.unlearn(firsts)
        if marks:
            self._owe(marks)
        if len(marks) < len(records):
            self._behind.put({key: kept for key, kept in records.items() if key not in marks})

    def remove(self, keys: Sequence[str]) -> None:
        """Forget what is kept under keys."""
        self._near.forget(keys, self._clock.now())
        if not self._closed:
            self._owe(dict.fromkeys(keys, (None, 0.0)))

    def _owe(self, marks: Mapping[str, tuple[Mark | None, float]]) -> None:
        self._behind.drop(marks)
        if not self._far.owe(marks):
            self._behind.wake()

    def clear(self) -> None:
        """Forget every entry, in all processes that share the store; what was asked for before now is not stored any more."""
        self._emptied_at = self._wall()
        self._near.clear()
        self._behind.clear()
        if not self._far.empty():
            self._behind.wake()

    def flush(self, timeout: float = _PARTING) -> bool:
        """Wait until everything is written, for so many seconds at the most; whether it is."""
        return self._behind.flush(timeout)

    def close(self) -> None:
        """Write what waits, for a second at the most, and let go of the store."""
        if not self._closed:
            self._behind.close(_PARTING)
            self._closed = True
            self.store.close()
            self._near.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # -- read at a scrape; none of it takes input or output ------------------------------------------------------------

    def _of_store(self, name: str, first_level: int = 0) -> int:
        told: Any = getattr(self.store, name, None)
        return first_level if told is None else told

    @property
    def up(self) -> bool:
        """Whether the store is believed to work."""
        return self._far.up

    @property
    def size(self) -> int:
        """Bytes in the store, or in the first level if the store does not tell."""
        return self._of_store("size", self._near.size)

    @property
    def limit(self) -> int:
        """What `size` never exceeds."""
        return self._of_store("limit", self._near.limit)

    @property
    def count(self) -> int:
        """Records in the store, or in the first level if the store does not tell."""
        return self._of_store("count", self._near.count)

    @property
    def evictions(self) -> int:
        """Entries that the store, or the first level if the store does not tell, let go for want of room."""
        return self._of_store("evictions", self._near.evictions)

    @property
    def corrupt(self) -> int:
        """Records that could not be read."""
        return self._of_store("corrupt")

    @property
    def refused(self) -> int:
        """Records that were too large for the store."""
        return self._of_store("refused")

    @property
    def failures(self) -> int:
        """Calls of the store that failed."""
        return self._far.failures

    @property
    def busy(self) -> int:
        """Calls of the store that found no connection or lock in time."""
        return self._far.busy

    @property
    def drops(self) -> int:
        """Entries that were not written, since the queue was full or the store could not be reached."""
        return self._behind.drops

    @property
    def l1_size(self) -> int:
        """Bytes in the first level."""
        return self._near.size
