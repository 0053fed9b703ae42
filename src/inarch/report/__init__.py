"""The page that shows a run folder's results. Reads `results.json` alone and never imports PyTorch."""

from __future__ import annotations

from inarch.report.page import write_report

__all__ = ["write_report"]
