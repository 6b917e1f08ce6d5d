"""What flows from an inbound request to every outbound call, and along with a job into threads and other processes."""

from __future__ import annotations

from .scopes import COVER as COVER
from .scopes import CRITICALITY as CRITICALITY
from .scopes import DEADLINE as DEADLINE
from .scopes import PARTITION as PARTITION
from .scopes import RECORD as RECORD
from .scopes import Cover as Cover
from .scopes import Criticality as Criticality
from .scopes import CriticalityName as CriticalityName
from .scopes import Deadline as Deadline
from .scopes import covered as covered
from .scopes import criticality as criticality
from .scopes import current_criticality as current_criticality
from .scopes import current_deadline as current_deadline
from .scopes import current_dependency as current_dependency
from .scopes import current_partition as current_partition
from .scopes import current_record as current_record
from .scopes import deadline_scope as deadline_scope
from .scopes import partition as partition
from .trace import Trace as Trace
from .trace import current_trace as current_trace
from .travel import Loaded as Loaded
from .travel import carry as carry
from .travel import dump as dump
from .travel import ignored_fields as ignored_fields
from .travel import load as load

__all__ = [
    "Criticality",
    "CriticalityName",
    "Deadline",
    "Loaded",
    "Trace",
    "carry",
    "criticality",
    "current_criticality",
    "current_deadline",
    "current_dependency",
    "current_partition",
    "current_record",
    "current_trace",
    "deadline_scope",
    "dump",
    "ignored_fields",
    "load",
    "partition",
]
