"""The page that shows what a run folder holds. Reads its files alone and never imports PyTorch."""

from __future__ import annotations

from inarch.report.page import write_report

__all__ = ["write_report"]
