"""Images that formulas make, for pre-training without data: named source classes in families, each image numbered."""

from formulas.catalogue import EDITION, draw, families, source_classes

__all__ = ["EDITION", "draw", "families", "source_classes"]
