"""The Keras tests run on each of its backends, in a process each: Keras chooses one at import."""

import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
INTEGRATIONS = HERE.parent / "integrations"

ON_EVERY_BACKEND = (
    HERE / "check_activations.py",
    HERE / "check_gated.py",
    HERE / "check_layers.py",
    HERE / "check_mixture.py",
    HERE / "check_softmax_head.py",
    INTEGRATIONS / "check_keras.py",
    HERE / "check_digits.py",
)
RUNS = {
    "tensorflow": (HERE / "check_tensorflow.py",),
    "jax": (),
    "torch": (INTEGRATIONS / "check_keras_application.py",),
}


@pytest.mark.parametrize("backend", RUNS)
def test_on_backend(backend, clean_env):
    """All in one process: importing the frameworks takes longer than most of the tests."""
    checks = (*ON_EVERY_BACKEND, *RUNS[backend])
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *checks],
        env=clean_env
        | {"KERAS_BACKEND": backend, "EXPECTED_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=HERE,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stdout[-8000:] + run.stderr[-2000:]
    assert " passed" in run.stdout


def test_no_check_is_left_out():
    run = {*ON_EVERY_BACKEND, *(check for more in RUNS.values() for check in more)}
    assert {*HERE.glob("check_*.py"), *INTEGRATIONS.glob("check_keras*.py")} == run
