"""The user's files on a machine that has them, and on one that has not."""

import shutil
from pathlib import Path

import pytest

from zeta.evaluate import Budget, TrialKey
from zeta.evaluate.engines.shipping import pack, unpacked
from zeta.load_formula import load_formula

FORMULA = """
from zeta import formula
from shipped_constants import BETA
from zeta.math import sigmoid

@formula(beta=BETA)
def swish(x, beta):
    return x * sigmoid(beta * x)
"""


@pytest.fixture
def key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrialKey:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "swish.py").write_text(FORMULA)
    (folder / "shipped_constants.py").write_text("BETA = 1.5\n")
    (folder / "unrelated.py").write_text("raise SystemExit\n")
    monkeypatch.chdir(folder)
    load_formula("swish.py:swish")  # as every run does first
    return TrialKey(
        "digits", "d", "swish.py:swish", "f", 0.01, 100, "final", Budget(1, 2, 3)
    )  # fmt: skip


def test_a_file_travels_with_the_modules_that_it_imports(key: TrialKey, tmp_path: Path) -> None:
    shipment = pack([key])
    assert [Path(path).name for path, _ in shipment.files] == ["shipped_constants.py", "swish.py"]
    shutil.rmtree(tmp_path / "mine")
    (moved,) = unpacked([key], shipment)
    assert moved.task == "digits"
    assert str(load_formula(moved.activation)) == "swish(x, beta=1.5)"


def test_files_that_are_there_already_are_used_in_place(key: TrialKey, tmp_path: Path) -> None:
    (moved,) = unpacked([key], pack([key]))
    assert moved.activation == f"{tmp_path}/mine/swish.py:swish"


def test_the_catalogue_does_not_travel() -> None:
    key = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(1, 2, 3))
    shipment = pack([key])
    assert (shipment.sources, shipment.files) == ((), ())
    assert unpacked([key], shipment) == [key]
