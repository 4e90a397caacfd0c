"""Every snippet of the README and the site, every docstring example and every notebook runs."""

import doctest
import importlib
import pkgutil
import re
import shlex
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

import zeta
from zeta.cli import cli

ROOT = Path(__file__).parents[1]
MODULES = [m.name for m in pkgutil.walk_packages(zeta.__path__, "zeta.")]
# TensorFlow and Triton bring an LLVM each, and the second to be loaded aborts the process.
OWN_PROCESS = [
    "zeta._backends.tensorflow",
    "zeta._backends.tensorflow_graph",
    "zeta.keras.tensorflow_loss",
]
DOCS = ROOT / "docs"
# Pages that somebody wrote: the build makes those of other folders.
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md")), *sorted(DOCS.glob("guides/*.md"))]
NOTEBOOKS = sorted(DOCS.glob("notebooks/*.ipynb"))
# A snippet that cannot run in the tests, or not in their process, says why in the line above it:
# <!-- not run: … -->, <!-- own process: … -->
SNIPPET = re.compile(r"(?:<!-- (not run|own process): [^\n]+ -->\n)?```python\n(.*?)```", re.DOTALL)
MAX_NOTEBOOK_BYTES = 200_000

pytestmark = pytest.mark.usefixtures("catalogue_as_before")


@pytest.mark.parametrize("module", sorted(set(MODULES) - set(OWN_PROCESS)))
def test_docstring_examples(module):
    result = doctest.testmod(importlib.import_module(module))
    assert result.failed == 0


def test_docstring_examples_in_a_process_of_their_own(clean_env):
    code = f"""
import doctest, importlib
raise SystemExit(sum(doctest.testmod(importlib.import_module(m)).failed for m in {OWN_PROCESS}))
"""
    env = clean_env | {"KERAS_BACKEND": "tensorflow"}
    subprocess.run([sys.executable, "-c", code], env=env, check=True)


def test_public_functions_have_examples():
    from zeta import activations, flax, jax, keras, nn, ops

    for public in (nn, ops, jax, flax, keras):
        for name in set(public.__all__) - {*activations.CATALOGUE, *activations.GATES}:
            documented = getattr(public, name).__doc__
            if callable(getattr(public, name)):
                assert ">>>" in documented, name


def snippets(page, where=""):
    """The page's Python that runs here, or where it says."""
    return [code for says, code in SNIPPET.findall(page.read_text()) if says == where]


@pytest.mark.parametrize("page", [p for p in PAGES if snippets(p)], ids=lambda page: page.stem)
def test_snippets(page, tmp_path, monkeypatch):
    """In order and in one namespace, as a reader would run them."""
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for snippet in snippets(page):
        exec(compile(snippet, page, "exec"), namespace)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if snippets(p, "own process")], ids=lambda page: page.stem
)
def test_snippets_in_a_process_of_their_own(page, clean_env, tmp_path):
    code = "\n".join(snippets(page, "own process"))
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=clean_env, check=True)


def test_snippets_are_found():
    assert len(snippets(ROOT / "README.md")) >= 10
    assert sum(bool(snippets(page)) for page in PAGES) >= 8


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_exist(page):
    """`$ zeta …` in a console block: the command is there and takes these options."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for line in re.findall(r"^\$ zeta (.+)$", block, re.MULTILINE):
            command, *arguments = shlex.split(line, comments=True)
            cli.commands[command].make_context(command, arguments, resilient_parsing=True)


def cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_come_with_outputs(path):
    """Run from top to bottom, without an error, and small."""
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    counts = [cell.execution_count for cell in cells(notebook)]
    assert counts == list(range(1, len(counts) + 1))
    outputs = [output for cell in cells(notebook) for output in cell.outputs]
    assert outputs
    assert all(output.output_type != "error" for output in outputs)
    assert path.stat().st_size < MAX_NOTEBOOK_BYTES


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_notebooks_run(path, monkeypatch):
    monkeypatch.setenv("MPLBACKEND", "agg")
    namespace = {"__name__": "__main__"}
    for number, cell in enumerate(cells(nbformat.read(path, as_version=4)), 1):
        exec(compile(cell.source, f"{path.name}, cell {number}", "exec"), namespace)
