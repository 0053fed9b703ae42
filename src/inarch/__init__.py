"""Inarch adapts ImageNet-trained classifiers to new images, and keeps their classification layer where that pays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__version__ = "0.1.11"

if TYPE_CHECKING:
    from inarch.python import compare, fit, load, rank

__all__ = ["__version__", "compare", "fit", "load", "rank"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line and the report do not wait for PyTorch.
    if name in ("compare", "fit", "load", "rank"):
        from inarch import python

        return getattr(python, name)
    raise AttributeError(f"module 'inarch' has no attribute '{name}'")
