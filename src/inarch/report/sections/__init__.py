"""The sections of the page, in order: a new one is a file here, its template if it needs one, and a line below."""

from __future__ import annotations

from collections.abc import Callable

from inarch.report.run import Run
from inarch.report.section import Section
from inarch.report.sections import (
    again,
    answer,
    compared,
    comparison,
    confusion,
    cost,
    depth,
    glance,
    learning,
    mind,
    mistakes,
    per_class,
    reliability,
    source_classes,
    terms,
    tested,
    unknown,
)

# Each returns its section, or None where the run folder holds nothing for it.
SECTIONS: tuple[Callable[[Run], Section | None], ...] = (
    answer.section,
    mind.section,
    tested.section,
    comparison.section,
    depth.section,
    source_classes.section,
    learning.section,
    confusion.section,
    mistakes.section,
    per_class.section,
    reliability.section,
    unknown.section,
    glance.section,
    cost.section,
    again.section,
    terms.section,
)
# The same for a comparison of methods.
OF_COMPARISONS: tuple[Callable[[Run], Section | None], ...] = (
    compared.answer,
    compared.differences,
    compared.accuracies,
    compared.ranks,
    compared.how,
    cost.section,
    again.section,
    terms.section,
)
