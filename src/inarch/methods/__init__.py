"""Methods: how the target network is trained. One final class a file; `METHODS` lists them."""

from __future__ import annotations

from inarch.errors import UsageError
from inarch.methods.fine_tuning import FineTuning
from inarch.methods.l2_sp import L2SP
from inarch.methods.method import Method, ParameterGroup, Rates

METHODS: tuple[type[FineTuning] | type[L2SP], ...] = (FineTuning, L2SP)

__all__ = ["L2SP", "METHODS", "FineTuning", "Method", "ParameterGroup", "Rates", "make_method"]


def make_method(name: str) -> Method:
    """The method of that name with its default settings; an unknown name is a `UsageError`."""
    for method in METHODS:
        if method.name == name:
            return method()
    known = ", ".join(m.name for m in METHODS)
    raise UsageError(f"There is no method called '{name}'.", f"Choose one of: {known}.")
