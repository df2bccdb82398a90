"""Settings of the documentation's build: Sphinx with Markdown pages and the docstrings of the public names."""

import bayeslmm

project = "bayeslmm"
author = "The bayeslmm developers"
release = version = bayeslmm.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.mathjax"]
myst_enable_extensions = ["dollarmath", "amsmath"]
napoleon_google_docstring = False
autodoc_typehints = "description"
autodoc_member_order = "bysource"
html_theme = "alabaster"
html_theme_options = {"description": "Mixed models: REML and a posterior, side by side", "fixed_sidebar": True}
exclude_patterns = ["_build"]
