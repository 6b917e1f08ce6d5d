"""Settings from a file and from the environment, and what may change while the service is at work."""

from .sources import Settings as Settings
from .values import SettingsError as SettingsError

__all__ = ["Settings", "SettingsError"]
