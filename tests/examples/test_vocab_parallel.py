"""The example as its docstring says to start it, in two processes."""

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch

EXAMPLE = Path(__file__).parents[2] / "examples" / "vocab_parallel.py"


def test_two_processes_train_one_layer(tmp_path, clean_env):
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    options = ["--steps", "20", "--vocabulary", "2001", "--out", tmp_path / "model.pt"]
    result = subprocess.run(
        [*torchrun, "--standalone", EXAMPLE, *options],
        env=clean_env | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert result.returncode == 0, result.stderr
    assert "process 0 holds words 0 to 1000" in result.stdout
    assert "process 1 holds words 1001 to 2000" in result.stdout
    first, last = (float(loss) for loss in re.findall(r"step \d+: loss ([\d.]+)", result.stdout))
    assert last < first < 8  # ln 2001 is 7.6
    parts, whole = re.search(r"parts ([\d.]+), of one whole layer ([\d.]+)", result.stdout).groups()
    assert abs(float(parts) - float(whole)) < 2e-5
    assert torch.load(tmp_path / "model.pt", weights_only=True)["1.weight"].shape == (2001, 64)


def test_started_alone_it_says_how(monkeypatch):
    monkeypatch.syspath_prepend(EXAMPLE.parent)
    monkeypatch.setattr(sys, "argv", [EXAMPLE.name])
    with pytest.raises(SystemExit, match=r"torchrun --nproc-per-node 2 examples/.*py$"):
        runpy.run_path(str(EXAMPLE), run_name="__main__")
