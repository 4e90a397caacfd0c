"""The Keras tests run on each of its backends, in a process each: Keras chooses one at import."""

import itertools
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent


RUNS = [
    *itertools.product(("tensorflow", "jax", "torch"), ("activations", "layers", "mixture")),
    ("tensorflow", "tensorflow"),
]


@pytest.mark.parametrize(("backend", "checks"), RUNS)
def test_on_backend(backend, checks, clean_env):
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"check_{checks}.py"],
        env=clean_env
        | {"KERAS_BACKEND": backend, "EXPECTED_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
