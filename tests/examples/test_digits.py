"""The examples on the digit images run as their heads say, and learn."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
RUNS = [
    ("digits_pytorch.py", {}),
    ("digits_flax.py", {}),
    ("digits_keras.py", {"KERAS_BACKEND": "tensorflow"}),
    ("digits_keras.py", {"KERAS_BACKEND": "jax"}),
    ("digits_keras.py", {"KERAS_BACKEND": "torch"}),
]


@pytest.mark.parametrize(
    ("example", "backend"),
    RUNS,
    ids=lambda v: "-".join(v.values()) or "own" if isinstance(v, dict) else v,
)
def test_example(example, backend, clean_env):
    run = subprocess.run(
        [sys.executable, EXAMPLES / example],
        env=clean_env | {"TF_CPP_MIN_LOG_LEVEL": "3"} | backend,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    accuracy = float(re.search(r"accuracy (\S+)", run.stdout)[1])
    assert accuracy > 0.95


def test_none_is_left_out():
    assert {example for example, _ in RUNS} == {p.name for p in EXAMPLES.glob("digits_*.py")}
