"""Plain fine-tuning: the supervised loss, one rate for old layers and one for new layers.

Yosinski et al., "How transferable are features in deep neural networks?" (NeurIPS 2014, arXiv 1411.1792).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, final

from inarch.methods.method import Method


@final
@dataclass
class FineTuning(Method):
    """With everything old frozen, this is the linear probe."""

    name: ClassVar[str] = "fine-tuning"
    same_passes: ClassVar[bool] = True
