"""Prefix activations: computed once for a frozen prefix, kept where that pays."""
