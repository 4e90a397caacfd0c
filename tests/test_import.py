"""Importing zeta loads no framework and costs little."""

import subprocess
import sys

import pytest

FRAMEWORKS = ["torch", "jax", "tensorflow", "keras", "numpy", "scipy", "sympy", "mpmath"]


def loaded_by(statement, env):
    """Which of the frameworks are in sys.modules after the statement, in a fresh process."""
    code = f"import sys; {statement}; print([m for m in {FRAMEWORKS} if m in sys.modules])"
    run = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True
    )
    return eval(run.stdout)


@pytest.mark.parametrize("statement", ["import zeta", "from zeta import formula, math"])
def test_no_framework_is_imported(statement, clean_env):
    assert loaded_by(statement, clean_env) == []


def test_the_catalogue_imports_no_framework(clean_env):
    assert loaded_by("import zeta.activations", clean_env) == []


def test_the_check_itself_can_fail(clean_env):
    assert "torch" in loaded_by("import zeta.nn", clean_env)


def test_numpy_users_do_not_load_pytorch(clean_env):
    statement = "import numpy; from zeta.activations import exo; exo(numpy.ones(2))"
    assert "torch" not in loaded_by(statement, clean_env)


def test_a_missing_framework_names_the_extra(clean_env):
    for part in ("zeta.nn", "zeta.ops"):
        code = f"import sys; sys.modules['torch'] = None; import {part}"
        run = subprocess.run(
            [sys.executable, "-c", code], env=clean_env, capture_output=True, text=True
        )
        last = run.stderr.strip().splitlines()[-1]
        assert last.startswith(f"ImportError: {part} needs PyTorch, which is not installed")
        assert "pip install 'zeta-nn[torch]'" in last
