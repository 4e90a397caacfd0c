"""Every snippet of the README and every docstring example runs."""

import doctest
import importlib
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import zeta

ROOT = Path(__file__).parents[1]
MODULES = [m.name for m in pkgutil.walk_packages(zeta.__path__, "zeta.")]
# TensorFlow and Triton bring an LLVM each, and the second to be loaded aborts the process.
OWN_PROCESS = ["zeta._backends.tensorflow", "zeta.keras.tensorflow_loss"]
PAGES = {
    "README.md": 10,
    "docs/frameworks.md": 1,
    "docs/export.md": 1,
}  # how many snippets there are at least


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(OWN_PROCESS)))
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


@pytest.mark.parametrize("module", OWN_PROCESS)
def test_docstring_examples_in_a_process_of_their_own(module, clean_env):
    code = f"import doctest, {module} as m; raise SystemExit(doctest.testmod(m).failed)"
    env = clean_env | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_public_functions_have_examples():
    from zeta import activations, flax, jax, keras, nn, ops

    for public in (nn, ops, jax, flax, keras):
        for name in set(public.__all__) - set(activations.CATALOGUE):
            documented = getattr(public, name).__doc__
            if callable(getattr(public, name)):
                assert ">>>" in documented, name


@pytest.mark.parametrize("page", PAGES)
def test_snippets(page):
    """In order and in one namespace, as a reader would run them."""
    snippets = re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(), re.DOTALL)
    assert len(snippets) >= PAGES[page]
    namespace = {"__name__": "__main__"}
    for snippet in snippets:
        exec(compile(snippet, page, "exec"), namespace)
