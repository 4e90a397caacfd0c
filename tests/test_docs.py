"""Every snippet of the README and every docstring example runs."""

import doctest
import importlib
import pkgutil
import re
from pathlib import Path

import pytest

import zeta

ROOT = Path(__file__).parents[1]
MODULES = [m.name for m in pkgutil.walk_packages(zeta.__path__, "zeta.")]
SNIPPETS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)


@pytest.mark.parametrize("module", MODULES)
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


def test_public_functions_have_examples():
    from zeta import nn, ops

    for public in (nn, ops):
        for name in public.__all__:
            documented = getattr(public, name).__doc__
            if callable(getattr(public, name)):
                assert ">>>" in documented, name


def test_readme_snippets():
    """In order and in one namespace, as a reader would run them."""
    assert len(SNIPPETS) >= 6
    namespace = {"__name__": "__main__"}
    for snippet in SNIPPETS:
        exec(compile(snippet, "README.md", "exec"), namespace)
