"""Real worker processes."""

import signal
from dataclasses import replace
from pathlib import Path

import pytest

from zeta._errors import UserError
from zeta.activations import relu
from zeta.evaluate import Budget, TrialKey, formula_fingerprint, tasks
from zeta.evaluate.engines import LocalEngine
from zeta.evaluate.training import run_trial

DATA = tasks.get("breast_cancer").fingerprint()


def key_of(seed: int, formula: str | None = None) -> TrialKey:
    formula = formula or formula_fingerprint("relu", relu)
    budget = Budget(epochs=1, batch_size=64, width=8)
    return TrialKey("breast_cancer", DATA, "relu", formula, 0.01, seed, "final", budget)


def test_trials_come_back_as_run_here_and_failures_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.py"
    path.write_text(
        "import numpy as np\nfrom zeta.evaluate import Budget, Task\ndef load():\n"
        "    return np.eye(8), np.arange(8) % 2\n"
        "class Unscored(Task):\n"
        "    def score(self, predictions, targets):\n        raise IndexError\n"
        "bad = Unscored('bad', '', 'classification', load, Budget(1, 2, 3))\n"
    )
    source = f"{path}:bad"
    bad = replace(key_of(1), task=source, data=tasks.get(source).fingerprint())
    with LocalEngine(workers=2) as engine:
        keys = [key_of(seed) for seed in range(6)]
        groups = [keys[:2], keys[2:3], keys[3:]]
        trials = {trial.key: trial for group in engine.run(groups) for trial in group}
        assert trials == {key: run_trial(key) for key in keys}
        with pytest.raises(UserError, match=r"'relu' failed on task '.*bad.py:bad': IndexError"):
            list(engine.run([[bad]]))
        with pytest.raises(UserError, match="changed while it was being evaluated"):
            list(engine.run([[key_of(1, formula="0" * 16)]]))
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == set()


def test_an_engine_that_was_not_needed_starts_nothing() -> None:
    with LocalEngine() as engine:
        assert engine._pool is None
