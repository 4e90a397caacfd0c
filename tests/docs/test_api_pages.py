"""Every public name is documented, and the build complains of one that is not."""

import inspect
import io
from types import ModuleType

import pytest
from sphinx.application import Sphinx
from sphinx.pycode import ModuleAnalyzer

import api_pages

MODULES = api_pages.public_modules()


def commented(module: ModuleType) -> set[str]:
    """The names of the module's data that a `#:` comment describes."""
    analyzer = ModuleAnalyzer.for_module(module.__name__)
    analyzer.analyze()
    return {name for scope, name in analyzer.attr_docs if not scope}


def test_what_is_public():
    names = {module.__name__ for module in MODULES}
    assert {"zeta", "zeta.math", "zeta.ops", "zeta.nn", "zeta.jax", "zeta.flax"} <= names
    assert {"zeta.keras", "zeta.distributed", "zeta.convert", "zeta.evaluate"} <= names
    assert not any("._" in name for name in names)


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_every_public_name_is_documented(module):
    assert module.__doc__
    data = {
        id(getattr(other, name))
        for other in MODULES
        for name in commented(other) & set(other.__all__)
    }
    for name in module.__all__:
        value = getattr(module, name)
        if callable(value) or isinstance(value, ModuleType):
            assert inspect.getdoc(value), name
        else:
            assert id(value) in data, f"{name}: describe it in a comment that starts with #:"


@pytest.mark.parametrize("module", MODULES, ids=lambda module: module.__name__)
def test_all_is_sorted_out(module):
    """No name twice, none that is not there."""
    assert len(set(module.__all__)) == len(module.__all__)
    assert set(module.__all__) <= set(dir(module))


def test_the_build_complains_of_an_undocumented_name(tmp_path):
    """In a site that documents two classes of `zeta.nn` and nothing else."""
    (tmp_path / "conf.py").touch()
    (tmp_path / "index.rst").write_text(
        "Page\n====\n\n.. py:class:: zeta.nn.Exo\n\n.. py:class:: zeta.nn.MixtureOfSoftmaxes\n"
    )
    warnings = io.StringIO()
    folders = (tmp_path, tmp_path, tmp_path / "out", tmp_path / "trees")
    app = Sphinx(*folders, "dummy", status=None, warning=warnings)
    app.connect("env-check-consistency", api_pages._check)
    app.build()
    complaints = warnings.getvalue()
    assert "zeta.nn.SELUSoftmax is public and undocumented" in complaints
    assert "zeta.jax.mish is public and undocumented" in complaints
    assert "zeta.nn.Exo is" not in complaints
    assert "zeta.ops.MixtureOfSoftmaxes is" not in complaints  # the same object
