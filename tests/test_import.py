"""Importing zeta loads no framework and costs little."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import zeta
from zeta._errors import missing_extra

FRAMEWORKS = ["torch", "jax", "tensorflow", "keras", "numpy", "scipy", "sympy", "mpmath"]


def loaded_by(statement, env):
    """Which of the frameworks are in sys.modules after the statement, in a fresh process."""
    code = f"import sys; {statement}; print([m for m in {FRAMEWORKS} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return eval(run.stdout)


@pytest.mark.parametrize(
    "statement", ["import zeta", "from zeta import formula, math", "import zeta.integrations"]
)
def test_no_framework_is_imported(statement, clean_env):
    assert loaded_by(statement, clean_env) == []


def test_the_catalogue_imports_no_framework(clean_env):
    assert loaded_by("import zeta.activations", clean_env) == []


def test_the_check_itself_can_fail(clean_env):
    assert "torch" in loaded_by("import zeta.nn", clean_env)


def test_numpy_users_do_not_load_pytorch(clean_env):
    statement = "import numpy; from zeta.activations import exo; exo(numpy.ones(2))"
    assert "torch" not in loaded_by(statement, clean_env)


@pytest.mark.parametrize("part", ["zeta.jax", "zeta.flax"])
def test_jax_users_load_neither_pytorch_nor_tensorflow(part, clean_env):
    statement = (
        f"import jax.numpy, numpy, zeta.activations; import {part}; "
        "zeta.activations.exo(jax.numpy.ones(2)); zeta.activations.exo(numpy.ones(2))"
    )
    loaded = loaded_by(statement, clean_env)
    assert "jax" in loaded
    assert not {"torch", "tensorflow", "keras"} & set(loaded)


@pytest.mark.parametrize("backend", ["tensorflow", "jax", "torch"])
def test_keras_users_load_what_keras_loads(backend, clean_env):
    """Keras itself loads JAX if it is installed, whatever its backend."""
    clean_env |= {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"}
    statement = (
        "import keras; keras_alone = set(sys.modules); import zeta.keras; "
        "further = {m.partition('.')[0] for m in set(sys.modules) - keras_alone}; "
        "assert not further & {'torch', 'jax', 'tensorflow'}, further"
    )
    with_zeta = {"torch", "jax", "tensorflow", "keras"} & set(loaded_by(statement, clean_env))
    assert backend in with_zeta
    assert not with_zeta - {"keras", "jax", backend}


def test_the_mixtures_loss_loads_no_triton(clean_env):
    """Triton cannot share a process with TensorFlow."""
    code = """
import sys, torch
from zeta.nn import MixtureOfSoftmaxes
for reduction in ("mean", "none"):
    mos = MixtureOfSoftmaxes(2, 3, 4)
    mos.loss(torch.randn(5, 3), torch.arange(5) % 4, reduction=reduction).sum().backward()
assert not {"triton", "torch._dynamo"} & set(sys.modules)
"""
    subprocess.run([sys.executable, "-c", code], env=clean_env, check=True)


# The first two lie where Zeta's lie; the others are upstream's alone.
UPSTREAM = {
    "__init__.py": "from zeta.structs import *\nfrom zeta.nn import *\nfrom zeta.ops import *\n",
    "nn/__init__.py": "class Exo: ...\n",
    "structs/__init__.py": "",
    "ops/mos.py": "",
}


@pytest.mark.parametrize("last", ["zeta-nn", "zetascale"])
def test_beside_upstreams_package_the_error_says_what_to_do(last, tmp_path, clean_env):
    """Both install the package `zeta`; the one that came last wins where their files meet."""
    package = tmp_path / "zeta"
    shutil.copytree(Path(zeta.__file__).parent, package, ignore=shutil.ignore_patterns("*.pyc"))
    for name, text in UPSTREAM.items():
        if last == "zetascale" or not (package / name).exists():
            (package / name).parent.mkdir(exist_ok=True)
            (package / name).write_text(text)
    env = clean_env | {"PYTHONPATH": str(tmp_path)}
    importing = [sys.executable, "-c", "import zeta; print(zeta.__file__)"]
    run = subprocess.run(importing, env=env, capture_output=True, text=True)
    error = run.stderr.strip().splitlines()[-1]
    assert error.startswith("ImportError: zetascale and zeta-nn both install the package zeta")
    mend = "`pip uninstall zetascale`, then `pip install --force-reinstall --no-deps zeta-nn`"
    assert error.endswith(mend)
    # What the second command leaves.
    shutil.rmtree(package / "structs")
    shutil.copytree(Path(zeta.__file__).parent, package, dirs_exist_ok=True)
    run = subprocess.run(importing, env=env, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == str(package / "__init__.py")


MISSING = [
    ("zeta.nn", "torch", "PyTorch", "torch"),
    ("zeta.ops", "torch", "PyTorch", "torch"),
    ("zeta.jax", "jax", "JAX", "jax"),
    ("zeta.flax", "flax", "Flax", "flax"),
    ("zeta.keras", "keras", "Keras", "keras"),
]


@pytest.mark.parametrize(("part", "module", "package", "extra"), MISSING)
def test_a_missing_framework_names_the_extra(part, module, package, extra, clean_env):
    code = f"import sys; sys.modules[{module!r}] = None; import {part}"
    run = subprocess.run(
        [sys.executable, "-c", code], env=clean_env, capture_output=True, text=True
    )
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith(f"ImportError: {part} needs {package}, which is not installed")
    assert f"pip install 'zeta-nn[{extra}]'" in last


def test_several_missing_packages_are_told_in_one_sentence():
    error = missing_extra("zeta.evaluate", "PyTorch", "Jinja2", "Matplotlib", extra="evaluate")
    assert str(error) == (
        "zeta.evaluate needs PyTorch, Jinja2 and Matplotlib, which are not installed: "
        "pip install 'zeta-nn[evaluate]'"
    )
