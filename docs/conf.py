"""Sphinx configuration: `make docs`."""

import sys
from importlib.metadata import version as installed
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "_ext"))

project = "bilevel"
author = "The bilevel developers"
copyright = author  # noqa: A001  the name that Sphinx reads
version = release = installed("bilevel")

extensions = [
    "myst_parser",  # pages in Markdown: design.md and CHANGELOG.md are read outside the docs, too
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx_gallery.gen_gallery",
    "commands",  # docs/_ext: the command line, asked of the program
    "docstrings",  # docs/_ext: plain-text docstrings and field comments
    "mathml",  # docs/_ext: formulas without scripts or fonts from the network
    "measured",  # docs/_ext: tables from benchmarks/results and from choice.py
]
exclude_patterns = ["_build", "gallery/*.ipynb", "gallery/*.py", "gallery/*.json"]
templates_path = ["_templates"]
nitpicky = False
suppress_warnings = ["config.cache"]  # the gallery's sort key is a class, which cannot be pickled

html_theme = "furo"
html_title = f"bilevel {version}"
html_static_path = ["_static"]
html_css_files = ["bilevel.css"]
html_math_renderer = "mathml"
html_copy_source = False
pygments_style = "friendly"

myst_enable_extensions = ["dollarmath", "amsmath", "deflist"]
myst_heading_anchors = 3

autosummary_generate = True
autodoc_typehints = "signature"
autodoc_member_order = "bysource"
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 88

sphinx_gallery_conf = {
    "examples_dirs": str(HERE.parent / "examples"),
    "gallery_dirs": "gallery",
    "filename_pattern": r"/\d\d_",
    "within_subsection_order": "FileNameSortKey",
    "abort_on_example_error": True,
    "download_all_examples": False,
    "remove_config_comments": True,
    "show_memory": False,
    "min_reported_time": 0,
    "show_signature": False,
    "plot_gallery": True,
}
