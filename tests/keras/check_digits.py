"""The example on the digit images runs as its head says, and learns; run by test_backends.py."""

import runpy
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "digits_keras.py"


def test_the_example_learns(capsys):
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    assert float(capsys.readouterr().out.removeprefix("accuracy ")) > 0.95
