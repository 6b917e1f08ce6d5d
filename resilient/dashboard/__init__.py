"""The page that shows a service at work: its state as JSON, live as an event stream, and controls for operators."""

from __future__ import annotations

from .board import Dashboard as Dashboard
from .routes import dashboard_routes as dashboard_routes

__all__ = ["Dashboard", "dashboard_routes"]
