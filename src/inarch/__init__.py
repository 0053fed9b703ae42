"""Inarch adapts a trained image classifier to a new task while keeping its classification layer, with evidence."""

from __future__ import annotations

__version__ = "0.1.0"
