"""Trials as tables, read back by the libraries that users read them with."""

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from zeta._errors import UserError
from zeta.evaluate import Budget, Trial, TrialKey
from zeta.evaluate.store import export

KEY = TrialKey("digits", "d", "relu", "f", 0.01, 100, "final", Budget(2, 4, 8))
TIMING = {"seconds": 1.0, "step_ms": 0.5}
TRIAL = Trial(KEY, "accuracy", "ok", 0.5, 7, (0.25, 0.125), ({"alpha": 1.5},), TIMING)
DIVERGED = Trial(replace(KEY, seed=101), "accuracy", "diverged", None, 7, (), (), TIMING)


def test_csv(tmp_path: Path) -> None:
    export([TRIAL, DIVERGED], tmp_path / "t.csv")
    with (tmp_path / "t.csv").open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["key"], first["seed"], first["epochs"]) == (KEY.hex(), "100", "2")
    assert (float(first["value"]), float(first["seconds"])) == (0.5, 1.0)
    assert json.loads(first["curve"]) == [0.25, 0.125]
    assert json.loads(first["learned"]) == [{"alpha": 1.5}]
    assert (second["status"], second["value"]) == ("diverged", "")


def test_parquet(tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pip install 'zeta-nn[parquet]'")
    export([TRIAL, DIVERGED], tmp_path / "t.parquet")
    table = parquet.read_table(tmp_path / "t.parquet").to_pydict()
    assert table["key"] == [KEY.hex(), DIVERGED.key.hex()]
    assert table["value"] == [0.5, None]
    assert table["curve"] == [[0.25, 0.125], []]
    assert table["step_ms"] == [0.5, 0.5]
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_parquet_without_pyarrow_names_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"Parquet needs PyArrow.*zeta-nn\[parquet\]"):
        export([TRIAL], tmp_path / "t.parquet")


@pytest.mark.parametrize(
    ("name", "trials", "message"),
    [
        ("t.xlsx", [TRIAL], r"'t.xlsx': end it in .parquet or .csv"),
        ("t.csv", [], "no finished trials"),
        ("none/t.csv", [TRIAL], "cannot write .*none/t.csv.*No such file"),
    ],
)
def test_what_cannot_be_written(
    tmp_path: Path, name: str, trials: list[Trial], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        export(trials, tmp_path / name)
    assert not list(tmp_path.iterdir())
