"""The examples on the digit images learn; Keras's is run by tests/keras/check_digits.py."""

import re
import runpy
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"
HERE = ["digits_pytorch.py", "digits_flax.py"]


@pytest.mark.usefixtures("xla_compiles_quickly")
@pytest.mark.parametrize("example", HERE)
def test_example(example, capsys):
    runpy.run_path(str(EXAMPLES / example), run_name="__main__")
    accuracy = float(re.search(r"accuracy (\S+)", capsys.readouterr().out)[1])
    assert accuracy > 0.95


def test_none_is_left_out():
    assert {*HERE, "digits_keras.py"} == {p.name for p in EXAMPLES.glob("digits_*.py")}
