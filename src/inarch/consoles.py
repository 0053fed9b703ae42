"""Where the command line prints: results on standard output, what else is to be said on standard error."""

from __future__ import annotations

import sys

from rich.console import Console

# Names of files, classes and stages are printed as they are: nothing in them is markup.
# What is not a terminal has no width: tables for it are as wide as they need, up to a limit.
console = Console(markup=False, highlight=False, width=None if sys.stdout.isatty() else 140)
errors = Console(stderr=True, markup=False, highlight=False)
