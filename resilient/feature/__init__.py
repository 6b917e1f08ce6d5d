"""Features: what users see, each with something to serve in its place when a dependency fails or somebody says so."""

from __future__ import annotations

from .brownout import Brownout as Brownout
from .chain import MISSING as MISSING
from .chain import Chain as Chain
from .chain import chain as chain
from .feature import Feature as Feature
from .feature import Level as Level
from .history import HistoryEntry as HistoryEntry
from .record import degradation_scope as degradation_scope
from .registry import Registry as Registry
from .surface import Featured as Featured

__all__ = ["MISSING", "Brownout", "Chain", "Feature", "Featured", "HistoryEntry", "Level", "Registry", "chain", "degradation_scope"]
