"""Where caches keep what they have: in this process, in a file, on a server."""

from .layered import LayeredStore as LayeredStore
from .memory import MemoryStore as MemoryStore
from .redis import RedisStore as RedisStore
from .sqlite import SQLiteStore as SQLiteStore

__all__ = ["LayeredStore", "MemoryStore", "RedisStore", "SQLiteStore"]
