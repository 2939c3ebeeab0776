"""Sphinx's settings: ``make docs``."""

import shutil
from importlib.metadata import version as version_of
from pathlib import Path

HERE = Path(__file__).parent

project = "dualstream_lab"
version = release = version_of("dualstream-lab")
extensions = ["myst_nb", "sphinx.ext.autodoc"]
html_theme = "furo"
html_title = f"{project} {version}"
exclude_patterns = ["_build", "jupyter_execute", ".jupyter_cache"]

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 3
# GitHub shows these pages, too: what they name outside docs/ is shown there.
suppress_warnings = ["myst.xref_missing"]

autodoc_member_order = "bysource"
autodoc_typehints = "none"  # the signature has them

# The notebooks are in the sources without their outputs: here they are run, on brokers that they start.
shutil.rmtree(HERE / "notebooks", ignore_errors=True)
shutil.copytree(HERE.parent / "notebooks", HERE / "notebooks", ignore=shutil.ignore_patterns(".*", "runs"))
nb_execution_mode = "cache"
nb_execution_in_temp = True
nb_execution_timeout = 900  # s a cell
nb_execution_raise_on_error = True
nb_merge_streams = True
