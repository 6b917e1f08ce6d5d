"""How the service itself is: checks that run in the background, the start-up, readiness."""

from .check import Check as Check
from .health import Health as Health
from .surface import Checkable as Checkable

__all__ = ["Check", "Checkable", "Health"]
