"""How Sphinx builds the site (`make docs`): what no page says itself."""

from __future__ import annotations

import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
# The reference is drawn from this checkout's sources, whatever is installed.
sys.path[:0] = [str(HERE.parent / "src"), str(HERE / "extensions")]

from inarch import __version__  # noqa: E402  (the path comes first)

project, release = "Inarch", __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "generated"]
exclude_patterns: list[str] = []
# Docstrings write names of code in single backticks, as Markdown does.
default_role = "literal"
myst_heading_anchors = 3
# Two dashes are the beginning of an option, not a dash.
smartquotes = False

autodoc_member_order = "bysource"
autodoc_typehints = "signature"
autodoc_preserve_defaults = True
maximum_signature_line_length = 90
add_module_names = False
python_use_unqualified_type_names = True

html_theme = "furo"
html_title = "Inarch"
html_static_path = ["style"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
html_show_copyright = False
html_theme_options: dict[str, list[str]] = {"top_of_page_buttons": []}
