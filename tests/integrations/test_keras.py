"""Surgery on Keras models, on each backend in a process of its own."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


RUNS = [
    ("tensorflow", "check_keras.py"),
    ("jax", "check_keras.py"),
    ("torch", "check_keras.py"),
    ("torch", "check_keras_application.py"),
]


@pytest.mark.parametrize(("backend", "checks"), RUNS)
def test_on_backend(backend, checks, clean_env):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", checks],
        env=clean_env | {"KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
