"""Sphinx's settings; `make docs` builds the site into docs/_build."""

import importlib.metadata
import os
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
# Our extensions, the sources of this checkout, and the tests' grid of points.
sys.path[:0] = [str(ROOT / folder) for folder in ("docs/_ext", "src", "tests")]
os.environ["KERAS_BACKEND"] = "torch"  # TensorFlow would take seconds to import

project = "Zeta"
author = "The Zeta developers"
project_copyright = author
release = importlib.metadata.version("zeta-nn")

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "myst_nb",
    "sphinx_copybutton",
    "activation_pages",
    "api_pages",
    "mathml",
    "results_pages",
    "leaderboard_page",
]
exclude_patterns = ["_build"]
nitpicky = True
# Other projects' names: their documentation would have to be asked over the network.
nitpick_ignore_regex = [
    (
        "py:.*",
        r"(torch|np|numpy|jax|jaxlib|flax|nnx|keras|sympy|mpmath|click|pathlib|collections|types"
        r"|logging|concurrent|enum|nn|matplotlib)\..*",
    ),
    ("py:.*", r"Any|Array|ArrayLike|Axes|Callable|DeviceMesh|Figure|Iterator|Layer|Mapping|Path"),
    ("py:.*", r"zeta\.(math|_formula)\.(Array|T)|zeta\.nn\.module\.Module"),
    ("py:.*", r"zeta\.(nn|flax|keras)\.head\.Head"),
    ("py:.*", r"zeta\.ops\.mixture\.shard\.Shard|zeta\.distributed\.vocab_parallel\._Part"),
    ("py:.*", r"TypeAliasForwardRef|Self|Sequence|What|Tensor|TypeVar|mpf|ndarray|optional"),
]

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_default_options = {"members": True, "no-value": True, "show-inheritance": True}
autodoc_type_aliases = {"Facts": "zeta.Facts", "FormulaModule": "zeta.nn.FormulaModule"}
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False

myst_enable_extensions = ["amsmath", "attrs_inline", "colon_fence", "dollarmath"]
myst_heading_anchors = 3
nb_merge_streams = True
nb_execution_mode = "off"  # notebooks come with their outputs; the tests run them anew

html_theme = "furo"
html_title = "Zeta"
html_static_path = ["_static"]
html_css_files = ["zeta.css"]
pygments_style, pygments_dark_style = "friendly", "github-dark"
html_math_renderer = "mathml"
html_show_sphinx = False
html_copy_source = False
templates_path: list[str] = []
copybutton_prompt_text = r"\$ |>>> |\.\.\. "
copybutton_prompt_is_regexp = True
copybutton_only_copy_prompt_lines = True
